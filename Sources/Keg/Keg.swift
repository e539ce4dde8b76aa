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
  /// Items are zero when they enter a slab (U24).
  package static var zeroed: KegFlags { KegFlags(rawValue: 1 << 2) }
  /// A counter for each item lies behind the slab's bitmap (U27).
  package static var counted: KegFlags { KegFlags(rawValue: 1 << 3) }
  /// Slabs are left out of core files (U47).
  package static var noDump: KegFlags { KegFlags(rawValue: 1 << 4) }
}

package struct Keg: ~Copyable {
  // Not the lock first: TSan takes a mutating access for a write to the first field.
  var full: List<Slab>
  package let lock: Lock
  package let heap: UnsafeMutablePointer<Heap>
  package let layout: SlabLayout
  package let itemSize: UInt
  package internal(set) var flags: KegFlags
  /// What the page map says of this keg's chunks: where its bin lies.
  package let bin: UInt16
  /// For reports; the name of the keg's primary zone, NUL-terminated.
  package let name: UnsafePointer<CChar>
  package let itemInit: InitFunction?
  package let itemFini: FiniFunction?
  let headers: UnsafeMutablePointer<Pool>
  /// ⌈2^40 / stride⌉: turns the division of an offset by the stride into a
  /// multiplication, exact for offsets below 2^20 at strides up to 2^20, and for the
  /// starts of items in larger slabs, which have four.
  let reciprocal: UInt
  /// ⌊8 · 2^32 / itemCount⌋ + 1: turns a count of used items into eighths.
  let eighths: UInt
  var partial: InlineArray<8, List<Slab>>
  /// Bit i: partial[i] is not empty.
  var partialMask: UInt8
  var free: List<Slab>
  // Written under the lock; bounds of caches are made of them without: relaxed.
  private let slabs: Atomic<UInt>
  private let freeItems: Atomic<UInt>
  /// The keg whose domain this is; nil of the first (KegDomains.swift).
  var first: UnsafeMutablePointer<Keg>?
  /// The other domains: their address, or 0. The mask is written before.
  let others: Atomic<UInt>
  var domainMask: UInt
  /// How often the lock was waited for, or a thread took items after another one.
  var waits: UInt32
  var lastTaker: UInt32
  /// Slabs made and given back since the start.
  package internal(set) var slabsMade: UInt
  package internal(set) var slabsReturned: UInt
  package var policy: KegPolicy

  static var fullList: UInt8 { 8 }
  static var freeList: UInt8 { 9 }

  package init(
    name: UnsafePointer<CChar>, itemSize: UInt, alignment: UInt, bin: UInt16,
    heap: UnsafeMutablePointer<Heap>, itemInit: InitFunction? = nil,
    itemFini: FiniFunction? = nil, flags: KegFlags = .none,
    headers: UnsafeMutablePointer<Pool>? = nil, hasMargin: Bool = false, leastItems: UInt = 1
  ) {
    lock = Lock(rank: .keg)
    self.heap = heap
    self.name = name
    self.itemSize = itemSize
    self.flags = flags
    self.bin = bin
    self.itemInit = itemInit
    self.itemFini = itemFini
    layout = SlabLayout(
      size: itemSize, alignment: alignment, hasMargin: hasMargin, leastItems: leastItems)
    self.headers = headers ?? heap.pointee.headerPool(for: layout)
    reciprocal = ((1 &<< 40) &+ layout.stride &- 1) / layout.stride
    eighths = (8 &<< 32) / layout.itemCount &+ 1
    partial = InlineArray(repeating: List())
    partialMask = 0
    full = List()
    free = List()
    freeItems = Atomic(0)
    first = nil
    others = Atomic(0)
    domainMask = 0
    waits = 0
    lastTaker = 0
    slabs = Atomic(0)
    slabsMade = 0
    slabsReturned = 0
    policy = KegPolicy()
  }

  package internal(set) var slabCount: UInt {
    get { slabs.load(ordering: .relaxed) }
    nonmutating set { slabs.store(newValue, ordering: .relaxed) }
  }
  package internal(set) var freeCount: UInt {
    get { freeItems.load(ordering: .relaxed) }
    nonmutating set { freeItems.store(newValue, ordering: .relaxed) }
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
  /// when there is no free item at all, or less than half and a span is at hand.
  /// - Parameters:
  ///   - mayGrow: false: take only what is there (NOVM, U39).
  ///   - useReserve: whether the keg's reserve may be taken (U34).
  /// - Returns: how many were stored from `out` on; they descend within a slab, so
  ///   that who takes them from the end begins with the fullest slab's lowest.
  package func take(
    _ count: Int, into out: UnsafeMutablePointer<UInt>, mayGrow: Bool = true,
    useReserve: Bool = false
  ) -> Int {
    let keg = domainHere
    let taken = keg.takeOwn(count, into: out, mayGrow, useReserve)
    return taken == 0 && isDivided ? takeAnywhere(count, into: out, useReserve) : taken
  }

  /// Takes items of this domain, which takes over a slab of another, or makes one.
  func takeOwn(
    _ count: Int, into out: UnsafeMutablePointer<UInt>, _ mayGrow: Bool, _ useReserve: Bool
  ) -> Int {
    lockCountingWaits()
    countTurn()
    var free = available(useReserve)
    while free < (count &+ 1) / 2 {
      let isNeeded = free == 0
      let isMade = mayGrow && addSlab(!isNeeded ? .recent : isWhole ? .any : .freed)
        || isNeeded && !isWhole && (adoptSlab() || mayGrow && addSlab(.any))
      free = available(useReserve)
      // Without a slab more, what was free may be another's, or the heap's again by now.
      if !isMade, isNeeded || free > 0 { break }
    }
    let taken = min(count, free)
    takeFromSlabs(taken, into: out)
    unlockAndDivide()
    return taken
  }

  /// Called with the lock held, which it drops meanwhile.
  /// - Returns: whether there is a slab more.
  @inline(never)
  private func addSlab(_ source: SpanSource) -> Bool {
    pointee.lock.unlock()
    let slab = makeSlab(of: source)
    pointee.lock.lock()
    guard let slab else { return false }
    // Lost races leave a free slab behind for the next caller (U41).
    insert(slab)
    return true
  }

  /// - Precondition: so many items are free.
  func takeFromSlabs(_ count: Int, into out: UnsafeMutablePointer<UInt>) {
    var left = count
    while left > 0, let slab = fullestSlab() {
      left &-= slab.take(left, stride: pointee.layout.stride, below: out + left)
      relist(slab)
    }
    pointee.freeCount &-= UInt(bitPattern: count)
  }

  /// The item of a slab that `address`, which lies in the slab, is in; the result is
  /// `itemCount` or more behind the last one.
  @inline(__always)
  package func slot(of address: UInt, in slab: UnsafeMutablePointer<Slab>) -> UInt {
    ((address &- slab.pointee.base) &* pointee.reciprocal) &>> 40
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
