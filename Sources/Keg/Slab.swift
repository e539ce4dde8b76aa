// Slab.swift: a run of chunks that holds items of one keg (U17).
//
//   metadata                              heap
//   +--------+-----------------+          +------+------+------+-- - --+
//   | Slab   | bitmap 1 = free |  base ─▶ | item | item | item |       |
//   +--------+-----------------+          +------+------+------+-- - --+
//
// In the debug library a margin lies before base (SlabLayout.swift).
//
// - Invariant: freeCount == number of ones in the bitmap; no ones below word
//   `firstWord`; no ones at or above itemCount.
// Lock: the keg's.

import Base
import Synchronization
import Vmem

package struct Slab: Linked, ~Copyable {
  package var next: UnsafeMutablePointer<Slab>?
  package var previous: UnsafeMutablePointer<Slab>?
  /// The first item.
  package let base: UInt
  // Written under the locks of both kegs when another domain takes the slab over
  // (KegDomains.swift); who reads it without looks again under the lock. Releases the
  // domain to a thread that never asked for it.
  private let owner: Atomic<UnsafeMutablePointer<Keg>>
  /// The span the chunks are.
  package let span: UnsafeMutablePointer<BoundaryTag>
  package var freeCount: UInt32
  /// Words below this one have no free item.
  fileprivate var firstWord: UInt32
  /// Index of the keg's list that the slab is on.
  package var list: UInt8
  /// No item that ends further than this behind `base` was ever handed out.
  package fileprivate(set) var touchedBytes: UInt32
  /// What the debug library knows of the items; 0: nothing, and always so without it.
  package var records: UInt

  package static var headerBytes: UInt { 64 }
  /// A slab that handed out less keeps its place while it is free: espresso, which goes
  /// through 73 classes with 0.7 MiB, needs a fifth less memory for it.
  package static var fewBytes: UInt32 { 24 &<< 10 }

  /// A slab whose items are all free. Its bitmap lies behind it in memory.
  package init(
    base: UInt, keg: UnsafeMutablePointer<Keg>, span: UnsafeMutablePointer<BoundaryTag>,
    itemCount: UInt
  ) {
    next = nil
    previous = nil
    self.base = base
    owner = Atomic(keg)
    self.span = span
    freeCount = UInt32(truncatingIfNeeded: itemCount)
    firstWord = 0
    list = 0
    touchedBytes = 0
    records = 0
  }

  package internal(set) var keg: UnsafeMutablePointer<Keg> {
    @inline(__always) get { owner.load(ordering: .acquiring) }
    nonmutating set { owner.store(newValue, ordering: .releasing) }
  }
}

extension UnsafeMutablePointer where Pointee == Slab {
  @inline(__always)
  fileprivate var bitmap: UnsafeMutablePointer<UInt64> {
    (address &+ Slab.headerBytes).pointer(to: UInt64.self)
  }

  /// Where its chunks begin.
  package var start: UInt { pointee.base &- pointee.keg.pointee.layout.margin }

  /// Marks `itemCount` items free.
  package func markAllFree(itemCount: UInt) {
    let words = bitmap
    var left = itemCount
    var i = 0
    while left >= 64 {
      words[i] = ~0
      left &-= 64
      i &+= 1
    }
    if left > 0 { words[i] = (1 &<< UInt64(left)) &- 1 }
    pointee.firstWord = 0
  }

  package func isFree(_ index: UInt) -> Bool {
    bitmap[Int(bitPattern: index / 64)] & (1 &<< UInt64(index % 64)) != 0
  }

  /// Takes up to `count` free items, lowest address first.
  /// - Parameter end: the items are stored below it, each lower than the one before,
  ///   so that the lowest address is the last: the one a bucket pops first.
  /// - Returns: how many were stored.
  /// - Complexity: O(items taken + bitmap words passed).
  @inline(__always)
  package func take(_ count: Int, stride: UInt, below end: UnsafeMutablePointer<UInt>) -> Int {
    let words = bitmap
    let wanted = min(count, Int(pointee.freeCount))
    let base = pointee.base
    var out = end
    var left = wanted
    var word = Int(pointee.firstWord)
    while left > 0 {
      var bits = words[word]
      var address = base &+ UInt(bitPattern: word) &* 64 &* stride
      let shift = UInt64(bits.trailingZeroBitCount)
      let row = bits &>> shift
      if row & (row &+ 1) == 0 {
        // Neighbours all, or none.
        let run = min(left, (~row).trailingZeroBitCount)
        address &+= UInt(shift) &* stride
        left &-= run
        let first = out - run
        while out != first {
          out -= 1
          out.pointee = address
          address &+= stride
        }
        bits = run == 64 ? 0 : bits & ((~0 &<< UInt64(run)) &<< shift)
      } else {
        while bits != 0, left > 0 {
          let bit = UInt(bitPattern: bits.trailingZeroBitCount)
          bits &= bits &- 1
          out -= 1
          out.pointee = address &+ bit &* stride
          left &-= 1
        }
      }
      words[word] = bits
      if bits == 0 { word &+= 1 }
    }
    pointee.firstWord = UInt32(truncatingIfNeeded: word)
    pointee.freeCount &-= UInt32(truncatingIfNeeded: wanted)
    let reach = wanted == 0 ? 0 : UInt32(truncatingIfNeeded: out.pointee &- base &+ stride)
    if reach > pointee.touchedBytes { pointee.touchedBytes = reach }
    return wanted
  }

  /// A word of the bitmap, for items that are to be marked free there: one at least.
  @inline(__always)
  package func openWord(_ word: UInt) -> UnsafeMutablePointer<UInt64> {
    let word = UInt32(truncatingIfNeeded: word)
    if word < pointee.firstWord { pointee.firstWord = word }
    return bitmap + Int(word)
  }

  /// Marks `count` items from `index` on free, a word of the bitmap at a time; `freeCount`
  /// is the caller's to change.
  /// - Returns: the index of one that was free already, or nil. The rest is not
  ///   marked then.
  package func give(_ index: UInt, _ count: UInt) -> UInt? {
    let first = UInt32(truncatingIfNeeded: index / 64)
    var word = Int(first)
    var bit = UInt64(index % 64)
    var left = UInt64(count)
    while left > 0 {
      let here = min(64 &- bit, left)
      let mask = (~0 &>> (64 &- here)) &<< bit
      let bits = bitmap[word]
      if _slowPath(bits & mask != 0) {
        return UInt(bitPattern: word &* 64 &+ (bits & mask).trailingZeroBitCount)
      }
      bitmap[word] = bits | mask
      left &-= here
      bit = 0
      word &+= 1
    }
    if first < pointee.firstWord { pointee.firstWord = first }
    return nil
  }

  package func checkInvariants(itemCount: UInt) {
    #if INVARIANTS
      var free: UInt32 = 0
      var i: UInt = 0
      while i < itemCount {
        if isFree(i) {
          free &+= 1
          invariant(i / 64 >= UInt(pointee.firstWord), "slab: free item below firstWord")
        }
        i &+= 1
      }
      invariant(free == pointee.freeCount, "slab: freeCount differs from the bitmap")
    #endif
  }
}
