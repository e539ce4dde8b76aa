// Keg.swift: slabs of items of one size (U01, U16–U19, U41).
//
// A keg takes spans from the heap, divides them into items, and knows of each
// item whether it is free. It hands items out in batches to the buckets of its
// zones, so its lock is taken once for many items:
//
//   lists[7] ⇄ slab ⇄ slab      seven eighths or more in use: filled first (S19)
//   …
//   lists[0] ⇄ slab             nearly empty: filled last, so it may become free
//   full ⇄ slab                 no free item
//   free ⇄ slab                 no used item; all but one go back to the heap
//
// Moves between lists are O(1). Inside a slab the lowest free address goes first.
//
// - Invariant: itemCount of all slabs == usedCount + freeCount.
// Lock: rank `keg`; dropped around everything that may call the kernel.

import Base
import Pages
import Platform
import Synchronization
import Vmem

/// Prepares an item when its slab is made; non-zero is failure (U03).
package typealias InitFunction =
  @convention(c) (_ item: UnsafeMutableRawPointer?, _ size: Int, _ flags: Int32) -> Int32
/// Undoes `InitFunction` before the slab goes.
package typealias FiniFunction =
  @convention(c) (_ item: UnsafeMutableRawPointer?, _ size: Int) -> Void

package struct KegFlags: Flags {
  package let rawValue: UInt64
  package init(rawValue: UInt64) { self.rawValue = rawValue }
  /// Slabs are never given back: addresses stay type-stable (U30).
  package static var noFree: KegFlags { KegFlags(rawValue: 1 << 0) }
  /// Items are not memory the allocator may write to (U23).
  package static var noTouch: KegFlags { KegFlags(rawValue: 1 << 1) }
}

package struct Keg: ~Copyable {
  // Not the lock first: TSan takes a mutating access for a write to the first field.
  fileprivate var full: List<Slab>
  package let lock: Lock
  package let heap: UnsafeMutablePointer<Heap>
  package let layout: SlabLayout
  package let itemSize: UInt
  package let flags: KegFlags
  /// What the page map says of this keg's chunks: where its bin lies.
  package let bin: UInt16
  /// For reports; the name of the keg's primary zone, NUL-terminated.
  package let name: UnsafePointer<CChar>
  package let itemInit: InitFunction?
  package let itemFini: FiniFunction?
  fileprivate let headers: UnsafeMutablePointer<Pool>
  /// ⌈2^40 / stride⌉: turns the division of an offset by the stride into a
  /// multiplication, exact for offsets below 2^20 at strides up to 2^20.
  fileprivate let reciprocal: UInt
  /// ⌊8 · 2^32 / itemCount⌋ + 1: turns a count of used items into eighths.
  fileprivate let eighths: UInt
  fileprivate var partial: InlineArray<8, List<Slab>>
  /// Bit i: partial[i] is not empty.
  fileprivate var partialMask: UInt8
  fileprivate var free: List<Slab>
  package fileprivate(set) var freeCount: UInt
  // Written under the lock; depots read it without for their bound: relaxed.
  private let slabs: Atomic<UInt>
  /// Slabs made and given back since the start.
  package fileprivate(set) var slabsMade: UInt
  package fileprivate(set) var slabsReturned: UInt

  fileprivate static var fullList: UInt8 { 8 }
  fileprivate static var freeList: UInt8 { 9 }

  package init(
    name: UnsafePointer<CChar>, itemSize: UInt, alignment: UInt, bin: UInt16,
    heap: UnsafeMutablePointer<Heap>, itemInit: InitFunction? = nil,
    itemFini: FiniFunction? = nil, flags: KegFlags = .none
  ) {
    lock = Lock(rank: .keg)
    self.heap = heap
    self.name = name
    self.itemSize = itemSize
    self.flags = flags
    self.bin = bin
    self.itemInit = itemInit
    self.itemFini = itemFini
    layout = SlabLayout(size: itemSize, alignment: alignment)
    headers = heap.pointee.headerPool(for: layout)
    reciprocal = ((1 &<< 40) &+ layout.stride &- 1) / layout.stride
    eighths = (8 &<< 32) / layout.itemCount &+ 1
    partial = InlineArray(repeating: List())
    partialMask = 0
    full = List()
    free = List()
    freeCount = 0
    slabs = Atomic(0)
    slabsMade = 0
    slabsReturned = 0
  }

  package fileprivate(set) var slabCount: UInt {
    get { slabs.load(ordering: .relaxed) }
    nonmutating set { slabs.store(newValue, ordering: .relaxed) }
  }
  /// Items in all slabs, used and free.
  package var itemCount: UInt { slabCount &* layout.itemCount }
  /// Items handed out, the cached ones included.
  package var usedCount: UInt { itemCount &- freeCount }
  package var byteCount: UInt { slabCount &* layout.byteCount }
}

