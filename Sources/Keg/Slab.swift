// Slab.swift: a run of chunks that holds items of one keg (U17).
//
//   metadata                              heap
//   +--------+-----------------+          +------+------+------+-- - --+
//   | Slab   | bitmap 1 = free |  base ─▶ | item | item | item |       |
//   +--------+-----------------+          +------+------+------+-- - --+
//
// - Invariant: freeCount == number of ones in the bitmap; no ones below word
//   `firstWord`; no ones at or above itemCount.
// Lock: the keg's.

import Base
import Vmem

package struct Slab: Linked, ~Copyable {
  package var next: UnsafeMutablePointer<Slab>?
  package var previous: UnsafeMutablePointer<Slab>?
  package let base: UInt
  package let keg: UnsafeMutablePointer<Keg>
  /// The span the chunks are.
  package let span: UnsafeMutablePointer<BoundaryTag>
  package var freeCount: UInt32
  /// Words below this one have no free item.
  fileprivate var firstWord: UInt32
  /// Index of the keg's list that the slab is on.
  package var list: UInt8
  /// What the debug library knows of the items; 0: nothing, and always so without it.
  package var records: UInt

  package static var headerBytes: UInt { 64 }

  /// A slab whose items are all free. Its bitmap lies behind it in memory.
  package init(
    base: UInt, keg: UnsafeMutablePointer<Keg>, span: UnsafeMutablePointer<BoundaryTag>,
    itemCount: UInt
  ) {
    next = nil
    previous = nil
    self.base = base
    self.keg = keg
    self.span = span
    freeCount = UInt32(truncatingIfNeeded: itemCount)
    firstWord = 0
    list = 0
    records = 0
  }
}

extension UnsafeMutablePointer where Pointee == Slab {
  @inline(__always)
  fileprivate var bitmap: UnsafeMutablePointer<UInt64> {
    (address &+ Slab.headerBytes).pointer(to: UInt64.self)
  }

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
  /// - Returns: how many were stored from `out` on, in ascending order.
  /// - Complexity: O(items taken + bitmap words passed).
  @inline(__always)
  package func take(_ count: Int, stride: UInt, into out: UnsafeMutablePointer<UInt>) -> Int {
    let words = bitmap
    let wanted = min(count, Int(pointee.freeCount))
    let base = pointee.base
    var taken = 0
    var word = Int(pointee.firstWord)
    while taken < wanted {
      var bits = words[word]
      while bits != 0, taken < wanted {
        let bit = UInt(bitPattern: bits.trailingZeroBitCount)
        bits &= bits &- 1
        out[taken] = base &+ (UInt(bitPattern: word) &* 64 &+ bit) &* stride
        taken &+= 1
      }
      words[word] = bits
      if bits == 0 { word &+= 1 }
    }
    pointee.firstWord = UInt32(truncatingIfNeeded: word)
    pointee.freeCount &-= UInt32(truncatingIfNeeded: taken)
    return taken
  }

  /// Marks item `index` free.
  /// - Returns: false when it was free already.
  @inline(__always)
  package func give(_ index: UInt) -> Bool {
    let word = UInt32(truncatingIfNeeded: index / 64)
    let mask: UInt64 = 1 &<< UInt64(index % 64)
    let bits = bitmap[Int(word)]
    if bits & mask != 0 { return false }
    bitmap[Int(word)] = bits | mask
    if word < pointee.firstWord { pointee.firstWord = word }
    pointee.freeCount &+= 1
    return true
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
