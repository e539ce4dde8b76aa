// BackedKeg.swift: a keg over somebody else's back end (U23, U29).
//
// Its slabs are a caller's buffer, or what a function of the program returns: a mapping
// of a file, huge pages, addresses of a device that nobody may touch. The page map knows
// none of that, so the slabs are found by binary search in a table sorted by address:
//
//   table ▶| slab | slab | slab |      slab ▶ header in metadata | bitmap     back end ▶ items
//
// The items are never read or written here. A zone uses it as an import and a release
// function. Wholly free slabs go back to the back end at a drain, all but one at once.
//
// - Invariant: freeCount == ones in all bitmaps.
// Lock: `lock`, rank `keg`; not held while the back end, init or fini run.

import Base
import Keg
import Pages
import Platform
import Vmem

/// Where slabs come from; functions of the program.
package struct BackEnd {
  package var allocate:
    (@convention(c) (UnsafeMutableRawPointer?, UInt, Int32) -> UnsafeMutableRawPointer?)?
  package var free: (@convention(c) (UnsafeMutableRawPointer?, UnsafeMutableRawPointer?, UInt) -> Void)?
  package var argument: UnsafeMutableRawPointer?
  /// The only slab, instead of the functions; 0: none.
  package var buffer: UInt = 0
  package init() {}
}

package struct BackedKeg: ~Copyable {
  // Not the lock first: TSan takes a mutating access for a write to the first field.
  package internal(set) var slabCount: Int = 0
  /// A slab; its bitmap lies behind it, 1 = free.
  struct Slab: ~Copyable {
    /// What the back end gave, and its first item.
    let memory: UInt
    let base: UInt
    let itemCount: UInt
    var freeCount: UInt
    static var headerBytes: UInt { 32 }
  }

  package let lock: Lock
  package let heap: UnsafeMutablePointer<Heap>
  package let stride: UInt
  package let itemSize: UInt
  package let slabBytes: UInt
  package let name: UnsafePointer<CChar>
  let alignment: UInt
  let backEnd: BackEnd
  let itemInit: InitFunction?
  let itemFini: FiniFunction?
  let keepsSlabs: Bool
  var slabs: UnsafeMutablePointer<UInt>?
  var capacity: Int = 0
  package internal(set) var freeCount: UInt = 0
  package internal(set) var itemCount: UInt = 0

  package init(
    name: UnsafePointer<CChar>, itemSize: UInt, alignment: UInt, slabBytes: UInt,
    backEnd: BackEnd, heap: UnsafeMutablePointer<Heap>, itemInit: InitFunction?,
    itemFini: FiniFunction?, keepsSlabs: Bool
  ) {
    lock = Lock(rank: .keg)
    self.heap = heap
    self.name = name
    self.itemSize = itemSize
    self.alignment = alignment
    self.slabBytes = slabBytes
    self.backEnd = backEnd
    self.itemInit = itemInit
    self.itemFini = itemFini
    self.keepsSlabs = keepsSlabs
    stride = max(itemSize, 1).roundedUp(to: max(alignment, 1))
    slabs = nil
  }
}

typealias BackedSlab = UnsafeMutablePointer<BackedKeg.Slab>

extension UnsafeMutablePointer where Pointee == BackedKeg {
  private func slab(_ i: Int) -> BackedSlab {
    // Called for i < slabCount: the table exists.
    pointee.slabs.unsafelyUnwrapped[i].pointer(to: BackedKeg.Slab.self)
  }

  private func word(_ slab: BackedSlab, _ index: UInt) -> UnsafeMutablePointer<UInt64> {
    (slab.address &+ BackedKeg.Slab.headerBytes).pointer(to: UInt64.self)
      + Int(bitPattern: index / 64)
  }

  /// - Returns: how many items were stored; fewer than `count` when the back end has no more.
  package func take(
    _ count: Int, into out: UnsafeMutablePointer<UInt>, _ flags: Int32
  ) -> Int {
    pointee.lock.lock()
    var taken = takeFree(count, into: out)
    while taken == 0, flags & 8 /* KEG_NOVM */ == 0 {
      pointee.lock.unlock()
      guard let slab = makeSlab(flags) else { return 0 }
      pointee.lock.lock()
      guard insert(slab) else {
        pointee.lock.unlock()
        dissolve(slab)
        return 0
      }
      taken = takeFree(count, into: out)
    }
    pointee.lock.unlock()
    return taken
  }

