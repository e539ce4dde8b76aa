// RecentSpans.swift: the large blocks that were freed last, each kept whole.
//
//   free ──▶ |slot|slot|slot|slot| ──▶ malloc of exactly that size
//                    │ no slot is empty, memory is short, or time is over
//                    ▼
//                  arena, where spans coalesce and are purged
//
// A program that makes and frees a block of one size again and again gets the same
// span without a lock and without a look at the arena. A slot changes by one
// compare-and-swap, so that any thread may use it at any time, a signal handler too.
//
// For the arena these spans are in use; they count as dirty. Tags are type-stable:
// to read the size of one that another thread just took is harmless, and it is read
// again once the span is ours.

import Base
import Synchronization
import Vmem

struct RecentSpans: ~Copyable {
  private let first = Atomic<UInt>(0)
  private let second = Atomic<UInt>(0)
  private let third = Atomic<UInt>(0)
  private let fourth = Atomic<UInt>(0)
  private let uses = Atomic<UInt>(0)

  static var count: Int { 4 }
  /// Larger spans are not kept, in bytes.
  static var largest: UInt { 1 &<< 23 }

  @inline(__always)
  private borrowing func take(_ slot: borrowing Atomic<UInt>, _ size: UInt) -> TagPointer? {
    let word = slot.load(ordering: .relaxed)
    guard word != 0, word.pointer(to: BoundaryTag.self).pointee.size == size else { return nil }
    return slot.compareExchange(expected: word, desired: 0, ordering: .acquiring).exchanged
      ? word.pointer(to: BoundaryTag.self) : nil
  }

  /// A span that was of `size` bytes when it was looked at.
  @inline(__always)
  borrowing func take(_ size: UInt) -> TagPointer? {
    take(first, size) ?? take(second, size) ?? take(third, size) ?? take(fourth, size)
  }

  /// Counts a use. True about every 64th time: who never comes to a slow path has the
  /// clock read here. Threads may overwrite each other's counts.
  @inline(__always)
  borrowing func countUse() -> Bool {
    let count = uses.load(ordering: .relaxed) &+ 1
    uses.store(count, ordering: .relaxed)
    return count & 63 == 0
  }

  @inline(__always)
  private borrowing func give(_ slot: borrowing Atomic<UInt>, _ span: TagPointer) -> Bool {
    slot.load(ordering: .relaxed) == 0
      && slot.compareExchange(expected: 0, desired: span.address, ordering: .releasing).exchanged
  }

  /// - Returns: false when every slot is in use.
  @inline(__always)
  borrowing func give(_ span: TagPointer) -> Bool {
    give(first, span) || give(second, span) || give(third, span) || give(fourth, span)
  }

  /// Takes what slot `index` holds.
  borrowing func remove(_ index: Int) -> TagPointer? {
    let word =
      switch index {
      case 0: first.exchange(0, ordering: .acquiring)
      case 1: second.exchange(0, ordering: .acquiring)
      case 2: third.exchange(0, ordering: .acquiring)
      default: fourth.exchange(0, ordering: .acquiring)
      }
    return word == 0 ? nil : word.pointer(to: BoundaryTag.self)
  }

  @inline(__always)
  borrowing func word(_ index: Int) -> UInt {
    switch index {
    case 0: first.load(ordering: .relaxed)
    case 1: second.load(ordering: .relaxed)
    case 2: third.load(ordering: .relaxed)
    default: fourth.load(ordering: .relaxed)
    }
  }

  /// Bytes of the spans in the slots, a moment old.
  borrowing func countBytes() -> UInt {
    var bytes: UInt = 0
    var index = 0
    while index < Self.count {
      let word = word(index)
      if word != 0 { bytes &+= word.pointer(to: BoundaryTag.self).pointee.size }
      index &+= 1
    }
    return bytes
  }
}