// MARK: - Items

extension UnsafeMutablePointer where Pointee == Keg {
  /// Takes up to `count` items, those of the fullest slabs first, making a slab
  /// when there is no free item at all.
  /// - Parameters:
  ///   - mayGrow: false: take only what is there (NOVM, U39).
  /// - Returns: how many were stored from `out` on; they ascend within a slab.
  package func take(_ count: Int, into out: UnsafeMutablePointer<UInt>, mayGrow: Bool = true) -> Int {
    pointee.lock.lock()
    var taken = takeFromSlabs(count, into: out)
    while taken == 0, mayGrow {
      pointee.lock.unlock()
      guard let slab = makeSlab() else { return 0 }
      pointee.lock.lock()
      // Lost races leave a free slab behind for the next caller (U41).
      insert(slab)
      taken = takeFromSlabs(count, into: out)
    }
    pointee.lock.unlock()
    return taken
  }

  private func takeFromSlabs(_ count: Int, into out: UnsafeMutablePointer<UInt>) -> Int {
    var taken = 0
    while taken < count, let slab = fullestSlab() {
      taken &+= slab.take(count &- taken, stride: pointee.layout.stride, into: out + taken)
      relist(slab)
    }
    pointee.freeCount &-= UInt(bitPattern: taken)
    return taken
  }

  /// Gives items back. Dies on one that is free already, or no item of this keg.
  ///
  /// Items freed in no order lie in many slabs, whose headers are not in the cache:
  /// they are fetched a few items ahead. Items of one slab in a row cost one look-up.
  package func give(_ items: UnsafeMutablePointer<UInt>, _ count: Int) {
    let ahead = 6
    let map = pointee.heap.pointee.pageMap
    let slabBytes = pointee.layout.byteCount
    pointee.lock.lock()
    var slab: UnsafeMutablePointer<Slab>? = nil
    var base: UInt = 1
    var i = 0
    while i < count {
      if i &+ ahead < count { prefetchSlab(of: items[i &+ ahead], map) }
      let item = items[i]
      if item &- base >= slabBytes || slab == nil {
        if let slab { relist(slab) }
        slab = self.slab(of: item)
        base = slab.unsafelyUnwrapped.pointee.base  // just set
      }
      let here = slab.unsafelyUnwrapped  // set for every item
      if !here.give(index(of: item, in: here)) {
        die("double free of", at: item, zone: pointee.name)
      }
      i &+= 1
    }
    if let slab { relist(slab) }
    pointee.freeCount &+= UInt(bitPattern: count)
    let surplus = detachSurplus()
    pointee.lock.unlock()
    returnSlabs(surplus)
  }

  /// Gives one item back.
  package func give(_ item: UInt) {
    var item = item
    withUnsafeMutablePointer(to: &item) { give($0, 1) }
  }

  /// Starts to load the header and the bitmap word of an item's slab.
  @inline(__always)
  private func prefetchSlab(of item: UInt, _ map: PageMap) {
    guard pointee.heap.pointee.reservation.contains(item),
      case .slab(let slab) = map.owner(at: map.index(of: item))
    else { return }
    keg_prefetch(slab.address)
    let offset = item & (Chunk.size &- 1)
    keg_prefetch(
      slab.address &+ Slab.headerBytes &+ (offset &* pointee.reciprocal) &>> 46 &* 8)
  }