  private func takeFree(_ count: Int, into out: UnsafeMutablePointer<UInt>) -> Int {
    var taken = 0
    var i = 0
    while i < pointee.slabCount, taken < count {
      let slab = slab(i)
      var index: UInt = 0
      while slab.pointee.freeCount > 0, taken < count, index < slab.pointee.itemCount {
        let word = word(slab, index)
        let bits = word.pointee &>> UInt64(index % 64)
        if bits == 0 {
          index = (index / 64 &+ 1) &* 64
          continue
        }
        index &+= UInt(bitPattern: bits.trailingZeroBitCount)
        word.pointee &= ~(1 &<< UInt64(index % 64))
        slab.pointee.freeCount &-= 1
        out[taken] = slab.pointee.base &+ index &* pointee.stride
        taken &+= 1
      }
      i &+= 1
    }
    pointee.freeCount &-= UInt(bitPattern: taken)
    return taken
  }

  /// Dies on an item that is free already, or none of this keg.
  package func give(_ items: UnsafeMutablePointer<UInt>, _ count: Int) {
    pointee.lock.lock()
    var i = 0
    while i < count {
      let item = items[i]
      guard let slab = slab(holding: item) else {
        die("invalid free of", at: item, zone: pointee.name)
      }
      let offset = item &- slab.pointee.base
      let index = offset / pointee.stride
      if index &* pointee.stride != offset {
        die("invalid free of", at: item, zone: pointee.name)
      }
      let word = word(slab, index)
      let bit: UInt64 = 1 &<< UInt64(index % 64)
      if word.pointee & bit != 0 { die("double free of", at: item, zone: pointee.name) }
      word.pointee |= bit
      slab.pointee.freeCount &+= 1
      i &+= 1
    }
    pointee.freeCount &+= UInt(bitPattern: count)
    pointee.lock.unlock()
    returnFreeSlabs(keeping: 1)
  }

  /// The slab that an item lies in. Called with the lock held.
  private func slab(holding item: UInt) -> BackedSlab? {
    var low = 0
    var high = pointee.slabCount
    while low < high {
      let middle = (low &+ high) / 2
      if slab(middle).pointee.base <= item { low = middle &+ 1 } else { high = middle }
    }
    if low == 0 { return nil }
    let slab = slab(low &- 1)
    return item &- slab.pointee.base < slab.pointee.itemCount &* pointee.stride ? slab : nil
  }

  /// Returns wholly free slabs to the back end, but for `kept` of them.
  package func returnFreeSlabs(keeping kept: Int, callsFini: Bool = true, evenKept: Bool = false) {
    if pointee.keepsSlabs && !evenKept { return }
    if pointee.backEnd.buffer != 0 && !evenKept { return }
    while true {
      pointee.lock.lock()
      var free = 0
      var place = -1
      var i = 0
      while i < pointee.slabCount {
        if slab(i).pointee.freeCount == slab(i).pointee.itemCount {
          free &+= 1
          place = i
        }
        i &+= 1
      }
      guard free > kept else {
        pointee.lock.unlock()
        return
      }
      let gone = remove(place)
      pointee.lock.unlock()
      dissolve(gone, callsFini: callsFini)
    }
  }

  /// Gives all slabs up; those with items in use stay with the program.
  package func destroy(callsFini: Bool) {
    returnFreeSlabs(keeping: 0, callsFini: callsFini, evenKept: true)
    while pointee.slabCount > 0 {
      let slab = remove(pointee.slabCount &- 1)
      if callsFini { finish(slab, only: true, upTo: slab.pointee.itemCount) }
      giveHeader(slab)
    }
  }

  package func forEachItem(_ body: (_ item: UInt, _ isFree: Bool) -> Void) {
    var i = 0
    while i < pointee.slabCount {
      let slab = slab(i)
      var index: UInt = 0
      while index < slab.pointee.itemCount {
        body(
          slab.pointee.base &+ index &* pointee.stride,
          word(slab, index).pointee & (1 &<< UInt64(index % 64)) != 0)
        index &+= 1
      }
      i &+= 1
    }
  }
}

// MARK: - Slabs

