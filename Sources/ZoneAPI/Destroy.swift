// Destroy.swift: keg_zone_destroy and keg_zone_foreach.
//
// No other thread uses the zone meanwhile, by contract; its caches may still hold items,
// and a tick or a report may have met it in the table. So: off the table, wait for the
// pins, empty all caches into the keg, and what is then not in the keg is still in use.
//
// keg_zone_foreach writes down every item of the keg first, by state, and calls the
// program's function without any lock:
//
//   list | cached, sorted → | free → | allocated → |        one word an item

import Base
import Keg
import Malloc
import Pages
import Platform
import Synchronization
import Vmem
import Zone

@c public func keg_zone_destroy(_ zone: UnsafeMutableRawPointer?, _ flags: Int32) -> Int32 {
  guard let zone else { return 22 /* EINVAL */ }
  let handle = handle(zone)
  if flags & ~1 != 0 || handle.pointee.state != .live { return 22 /* EINVAL */ }
  if handle.pointee.flags.contains(.ofMalloc) || handle.pointee.secondaryCount > 0 {
    return 16 /* EBUSY */
  }
  guard handle.takeOffTable() else { return 22 }
  handle.emptyCaches()
  let used = handle.usedItems()
  if used > 0 {
    handle.reportUsed(used)
    if handle.isChecked { zoneChecks.pointee.inUse?(handle.address) }
    if flags & 1 == 0 {
      handle.putOnTable()
      return 16
    }
  }
  if handle.isChecked { zoneChecks.pointee.forgets?(handle.address) }
  handle.dissolve()
  return 0
}

extension UnsafeMutablePointer where Pointee == Handle {
  /// Makes the zone invisible and waits until nobody who met it is busy with it.
  /// - Returns: false when somebody else has done so.
  fileprivate func takeOffTable() -> Bool {
    var isMine = false
    _ = inSection {
      registryLock.pointee.lock()
      if pointee.state == .live {
        // Fork holds the zone lock from one look at the table to the next.
        pointee.zone.pointee.lock.lock()
        zoneTable.remove(pointee.number)
        pointee.zone.pointee.lock.unlock()
        isMine = true
      }
      registryLock.pointee.unlock()
    }
    while pins.pointee.load(ordering: .sequentiallyConsistent) != 0 {
      _ = keg_syscall6(24 /* sched_yield */, 0, 0, 0, 0, 0, 0)
    }
    return isMine
  }

  fileprivate func putOnTable() {
    _ = inSection {
      registryLock.pointee.lock()
      zoneTable.enter(self, pointee.number)
      registryLock.pointee.unlock()
    }
  }

  /// Hands everything cached anywhere back to the keg. Outside sections.
  fileprivate func emptyCaches() {
    forEachThreadBin { $0.flush(to: pointee.zone) }
    _ = inSection {
      flushArrays()
      pointee.zone.reclaim(.drainCPU)
    }
  }

  /// Items in use through this zone, once its caches are empty.
  fileprivate func usedItems() -> UInt {
    var used: UInt = 0
    _ = inSection {
      pointee.zone.pointee.lock.lock()
      used = UInt(bitPattern: max(pointee.zone.itemsOut, 0))
      pointee.zone.pointee.lock.unlock()
    }
    return used
  }

  /// `kegmalloc: zone x is not empty: 2 items in use: 0x… 0x…`, at most 16 of them.
  fileprivate func reportUsed(_ count: UInt) {
    var text = Text(to: 2)
    text.append("kegmalloc: zone ")
    text.append(cString: name)
    text.append(" is not empty: ")
    text.append(decimal: count)
    text.append(count == 1 ? " item in use:" : " items in use:")
    var listed: UInt = 0
    forEachKegItem { item, isFree in
      if isFree || listed >= 16 { return }
      listed &+= 1
      text.append(" ")
      text.append(hexadecimal: item)
    }
    if listed == 0 { text.append(" they are not in a keg") }
    if listed < count, listed > 0 { text.append(" …") }
    text.append("\n")
    text.flush()
  }

  /// Calls `body` with every item of the keg. Outside sections, nobody else is here.
  fileprivate func forEachKegItem(_ body: (_ item: UInt, _ isFree: Bool) -> Void) {
    _ = inSection {
      if let backed = pointee.backed {
        backed.pointee.lock.lock()
        backed.forEachItem(body)
        backed.pointee.lock.unlock()
      } else if let keg {
        keg.pointee.lock.lock()
        let layout = keg.pointee.layout
        keg.forEachSlab { slab in
          var index: UInt = 0
          while index < layout.itemCount {
            body(slab.pointee.base &+ index &* layout.stride, slab.isFree(index))
            index &+= 1
          }
        }
        keg.pointee.lock.unlock()
      }
    }
  }

  /// Gives up what the zone is made of. Its handle says from now on that it is gone.
  fileprivate func dissolve() {
    // U31: the fini of a NOFREE zone is called at its end only if it asks for that.
    let callsFini = !pointee.flags.contains(.noFree) || pointee.flags.contains(.allFini)
    pointee.take.store(0, ordering: .relaxed)
    pointee.give.store(0, ordering: .relaxed)
    _ = inSection {
      pointee.zone.giveEmptyBuckets()
      if let backed = pointee.backed {
        backed.destroy(callsFini: callsFini)
      } else if let keg, pointee.primary == nil {
        keg.destroy(callsFini: callsFini)
      }
      let arrays = pointee.arrays.exchange(0, ordering: .relaxed)
      if arrays != 0 { zoneTable.pointee.arrays?.give(arrays) }
      registryLock.pointee.lock()
      pointee.offset = 0
      pointee.state = .gone
      zoneTable.release(pointee.number)
      if let primary = pointee.primary { primary.pointee.secondaryCount &-= 1 }
      registryLock.pointee.unlock()
      zoneTable.keep(self)
    }
  }
}