  /// The slab that `item` lies in. Dies when there is none of this keg.
  @inline(__always)
  private func slab(of item: UInt) -> UnsafeMutablePointer<Slab> {
    if let map = pointee.heap.pageMap(for: item),
      case .slab(let slab) = map.owner(at: map.index(of: item)), slab.pointee.keg == self
    {
      return slab
    }
    die("invalid free of", at: item, zone: pointee.name)
  }

  @inline(__always)
  private func index(of item: UInt, in slab: UnsafeMutablePointer<Slab>) -> UInt {
    let offset = item &- slab.pointee.base
    let index = (offset &* pointee.reciprocal) &>> 40
    if index &* pointee.layout.stride != offset || index >= pointee.layout.itemCount {
      die("invalid free of", at: item, zone: pointee.name)
    }
    return index
  }

  /// What the slab bitmap says of an address in one of this keg's slabs.
  package func state(of address: UInt, in slab: UnsafeMutablePointer<Slab>) -> ItemState {
    let offset = address &- slab.pointee.base
    let index = offset / pointee.layout.stride
    if index >= pointee.layout.itemCount || index &* pointee.layout.stride != offset {
      return .interior
    }
    return slab.isFree(index) ? .free : .used
  }
}

/// What an address inside a slab is.
package enum ItemState {
  /// The start of an item that was handed out to a zone.
  case used
  /// The start of an item that is in the slab.
  case free
  /// Not the start of an item.
  case interior
}

// MARK: - Lists

extension UnsafeMutablePointer where Pointee == Keg {
  /// A slab with a free item, the fullest there is, or nil.
  @inline(__always)
  private func fullestSlab() -> UnsafeMutablePointer<Slab>? {
    let mask = pointee.partialMask
    if mask == 0 { return pointee.free.head }
    return pointee.partial[7 &- mask.leadingZeroBitCount].head
  }

  /// The list a slab belongs on by its count of free items.
  @inline(__always)
  private func list(for slab: UnsafeMutablePointer<Slab>) -> UInt8 {
    let free = UInt(slab.pointee.freeCount)
    let all = pointee.layout.itemCount
    if free == 0 { return Keg.fullList }
    if free == all { return Keg.freeList }
    return UInt8(truncatingIfNeeded: ((all &- free) &* pointee.eighths) &>> 32)
  }

  @inline(__always)
  private func relist(_ slab: UnsafeMutablePointer<Slab>) {
    let list = list(for: slab)
    if list == slab.pointee.list { return }
    detach(slab)
    attach(slab, to: list)
  }

  private func insert(_ slab: UnsafeMutablePointer<Slab>) {
    attach(slab, to: Keg.freeList)
    pointee.slabCount &+= 1
    pointee.slabsMade &+= 1
    pointee.freeCount &+= pointee.layout.itemCount
  }

  private func attach(_ slab: UnsafeMutablePointer<Slab>, to list: UInt8) {
    slab.pointee.list = list
    if list == Keg.fullList {
      pointee.full.prepend(slab)
    } else if list == Keg.freeList {
      pointee.free.prepend(slab)
    } else {
      pointee.partial[Int(list)].prepend(slab)
      pointee.partialMask |= 1 &<< list
    }
  }

  private func detach(_ slab: UnsafeMutablePointer<Slab>) {
    let list = slab.pointee.list
    if list == Keg.fullList {
      pointee.full.remove(slab)
    } else if list == Keg.freeList {
      pointee.free.remove(slab)
    } else {
      pointee.partial[Int(list)].remove(slab)
      if pointee.partial[Int(list)].isEmpty { pointee.partialMask &= ~(1 &<< list) }
    }
  }
}

// MARK: - Slabs

extension UnsafeMutablePointer where Pointee == Keg {
  /// Takes chunks and a header and makes a slab of free items of them.
  ///
  /// Called without the keg lock; may call the kernel.
  /// - Returns: nil when there is no memory or an item's init failed; nothing is lost.
  private func makeSlab() -> UnsafeMutablePointer<Slab>? {
    let layout = pointee.layout
    let heap = pointee.heap
    guard let span = heap.allocateSpan(layout.byteCount) else { return nil }
    let header = pointee.headers.take()
    guard header != 0 else {
      heap.freeSpan(span)
      return nil
    }
    let base = span.pointee.start
    let slab = header.pointer(to: Slab.self)
    slab.initialize(
      to: Slab(base: base, keg: self, span: span, itemCount: layout.itemCount))
    slab.markAllFree(itemCount: layout.itemCount)
    guard initItems(of: slab) else {
      pointee.headers.give(header)
      heap.freeSpan(span)
      return nil
    }
    heap.pageMap(ofOwn: base).enter(
      slab, bin: pointee.bin, at: base, chunkCount: layout.chunkCount)
    return slab
  }

