// Arrays.swift: where a zone's items are cached: in bins of threads, or, if the zone has a
// limit, in arrays of CPUs.
//
//   no limit    thread ──▶ its own bin                     no lock, nobody else looks in
//   limit       thread ──▶ array of its CPU: lock | bin    the lock is only tried (S03)
//
// What lies in bins of threads counts against a limit but cannot be had by others. So a
// zone with a limit uses arrays that anybody can empty: a caller that finds no room
// drains them all before it fails or sleeps. Who finds a lock held bypasses the cache.
//
// Lock: rank `array`, above a thread's, below the zone's; dropped around functions of the
// program and whatever may call the kernel.

import Base
import Keg
import Malloc
import Pages
import Platform
import Synchronization
import Zone

/// One CPU's array of one zone.
struct ArraySlot: ~Copyable {
  var bin: Bin
  let lock: Lock

  /// Slots lie a cache line apart.
  static var byteCount: UInt { 64 }
}

/// A cache that the caller may use until it gives it back.
struct Cache {
  let bin: UnsafeMutablePointer<Bin>
  let slot: UnsafeMutablePointer<ArraySlot>?

  @inline(__always)
  func giveBack() { slot?.pointee.lock.unlock() }
}

extension UnsafeMutablePointer where Pointee == Handle {
  /// The cache that serves the calling thread; nil: none, or its lock is held. In a section.
  func cache() -> Cache? {
    if pointee.offset == 0 && pointee.arrays.load(ordering: .relaxed) == 0 { return nil }
    if !pointee.zone.isLimited {
      if pointee.offset == 0 { return nil }
      let table = ownTable()
      return table == 0 ? nil : Cache(bin: tableBin(table, pointee.offset), slot: nil)
    }
    // What the thread cached before there was a limit shall be had by all.
    let table = existingTable()
    if table != 0, pointee.offset != 0, !tableBin(table, pointee.offset).isUnused {
      tableBin(table, pointee.offset).flush(to: pointee.zone)
    }
    if pointee.zone.pointee.bucketEntries == 0 { return nil }
    guard let slot = array(UInt(keg_cpu()) % zoneTable.pointee.cpuCount),
      slot.pointee.lock.tryLock()
    else { return nil }
    return Cache(bin: withUnsafeMutablePointer(to: &slot.pointee.bin) { $0 }, slot: slot)
  }

  private func array(_ index: UInt) -> UnsafeMutablePointer<ArraySlot>? {
    let arrays = pointee.arrays.load(ordering: .acquiring)
    return arrays == 0 ? nil : slot(index, of: arrays)
  }

  private func slot(_ index: UInt, of arrays: UInt) -> UnsafeMutablePointer<ArraySlot> {
    (arrays &+ index &* ArraySlot.byteCount).pointer(to: ArraySlot.self)
  }

  func forEachArray(_ body: (UnsafeMutablePointer<ArraySlot>) -> Void) {
    var index: UInt = 0
    while index < zoneTable.pointee.cpuCount, let slot = array(index) {
      body(slot)
      index &+= 1
    }
  }

  /// Makes the arrays, if the zone is to have caches at all. In a section.
  func makeArrays() {
    if array(0) != nil || pointee.flags.contains(.noBucket) { return }
    guard let pool = zoneTable.pointee.arrays else { return }
    let memory = pool.take()
    if memory == 0 { return }
    var index: UInt = 0
    while index < zoneTable.pointee.cpuCount {
      slot(index, of: memory).initialize(to: ArraySlot(bin: Bin(), lock: Lock(rank: .array)))
      index &+= 1
    }
    let (isFirst, _) = pointee.arrays.compareExchange(
      expected: 0, desired: memory, ordering: .releasing)
    if !isFirst { pool.give(memory) }
  }

  /// Hands what the CPUs' arrays hold to the depot. In a section.
  func flushArrays() {
    forEachArray { slot in
      slot.pointee.lock.lock()
      withUnsafeMutablePointer(to: &slot.pointee.bin) { $0 }.flush(to: pointee.zone)
      slot.pointee.lock.unlock()
    }
  }

  /// Gives everything that is cached, but in other threads' bins, back to the keg. In a
  /// section; may call functions of the program.
  func drainCaches() {
    let table = existingTable()
    if table != 0, pointee.offset != 0 { tableBin(table, pointee.offset).flush(to: pointee.zone) }
    flushArrays()
    pointee.zone.reclaim(.drainCPU)
    pointee.backed?.returnFreeSlabs(keeping: 0)
  }

  /// keg_zone_reclaim: `level` as of keg_reclaim. False: an unknown level.
  func reclaim(_ level: Int32) -> Bool {
    guard level >= 1, level <= 3 else { return false }
    _ = inSection {
      if level == 3 {
        drainCaches()
      } else {
        pointee.zone.reclaim(level == 1 ? .trim : .drain)
        pointee.backed?.returnFreeSlabs(keeping: 0)
      }
    }
    return true
  }

  /// Items in arrays and in threads' bins, a moment ago. Outside sections.
  func itemsInArrays() -> UInt {
    var count = 0
    forEachThreadBin { count &+= max($0.cachedCount, 0) }
    forEachArray { slot in
      slot.pointee.lock.lock()
      count &+= withUnsafeMutablePointer(to: &slot.pointee.bin) { $0 }.cachedCount
      slot.pointee.lock.unlock()
    }
    return UInt(bitPattern: count)
  }

  /// Buckets for a limit of `most` items, as UMA sizes them: all CPUs' arrays together
  /// hold no more than the limit (U36).
  func sizeBuckets(limit most: Int) {
    if most == 0 {
      pointee.zone.setBucketEntries(pointee.entries, most: mostEntries, depotItems: .max)
      return
    }
    let buckets = 2 &* Int(bitPattern: zoneTable.pointee.cpuCount)
    let share = most / buckets
    let entries = min(share == 0 ? 0 : max(share / 2, 1), min(pointee.entries, BucketSize.largest))
    pointee.zone.setBucketEntries(entries, most: entries, depotItems: max(most &- buckets &* entries, 0))
  }
}
