// SegmentHash.swift: from the start of a busy segment to its tag (A02, A07).
//
// For owners that keep an address and not the tag: sources of other arenas, and
// identifiers. Chains hang from a table of 2^k buckets, 0 ≤ k ≤ 17.
//
//   start ──▶ bucket ──▶ tag ──▶ tag ──▶ nil     (over `next`, `previous`)
//
// A table of each size is cut from metadata at most once and kept: all of them
// take 2 MiB together, the small ones next to nothing. The size follows the number
// of registered segments, but changes only when it is off by more than a factor of
// two.
//
// Lock: the arena's; a table is cut without it.
// Invariant: `count` tags are on the chains, each on that of its start.

import Base
import Pages

struct SegmentHash: ~Copyable {
  /// 131,072 buckets, 1 MiB. NetBSD stops at 8,192: with 160,000 segments a search
  /// there follows 20 tags, each a cache miss.
  static var maximumLog2: UInt { 17 }

  private(set) var tables: InlineArray<18, UInt>
  private(set) var log2: UInt
  private(set) var count: UInt

  /// - Parameter tables: of a former arena, all empty; 0 where there is none.
  init(tables: InlineArray<18, UInt> = InlineArray(repeating: 0)) {
    self.tables = tables
    log2 = 0
    count = 0
  }

  var bucketCount: UInt { 1 &<< log2 }

  /// Whether segments can be registered: false only if there was not even
  /// memory for the table of one bucket.
  var hasTable: Bool { mutating get { tables[Int(bitPattern: log2)] != 0 } }

  /// The exponent that the table should have; that which it has if the number
  /// of segments is within a factor of two of it.
  var desiredLog2: UInt {
    if count > 2 &* bucketCount || 2 &* max(count, 1) < bucketCount {
      return min(max(count, 1).log2Ceiling, SegmentHash.maximumLog2)
    }
    return log2
  }

  /// Sees to the smallest table.
  mutating func makeFirstTable(from memory: UnsafeMutablePointer<Metadata>?) {
    if !hasTable { adopt(SegmentHash.cutTable(log2: 0, from: memory), log2: 0) }
  }

  mutating func hasTable(log2 exponent: UInt) -> Bool { tables[Int(bitPattern: exponent)] != 0 }

  /// Cuts a table of 2^`exponent` buckets. Called without the arena's lock.
  /// - Returns: its address, or 0.
  static func cutTable(log2 exponent: UInt, from memory: UnsafeMutablePointer<Metadata>?) -> UInt {
    guard let memory else { return 0 }
    memory.pointee.lock.lock()
    defer { memory.pointee.lock.unlock() }
    return memory.pointee.cut((8 &<< exponent).roundedUp(to: 16), alignment: 16)
  }

  /// Keeps `table`, unless another thread brought one of this size before.
  mutating func adopt(_ table: UInt, log2 exponent: UInt) {
    if table != 0, !hasTable(log2: exponent) { tables[Int(bitPattern: exponent)] = table }
  }

  /// Moves every chain to the table of 2^`exponent` buckets, which must be there.
  mutating func resize(log2 exponent: UInt) {
    let old = tables[Int(bitPattern: log2)]
    let oldCount = bucketCount
    log2 = exponent
    var index: UInt = 0
    while index < oldCount {
      let bucket = old &+ 8 &* index
      while bucket.word != 0 {
        let tag = bucket.word.pointer(to: BoundaryTag.self)
        bucket.word = tag.pointee.next?.address ?? 0
        count &-= 1
        insert(tag)
      }
      index &+= 1
    }
  }

  mutating func insert(_ tag: TagPointer) {
    let bucket = bucket(of: tag.pointee.start)
    let head = bucket.word
    // Moved to another table it is that already, and its owner may read this without a lock.
    if !tag.pointee.isHashed { tag.pointee.isHashed = true }
    tag.pointee.previous = nil
    tag.pointee.next = nil
    if head != 0 {
      tag.pointee.next = head.pointer(to: BoundaryTag.self)
      head.pointer(to: BoundaryTag.self).pointee.previous = tag
    }
    bucket.word = tag.address
    count &+= 1
  }

  mutating func remove(_ tag: TagPointer) {
    let next = tag.pointee.next
    let previous = tag.pointee.previous
    if let next { next.pointee.previous = previous }
    if let previous {
      previous.pointee.next = next
    } else {
      bucket(of: tag.pointee.start).word = next?.address ?? 0
    }
    tag.pointee.isHashed = false
    count &-= 1
  }

  mutating func find(_ start: UInt) -> TagPointer? {
    guard hasTable else { return nil }
    let head = bucket(of: start).word
    if head == 0 { return nil }
    var tag: TagPointer? = head.pointer(to: BoundaryTag.self)
    while let here = tag, here.pointee.start != start { tag = here.pointee.next }
    return tag
  }

  /// The address of the bucket of `start`.
  private mutating func bucket(of start: UInt) -> UInt {
    // 2^64 / golden ratio spreads the multiples of a quantum over the top bits.
    let spread = start &* 0x9E37_79B9_7F4A_7C15
    let index = log2 == 0 ? 0 : spread &>> (64 &- log2)
    return tables[Int(bitPattern: log2)] &+ 8 &* index
  }
}
