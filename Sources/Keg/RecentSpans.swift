// RecentSpans.swift: the spans that were freed last, each kept whole.
//
//   bySize  |1|2|3|…|128|     for each size in chunks: which slots have such a span
//              │
//              ▼ bit i
//   slots   |span|    |span|span|      used: bit i, somebody has slot i
//
//   free ──▶ a slot ──▶ malloc, or a slab, of exactly that size
//                │ no slot is free, memory is short, or time is over
//                ▼
//              arena, where spans coalesce and are purged
//
// A program that makes and frees blocks of one size again and again, one or sixty of
// them, gets the same spans without a lock and without a look at the arena. Who clears
// a bit of `bySize` owns the slot and what is in it; a bit is one compare-and-swap, so
// any thread may use the table at any time, a signal handler too.
//
// For the arena these spans are in use; they count as dirty. A slot is a word: the
// address of the tag, below 2^48, and above it the size in OS pages, so that nobody
// reads the tag of a span that another thread may just take.

import Base
import Pages
import Synchronization
import Vmem

struct RecentSpans: ~Copyable {
  private let slots: UnsafeMutablePointer<Atomic<UInt>>
  private let bySize: UnsafeMutablePointer<Atomic<UInt>>
  private let used = Atomic<UInt>(0)
  private let uses = Atomic<UInt>(0)

  /// Bits of a word.
  static var count: Int { 64 }
  /// How many sizes at most.
  static var sizes: UInt { 4 }
  /// Larger spans are not kept, in bytes.
  static var largest: UInt { 1 &<< 23 }
  /// Words of the table.
  static var wordCount: Int { count &+ Int(bitPattern: largest &>> Chunk.shift) }

  /// - Parameter memory: `wordCount` words, zero.
  init(memory: UnsafeMutablePointer<Atomic<UInt>>) {
    slots = memory
    bySize = memory + Self.count
  }

  /// The span and its size, as a slot has them.
  @inline(__always)
  private static func word(_ span: TagPointer) -> UInt {
    span.address | (span.pointee.size &>> 12) &<< 48
  }
  @inline(__always)
  private static func tag(_ word: UInt) -> TagPointer {
    (word & ((1 &<< 48) &- 1)).pointer(to: BoundaryTag.self)
  }
  @inline(__always)
  private static func size(_ word: UInt) -> UInt { (word &>> 48) &<< 12 }

  /// - Precondition: `size` is a multiple of a chunk, not 0, and `largest` at most.
  @inline(__always)
  private borrowing func slots(of size: UInt) -> UnsafeMutablePointer<Atomic<UInt>> {
    bySize + Int(bitPattern: (size &>> Chunk.shift) &- 1)
  }

  /// A span of `size` bytes, a multiple of a chunk and not 0.
  @inline(__always)
  borrowing func take(_ size: UInt) -> TagPointer? {
    if size > Self.largest { return nil }
    let slots = slots(of: size)
    var bits = slots.pointee.load(ordering: .relaxed)
    while bits != 0 {
      let index = 63 &- bits.leadingZeroBitCount
      let (won, now) = slots.pointee.compareExchange(
        expected: bits, desired: bits ^ (1 &<< UInt(bitPattern: index)), ordering: .acquiring)
      if won { return vacate(index) }
      bits = now
    }
    return nil
  }

  /// Empties a slot that is the caller's.
  @inline(__always)
  private borrowing func vacate(_ index: Int) -> TagPointer {
    let word = slots[index].load(ordering: .relaxed)
    // Releases the read above, for who has the slot next.
    used.bitwiseXor(1 &<< UInt(bitPattern: index), ordering: .releasing)
    return Self.tag(word)
  }

  /// Counts a use. True about every 64th time: who never comes to a slow path has the
  /// clock read here. Threads may overwrite each other's counts.
  @inline(__always)
  borrowing func countUse() -> Bool {
    let count = uses.load(ordering: .relaxed) &+ 1
    uses.store(count, ordering: .relaxed)
    return count & 63 == 0
  }

  /// Spans of a size that is not there yet are kept in the first few slots only: of
  /// sizes that do not come again, the arena makes larger ones.
  /// - Precondition: the span has `largest` bytes at most.
  /// - Returns: false when there is no slot for it.
  @inline(__always)
  borrowing func give(_ span: TagPointer) -> Bool {
    let slots = slots(of: span.pointee.size)
    var bits = used.load(ordering: .relaxed)
    while bits != .max {
      let bit = ~bits & (bits &+ 1)
      if bit >= 1 &<< Self.sizes, slots.pointee.load(ordering: .relaxed) == 0 { return false }
      let (won, now) = used.compareExchange(
        expected: bits, desired: bits | bit, ordering: .acquiring)
      if won {
        self.slots[bit.trailingZeroBitCount].store(Self.word(span), ordering: .relaxed)
        // Releases the slot and the span to who takes it.
        slots.pointee.bitwiseXor(bit, ordering: .releasing)
        return true
      }
      bits = now
    }
    return false
  }

  /// Takes what slot `index` holds; nil also when somebody just changes it.
  borrowing func remove(_ index: Int) -> TagPointer? {
    let bit: UInt = 1 &<< UInt(bitPattern: index)
    if used.load(ordering: .relaxed) & bit == 0 { return nil }
    let word = slots[index].load(ordering: .relaxed)
    if word == 0 { return nil }
    // The slot may have a span of another size by now: then the bit is not set here.
    let slots = slots(of: Self.size(word))
    var bits = slots.pointee.load(ordering: .relaxed)
    while bits & bit != 0 {
      let (won, now) = slots.pointee.compareExchange(
        expected: bits, desired: bits ^ bit, ordering: .acquiring)
      if won { return vacate(index) }
      bits = now
    }
    return nil
  }

  var isEmpty: Bool { used.load(ordering: .relaxed) == 0 }

  /// Bytes of the spans in the slots, a moment old.
  borrowing func countBytes() -> UInt {
    var bytes: UInt = 0
    var bits = used.load(ordering: .relaxed)
    while bits != 0 {
      bytes &+= Self.size(slots[bits.trailingZeroBitCount].load(ordering: .relaxed))
      bits &= bits &- 1
    }
    return bytes
  }
}