  /// Calls init for every item; on failure fini for those done, in reverse (U03).
  private func initItems(of slab: UnsafeMutablePointer<Slab>) -> Bool {
    guard let itemInit = pointee.itemInit else { return true }
    let size = Int(bitPattern: pointee.itemSize)
    var i: UInt = 0
    while i < pointee.layout.itemCount {
      if itemInit(item(i, of: slab), size, 0) != 0 {
        while i > 0 {
          i &-= 1
          pointee.itemFini?(item(i, of: slab), size)
        }
        return false
      }
      i &+= 1
    }
    return true
  }

  private func item(_ index: UInt, of slab: UnsafeMutablePointer<Slab>) -> UnsafeMutableRawPointer? {
    UnsafeMutableRawPointer(bitPattern: slab.pointee.base &+ index &* pointee.layout.stride)
  }

  /// Takes all free slabs but one off the keg. Called with the lock held.
  private func detachSurplus() -> UnsafeMutablePointer<Slab>? {
    pointee.free.count > 1 ? detachFree(keeping: 1) : nil
  }

  private func detachFree(keeping kept: Int) -> UnsafeMutablePointer<Slab>? {
    if pointee.flags.contains(.noFree) { return nil }
    var chain: UnsafeMutablePointer<Slab>? = nil
    while pointee.free.count > kept, let slab = pointee.free.popFirst() {
      slab.pointee.next = chain
      chain = slab
      pointee.slabCount &-= 1
      pointee.slabsReturned &+= 1
      pointee.freeCount &-= pointee.layout.itemCount
    }
    return chain
  }

  /// Returns a chain of free slabs to the heap. Called without the keg lock.
  private func returnSlabs(_ chain: UnsafeMutablePointer<Slab>?) {
    var next = chain
    while let slab = next {
      next = slab.pointee.next
      if let itemFini = pointee.itemFini {
        var i: UInt = 0
        while i < pointee.layout.itemCount {
          itemFini(item(i, of: slab), Int(bitPattern: pointee.itemSize))
          i &+= 1
        }
      }
      let base = slab.pointee.base
      let span = slab.pointee.span
      pointee.heap.pageMap(ofOwn: base).clear(at: base, chunkCount: pointee.layout.chunkCount)
      pointee.headers.give(slab.address)
      pointee.heap.freeSpan(span)
    }
  }

  /// Returns every free slab to the heap (U15).
  package func drain() {
    pointee.lock.lock()
    let chain = detachFree(keeping: 0)
    pointee.lock.unlock()
    returnSlabs(chain)
  }

  /// Calls `body` with every slab. Called with the lock held.
  package func forEachSlab(_ body: (UnsafeMutablePointer<Slab>) -> Void) {
    pointee.full.forEach(body)
    pointee.free.forEach(body)
    var i = 0
    while i < 8 {
      pointee.partial[i].forEach(body)
      i &+= 1
    }
  }

  /// Real in the INVARIANTS build: lists, counts and bitmaps agree.
  package func checkInvariants() {
    #if INVARIANTS
      pointee.lock.lock()
      var slabs: UInt = 0
      var free: UInt = 0
      forEachSlab { slab in
        slabs += 1
        free += UInt(slab.pointee.freeCount)
        invariant(list(for: slab) == slab.pointee.list, "keg: slab on the wrong list")
        slab.checkInvariants(itemCount: pointee.layout.itemCount)
      }
      invariant(slabs == pointee.slabCount, "keg: slabCount differs from the lists")
      invariant(free == pointee.freeCount, "keg: freeCount differs from the slabs")
      pointee.lock.unlock()
    #endif
  }
}
