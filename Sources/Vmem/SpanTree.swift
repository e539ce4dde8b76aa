// SpanTree.swift: the spans of an arena, found by address.
//
// An arena that imports page by page has as many spans as pages, and each import
// must find its neighbours. The spans form a treap: a search tree by start that is
// also a heap by a number made of the start, which balances it as if the spans had
// come in random order. It needs no memory of its own: a span's tag is on no age
// list and in no cache, so `older` and `younger` are its lower and higher subtrees.
//
//                 start 512, rank 90
//                 ╱                ╲
//      start 64, rank 71      start 768, rank 85
//
// After Seidel & Aragon, "Randomized Search Trees" (1996). Lock: the arena's.
// Invariant: lower starts below, higher above; no child outranks its parent.

import Base

struct SpanTree {
  private var root: TagPointer?

  init() { root = nil }

  /// The span with the highest start that is not above `address`.
  /// - Complexity: O(log spans), expected.
  func last(notAbove address: UInt) -> TagPointer? {
    var best: TagPointer? = nil
    var here = root
    while let tag = here {
      if tag.pointee.start <= address {
        best = tag
        here = tag.pointee.younger
      } else {
        here = tag.pointee.older
      }
    }
    return best
  }

  mutating func insert(_ tag: TagPointer) {
    withUnsafeMutablePointer(to: &root) { root in
      var place = root
      let rank = SpanTree.rank(tag)
      while let here = place.pointee, SpanTree.rank(here) >= rank {
        place = here.pointee.start < tag.pointee.start ? here.higher : here.lower
      }
      SpanTree.split(place.pointee, at: tag.pointee.start, into: tag)
      place.pointee = tag
    }
  }

  mutating func remove(_ tag: TagPointer) {
    withUnsafeMutablePointer(to: &root) { root in
      var place = root
      while let here = place.pointee, here != tag {
        place = here.pointee.start < tag.pointee.start ? here.higher : here.lower
      }
      SpanTree.join(tag.pointee.older, tag.pointee.younger, at: place)
    }
  }

  /// Hangs what is below `start` under `tag` as its lower tree, the rest as its higher.
  private static func split(_ tree: TagPointer?, at start: UInt, into tag: TagPointer) {
    var lower = tag.lower
    var higher = tag.higher
    var rest = tree
    while let here = rest {
      if here.pointee.start < start {
        lower.pointee = here
        lower = here.higher
        rest = here.pointee.younger
      } else {
        higher.pointee = here
        higher = here.lower
        rest = here.pointee.older
      }
    }
    lower.pointee = nil
    higher.pointee = nil
  }

  /// Puts two trees, the first wholly below the second, where a span was.
  private static func join(
    _ first: TagPointer?, _ second: TagPointer?, at slot: UnsafeMutablePointer<TagPointer?>
  ) {
    var (lower, higher, place) = (first, second, slot)
    while let low = lower, let high = higher {
      if SpanTree.rank(low) >= SpanTree.rank(high) {
        place.pointee = low
        place = low.higher
        lower = low.pointee.younger
      } else {
        place.pointee = high
        place = high.lower
        higher = high.pointee.older
      }
    }
    place.pointee = lower ?? higher
  }

  /// The finaliser of MurmurHash3: starts are regular, ranks must not be.
  private static func rank(_ tag: TagPointer) -> UInt {
    var bits = tag.pointee.start
    bits = (bits ^ (bits &>> 33)) &* 0xFF51_AFD7_ED55_8CCD
    bits = (bits ^ (bits &>> 33)) &* 0xC4CE_B9FE_1A85_EC53
    return bits ^ (bits &>> 33)
  }
}

extension UnsafeMutablePointer where Pointee == BoundaryTag {
  fileprivate var lower: UnsafeMutablePointer<TagPointer?> {
    withUnsafeMutablePointer(to: &pointee.older) { $0 }
  }
  fileprivate var higher: UnsafeMutablePointer<TagPointer?> {
    withUnsafeMutablePointer(to: &pointee.younger) { $0 }
  }
}