// MARK: - Enumeration

private enum ItemKind {
  static var allocated: Int32 { 1 }
  static var free: Int32 { 2 }
  static var cached: Int32 { 4 }
}

@c public func keg_zone_foreach(
  _ zone: UnsafeMutableRawPointer, _ which: Int32,
  _ visit: (@convention(c) (UnsafeMutableRawPointer?, Int32, UnsafeMutableRawPointer?) -> Int32)?,
  _ argument: UnsafeMutableRawPointer?
) -> Int32 {
  let handle = handle(zone)
  handle.check()
  guard let visit, which & ~7 == 0, !handle.pointee.flags.contains(.ofMalloc) else { return 22 }
  var list = ItemList()
  guard list.collect(handle) else { return 12 }
  var result: Int32 = 0
  var i = 0
  while i < list.count, result == 0 {
    let kind = i < list.cachedEnd ? ItemKind.cached
      : i < list.freeEnd ? ItemKind.free : ItemKind.allocated
    if which & kind != 0 {
      result = visit(UnsafeMutableRawPointer(bitPattern: list.items[i]), kind, argument)
    }
    i &+= 1
  }
  list.dispose()
  return result
}

/// All items of a keg, cached ones first, then free ones, then those in use.
private struct ItemList: ~Copyable {
  private var span: TagPointer?
  private var room = 0
  private(set) var items = (8 as UInt).pointer(to: UInt.self)
  private(set) var count = 0
  private(set) var cachedEnd = 0
  private(set) var freeEnd = 0

  /// - Returns: false when there is no memory.
  mutating func collect(_ handle: HandlePointer) -> Bool {
    var wanted = handle.itemsAtMost()
    while true {
      wanted = wanted &+ wanted / 8 &+ 64
      var made: TagPointer? = nil
      _ = inSection { made = sharedHeap.allocateSpan(wanted &* 8) }
      guard let made else { return false }
      span = made
      items = made.pointee.start.pointer(to: UInt.self)
      room = Int(bitPattern: wanted)
      count = 0
      if gather(handle) { return true }
      dispose()
      wanted = max(wanted, handle.itemsAtMost())
    }
  }

  mutating func dispose() {
    let span = span
    _ = inSection { if let span { sharedHeap.freeSpan(span) } }
  }

  private mutating func add(_ item: UInt) {
    if count < room { items[count] = item }
    count &+= 1
  }

  private mutating func gather(_ handle: HandlePointer) -> Bool {
    addCached(handle)
    if count > room { return false }
    sort(items, count)
    cachedEnd = count
    handle.forEachKegItem { item, isFree in if isFree { add(item) } }
    freeEnd = count
    handle.forEachKegItem { item, isFree in
      if !isFree, !contains(item) { add(item) }
    }
    return count <= room
  }

  /// What zones of this keg have cached.
  private mutating func addCached(_ handle: HandlePointer) {
    var number: UInt = 1
    while number < zoneTable.top {
      if let other = zoneTable.pin(number) {
        if other == handle || handle.keg != nil && other.keg == handle.keg {
          other.forEachThreadBin { bin in bin.forEachItem { add($0) } }
          _ = inSection {
            other.forEachArray { slot in
              slot.pointee.lock.lock()
              withUnsafeMutablePointer(to: &slot.pointee.bin) { $0 }.forEachItem { add($0) }
              slot.pointee.lock.unlock()
            }
            other.pointee.zone.forEachDepotItem { add($0) }
          }
        }
        other.unpin()
      }
      number &+= 1
    }
  }

  private func contains(_ item: UInt) -> Bool {
    var low = 0
    var high = cachedEnd
    while low < high {
      let middle = (low &+ high) / 2
      if items[middle] < item { low = middle &+ 1 } else { high = middle }
    }
    return low < cachedEnd && items[low] == item
  }
}

extension UnsafeMutablePointer where Pointee == Handle {
  /// No fewer items than the keg has, or the caches of a zone without one.
  fileprivate func itemsAtMost() -> UInt {
    let all = figures()
    return all.freeItems &+ all.imported &- all.released
      &+ (keg?.pointee.itemCount ?? pointee.backed?.pointee.itemCount ?? 0)
  }
}

/// Heapsort, ascending: no memory, no worst case.
private func sort(_ items: UnsafeMutablePointer<UInt>, _ count: Int) {
  func sift(_ start: Int, _ end: Int) {
    var parent = start
    while true {
      var child = 2 &* parent &+ 1
      if child >= end { return }
      if child &+ 1 < end, items[child] < items[child &+ 1] { child &+= 1 }
      if items[parent] >= items[child] { return }
      (items[parent], items[child]) = (items[child], items[parent])
      parent = child
    }
  }
  var start = count / 2
  while start > 0 {
    start &-= 1
    sift(start, count)
  }
  var end = count
  while end > 1 {
    end &-= 1
    (items[0], items[end]) = (items[end], items[0])
    sift(0, end)
  }
}
