// FreeLists.swift: free segments by size, in powers of two.
//
// List n holds the free segments of 2^n … 2^(n+1)−1 quanta; bit n of a bitmap
// says that it is not empty. An arena has two such sets, one of clean and one
// of dirty segments. After Bonwick & Adams 2001, §4.4.
//
//   request of 5 quanta:   list 0  1  2        3        4
//                                     4…7      8…15     16…31
//                                     ▲        ▲
//        exact order, may hold one ───┘        └─── every member fits: instant fit
//
// The searches are `mutating` though they change nothing: only then does the
// compiler pass a struct of this size by address. Borrowed, it is copied, 1.5 KiB
// at a time (seen in the disassembly; SegmentHash has the same reason).
//
// Lock: the arena's.
// Invariant: bit n of `bitmap` is set ⇔ lists[n] is not empty;
//            log2(tag.size / quantum) == n for every tag on lists[n].

import Base

struct FreeLists: ~Copyable {
  private(set) var bitmap: UInt
  private var lists: InlineArray<64, List<BoundaryTag>>
  private let quantumShift: UInt

  init(quantumShift: UInt) {
    bitmap = 0
    lists = InlineArray(repeating: List())
    self.quantumShift = quantumShift
  }

  /// The number of the list that a segment of `size` bytes belongs to.
  @inline(__always)
  func order(of size: UInt) -> UInt { (size &>> quantumShift).log2Floor }

  /// Puts a segment first: what was freed last is still in the caches.
  @inline(__always)
  mutating func insert(_ tag: TagPointer) {
    let order = order(of: tag.pointee.size)
    lists[Int(bitPattern: order)].prepend(tag)
    bitmap |= 1 &<< order
  }

  @inline(__always)
  mutating func remove(_ tag: TagPointer) {
    let order = order(of: tag.pointee.size)
    lists[Int(bitPattern: order)].remove(tag)
    if lists[Int(bitPattern: order)].isEmpty { bitmap &= ~(1 &<< order) }
  }

  /// Makes the first `size` bytes of a listed segment not its own.
  ///
  /// The frontier of a heap is carved millions of times and changes its order
  /// dozens of times, so the list is touched only when it must.
  @inline(__always)
  mutating func cutFront(_ tag: TagPointer, _ size: UInt) {
    let former = tag.pointee.size
    let rest = former &- size
    tag.pointee.start = tag.pointee.start &+ size
    // Equal orders: the common highest bit cancels out.
    if former ^ rest < rest {
      tag.pointee.size = rest
    } else {
      remove(tag)
      tag.pointee.size = rest
      insert(tag)
    }
  }

  /// The first segment of the first list whose every member fits (A03).
  /// - Complexity: O(1).
  @inline(__always)
  mutating func instantFit(_ size: UInt) -> TagPointer? {
    let candidates = lists(from: (size &>> quantumShift).log2Ceiling)
    if candidates == 0 { return nil }
    return head(candidates.trailingZeroBitCount)
  }

  /// The smallest sufficient one of the first `limit` segments of the exact
  /// order, else of the first `limit` of the next list that is not empty.
  /// - Complexity: O(`limit`). May miss a segment further back in the exact order.
  mutating func bestFit(_ size: UInt, limit: Int) -> TagPointer? {
    let order = order(of: size)
    let candidates = lists(from: order)
    if candidates == 0 { return nil }
    let first = candidates.trailingZeroBitCount
    if let tag = smallest(in: first, fitting: size, limit: limit) { return tag }
    let higher = candidates & (candidates &- 1)
    // Only the exact order can have members that do not fit.
    if higher == 0 { return nil }
    return smallest(in: higher.trailingZeroBitCount, fitting: size, limit: limit)
  }

  /// The first sufficient segment of the exact order.
  /// - Complexity: O(segments of that order).
  mutating func exactOrderFit(_ size: UInt) -> TagPointer? {
    var tag = head(Int(bitPattern: order(of: size)))
    while let here = tag {
      if here.pointee.size >= size { return here }
      tag = here.pointee.next
    }
    return nil
  }

  /// The first segment of list `order` or above with room for `size` bytes
  /// under `constraints`.
  /// - Complexity: O(free segments).
  mutating func firstFit(_ size: UInt, under constraints: Constraints, from order: UInt)
    -> TagPointer?
  {
    var candidates = lists(from: order)
    while candidates != 0 {
      var tag = head(candidates.trailingZeroBitCount)
      while let here = tag {
        let place = constraints.place(size, from: here.pointee.start, to: here.pointee.end)
        if place != Arena.none { return here }
        tag = here.pointee.next
      }
      candidates &= candidates &- 1
    }
    return nil
  }

  /// The largest size on any list; 0 when all are empty.
  var largest: UInt {
    mutating get {
      if bitmap == 0 { return 0 }
      var tag = head(Int(bitPattern: bitmap.log2Floor))
      var size: UInt = 0
      while let here = tag {
        size = max(size, here.pointee.size)
        tag = here.pointee.next
      }
      return size
    }
  }

  /// The first segment of list `order`.
  @inline(__always)
  mutating func head(_ order: Int) -> TagPointer? { lists[order].head }

  /// The bits of the lists `order` … 63 that are not empty. A size above half
  /// of all integers rounds up to order 64, which has no list.
  @inline(__always)
  private func lists(from order: UInt) -> UInt {
    order < 64 ? bitmap & (UInt.max &<< order) : 0
  }

  private mutating func smallest(in order: Int, fitting size: UInt, limit: Int) -> TagPointer? {
    var best: TagPointer? = nil
    var bestSize = UInt.max
    var tag = head(order)
    var left = limit
    while let here = tag, left > 0 {
      let found = here.pointee.size
      if found == size { return here }
      if found > size, found < bestSize {
        best = here
        bestSize = found
      }
      tag = here.pointee.next
      left &-= 1
    }
    return best
  }
}
