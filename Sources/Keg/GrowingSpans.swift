// GrowingSpans.swift: freed spans with headroom, each kept whole.
//
//   slot   | MiB of the span : 16 | address of its tag : 48 |
//
// As in RecentSpans.swift a slot changes by one compare-and-swap, and nobody reads the
// tag of a span that another thread may just take.

import Base
import Synchronization
import Vmem

struct GrowingSpans: ~Copyable {
  private let slots: UnsafeMutablePointer<Atomic<UInt>>
  private let touched = Atomic<UInt>(0)

  static var count: Int { 32 }

  /// - Parameter slots: `count` words, zero.
  init(slots: UnsafeMutablePointer<Atomic<UInt>>) { self.slots = slots }

  /// What the blocks of all of them have touched, bytes; a moment old.
  var touchedBytes: UInt { touched.load(ordering: .relaxed) }

  /// Whether a slot has a span of `least` to `most` bytes.
  private static func fits(_ word: UInt, _ least: UInt, _ most: UInt) -> Bool {
    let size = (word &>> 48) &<< 20
    return word != 0 && size >= least && size <= most
  }

  /// - Returns: false when every slot is in use, or the span is larger than 32 GiB.
  func give(_ span: TagPointer) -> Bool {
    let size = span.pointee.size
    if size > 1 &<< 35 { return false }
    let word = span.address | (size &>> 20) &<< 48
    var index = 0
    while index < Self.count {
      if slots[index].load(ordering: .relaxed) == 0 {
        // Before others can take it.
        touched.wrappingAdd(span.pointee.touched, ordering: .relaxed)
        if slots[index].compareExchange(expected: 0, desired: word, ordering: .releasing).exchanged {
          return true
        }
        touched.wrappingSubtract(span.pointee.touched, ordering: .relaxed)
      }
      index &+= 1
    }
    return false
  }

  /// Takes a span of `least` to `most` bytes, up to a MiB less.
  func take(from least: UInt, to most: UInt) -> TagPointer? {
    var index = 0
    while index < Self.count {
      let word = slots[index].load(ordering: .relaxed)
      if Self.fits(word, least, most),
        slots[index].compareExchange(expected: word, desired: 0, ordering: .acquiring).exchanged
      {
        let span = (word & ((1 &<< 48) &- 1)).pointer(to: BoundaryTag.self)
        touched.wrappingSubtract(span.pointee.touched, ordering: .relaxed)
        return span
      }
      index &+= 1
    }
    return nil
  }

  /// Whether `take` would find one.
  func holds(from least: UInt, to most: UInt) -> Bool {
    var index = 0
    while index < Self.count {
      if Self.fits(slots[index].load(ordering: .relaxed), least, most) { return true }
      index &+= 1
    }
    return false
  }
}