extension UnsafeMutablePointer where Pointee == BackedKeg {
  /// Asks the back end for a slab and initialises its items. Called without the lock.
  private func makeSlab(_ flags: Int32) -> BackedSlab? {
    let bytes = pointee.slabBytes
    var memory = pointee.backEnd.buffer
    if memory != 0 {
      if pointee.slabCount > 0 { return nil }
    } else {
      let section = keg_step_outside()
      memory = UInt(
        bitPattern: pointee.backEnd.allocate?(pointee.backEnd.argument, bytes, flags))
      keg_step_inside(section)
      if memory == 0 { return nil }
    }
    let base = memory.roundedUp(to: max(pointee.alignment, 1))
    let skipped = base &- memory
    let count = skipped < bytes ? (bytes &- skipped) / pointee.stride : 0
    let header = BackedKeg.Slab.headerBytes &+ (count &+ 63) / 64 &* 8
    let span = count == 0 ? nil : pointee.heap.allocateSpan(header)
    guard let span else {
      returnMemory(memory)
      return nil
    }
    // The header lies in a span of its own; its tag is the word before the slab's.
    let place = span.pointee.start
    place.word = span.address
    let slab = (place &+ 16).pointer(to: BackedKeg.Slab.self)
    slab.initialize(
      to: BackedKeg.Slab(memory: memory, base: base, itemCount: count, freeCount: count))
    var index: UInt = 0
    while index < count {
      let left = count &- index
      word(slab, index).pointee = left >= 64 ? ~0 : (1 &<< UInt64(left)) &- 1
      index &+= 64
    }
    guard let itemInit = pointee.itemInit else { return slab }
    let section = keg_step_outside()
    index = 0
    while index < count {
      let item = UnsafeMutableRawPointer(bitPattern: base &+ index &* pointee.stride)
      if itemInit(item, Int(bitPattern: pointee.itemSize), flags) != 0 { break }
      index &+= 1
    }
    keg_step_inside(section)
    if index == count { return slab }
    finish(slab, only: false, upTo: index)
    giveHeader(slab)
    returnMemory(memory)
    return nil
  }

  /// Calls fini for the first `count` items, last first; `only`: for free ones.
  private func finish(_ slab: BackedSlab, only: Bool, upTo count: UInt) {
    guard let itemFini = pointee.itemFini else { return }
    let section = keg_step_outside()
    var index = count
    while index > 0 {
      index &-= 1
      if only, word(slab, index).pointee & (1 &<< UInt64(index % 64)) == 0 { continue }
      itemFini(
        UnsafeMutableRawPointer(bitPattern: slab.pointee.base &+ index &* pointee.stride),
        Int(bitPattern: pointee.itemSize))
    }
    keg_step_inside(section)
  }

  private func dissolve(_ slab: BackedSlab, callsFini: Bool = true) {
    if callsFini { finish(slab, only: false, upTo: slab.pointee.itemCount) }
    let memory = slab.pointee.memory
    giveHeader(slab)
    returnMemory(memory)
  }

  private func giveHeader(_ slab: BackedSlab) {
    let place = slab.address &- 16
    pointee.heap.freeSpan(place.word.pointer(to: BoundaryTag.self))
  }

  private func returnMemory(_ memory: UInt) {
    if pointee.backEnd.buffer != 0 { return }
    let section = keg_step_outside()
    pointee.backEnd.free?(
      pointee.backEnd.argument, UnsafeMutableRawPointer(bitPattern: memory), pointee.slabBytes)
    keg_step_inside(section)
  }

  /// Enters a slab into the table. Called with the lock held.
  /// - Returns: false when there is no memory for a larger table.
  private func insert(_ slab: BackedSlab) -> Bool {
    // A buffer is one slab; who was second finds it.
    if pointee.backEnd.buffer != 0, pointee.slabCount > 0 { return false }
    if pointee.slabCount == pointee.capacity {
      // A table that is outgrown stays behind in metadata: at most as much again.
      let larger = max(16, pointee.capacity &* 2)
      guard let table = pointee.heap.pointee.metadata.room(for: UInt.self, count: larger) else {
        return false
      }
      var i = 0
      while i < pointee.slabCount {
        table[i] = pointee.slabs.unsafelyUnwrapped[i]  // slabCount > 0
        i &+= 1
      }
      pointee.slabs = table
      pointee.capacity = larger
    }
    let table = pointee.slabs.unsafelyUnwrapped  // made above at the latest
    var place = pointee.slabCount
    while place > 0, self.slab(place &- 1).pointee.base > slab.pointee.base {
      table[place] = table[place &- 1]
      place &-= 1
    }
    table[place] = slab.address
    pointee.slabCount &+= 1
    pointee.itemCount &+= slab.pointee.itemCount
    pointee.freeCount &+= slab.pointee.itemCount
    return true
  }

  /// Takes a slab off the table. Called with the lock held.
  private func remove(_ place: Int) -> BackedSlab {
    let gone = slab(place)
    var i = place
    while i &+ 1 < pointee.slabCount {
      pointee.slabs.unsafelyUnwrapped[i] = pointee.slabs.unsafelyUnwrapped[i &+ 1]  // exists
      i &+= 1
    }
    pointee.slabCount &-= 1
    pointee.itemCount &-= gone.pointee.itemCount
    pointee.freeCount &-= gone.pointee.freeCount
    return gone
  }
}
