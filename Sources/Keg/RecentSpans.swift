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
// For the arena these spans are in use; they count as dirty. A slot is a word: the
// address of the tag, below 2^48, and above it the size in OS pages, so that nobody
// reads the tag of a span that another thread may just take.

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

  /// The size of a span, where a slot has it.
  @inline(__always)
  private static func sizeBits(_ size: UInt) -> UInt { (size &>> 12) &<< 48 }
  @inline(__always)
  private static func tag(_ word: UInt) -> TagPointer {
    (word & ((1 &<< 48) &- 1)).pointer(to: BoundaryTag.self)
  }

  /// - Precondition: `size` is a multiple of 4,096, as all spans are.
  @inline(__always)
  private borrowing func take(_ slot: borrowing Atomic<UInt>, _ size: UInt) -> TagPointer? {
    let word = slot.load(ordering: .relaxed)
    guard word != 0, word &>> 48 == size &>> 12 else { return nil }
    return slot.compareExchange(expected: word, desired: 0, ordering: .acquiring).exchanged
      ? Self.tag(word) : nil
  }

  /// A span of `size` bytes.
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
      && slot.compareExchange(expected: 0, desired: span.address | Self.sizeBits(span.pointee.size), ordering: .releasing).exchanged
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
    return word == 0 ? nil : Self.tag(word)
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
      bytes &+= (word(index) &>> 48) &<< 12
      index &+= 1
    }
    return bytes
  }
}
