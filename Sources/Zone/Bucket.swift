// Bucket.swift: an array of items on the move between a thread and a zone (U05, U08).
//
//        0        8        16
//        +--------+--------+----+----+----+-- - --+
//        | next   | counts | i0 | i1 | i2 |       |      capacity slots
//        +--------+--------+----+----+----+-- - --+
//                           ▲ low        ▲ top   ▲ high      while loaded in a bin
//
// The slots are a stack: pop takes the last. While a bucket is loaded in a bin
// its count lies in the bin's `top`; `count` here is valid only when it is not.
// Buckets come from pools in metadata, one for each capacity.

import Base
import Pages
import Synchronization

package struct Bucket: ~Copyable {
  /// The next bucket of a depot, or nil.
  package var next: UnsafeMutablePointer<Bucket>?
  package var count: UInt32
  package var sizeIndex: UInt32

  package static var headerBytes: UInt { 16 }
}

extension UnsafeMutablePointer where Pointee == Bucket {
  /// The address of slot 0.
  @inline(__always)
  package var low: UInt { address &+ Bucket.headerBytes }

  package var capacity: Int { BucketSize.capacity(at: Int(pointee.sizeIndex)) }

  /// One past the last slot.
  @inline(__always)
  package var high: UInt { low &+ UInt(bitPattern: capacity) &* 8 }

  @inline(__always)
  package var slots: UnsafeMutablePointer<UInt> { low.pointer(to: UInt.self) }

  package var isFull: Bool { Int(pointee.count) == capacity }
}

/// The capacities of buckets, and which one suits a zone (U08).
package enum BucketSize {
  package static var count: Int { 9 }
  /// UMA's largest: what a program's zone can have, and what contention makes of buckets.
  package static var largest: Int { 254 }

  /// 2 4 8 16, then powers of two less the header's two words: 30 62 126 254 510.
  package static func capacity(at index: Int) -> Int { 2 &<< index &- (index > 3 ? 2 : 0) }

  /// The smallest pool whose buckets hold `entries`.
  package static func index(holding entries: Int) -> Int {
    var index = 0
    while index < count &- 1, capacity(at: index) < entries { index &+= 1 }
    return index
  }

  /// The largest item size, in bytes, for which a zone starts with the buckets
  /// at `index`.
  private static func itemSizeCeiling(at index: Int) -> UInt {
    switch index {
    case 0: 4096
    case 1: 3072
    case 2: 2048
    case 3: 1024
    case 4: 512
    case 5: 256
    case 6: 128
    default: 64
    }
  }

  /// How many entries the buckets of a zone start with, by its item size.
  package static func entries(forItemSize size: UInt) -> Int {
    if size > 4096 { return Int(max(8192 / size, 1)) }
    var index = self.index(holding: largest)
    while index > 0, itemSizeCeiling(at: index) < size { index &-= 1 }
    return capacity(at: index)
  }

  /// How many times that many malloc's zones start with, and those of programs. Twice
  /// UMA's bucket up to 1,024 bytes: a thousand blocks of one size made and freed
  /// together is what programs do, and 30 at a time is 66 trips for that. Above, as many
  /// items as 64 KiB hold: a trip costs what thirty calls cost without one.
  package static func scale(forItemSize size: UInt) -> Int {
    if size <= 1024 { return 2 }
    return max(Int(bitPattern: 65536 / size) / entries(forItemSize: size), 1)
  }
}

/// The pools that buckets come from, and what full ones hold in all depots together.
package struct BucketPools: ~Copyable {
  private let pools: UnsafeMutablePointer<Pool>
  // Guides for bounds, each good for itself: relaxed.
  private let bytesInDepots = Atomic<Int>(0)
  private let budget = Atomic<Int>(1 &<< 19)
  private let exchanged = Atomic<Int>(1 &<< 20)

  /// - Parameter memory: room for `BucketSize.count` pools.
  @_optimize(size)
  package init(memory: UnsafeMutablePointer<Pool>, metadata: UnsafeMutablePointer<Metadata>) {
    pools = memory
    var i = 0
    while i < BucketSize.count {
      let bytes = Bucket.headerBytes &+ UInt(bitPattern: BucketSize.capacity(at: i)) &* 8
      (pools + i).initialize(
        to: Pool(name: "buckets", itemBytes: bytes, alignment: 64, metadata: metadata))
      i &+= 1
    }
  }

  /// An empty bucket for at least `entries` items, or nil when there is no memory.
  package borrowing func take(entries: Int) -> UnsafeMutablePointer<Bucket>? {
    let index = BucketSize.index(holding: entries)
    let memory = (pools + index).take()
    guard memory != 0 else { return nil }
    let bucket = memory.pointer(to: Bucket.self)
    bucket.initialize(to: Bucket(next: nil, count: 0, sizeIndex: UInt32(truncatingIfNeeded: index)))
    return bucket
  }

  package borrowing func give(_ bucket: UnsafeMutablePointer<Bucket>) {
    (pools + Int(bucket.pointee.sizeIndex)).give(bucket.address)
  }

  /// Bytes of the items in all depots.
  package var depotBytes: Int { bytesInDepots.load(ordering: .relaxed) }

  /// Bytes that all depots together should hold at most.
  package var depotBudget: Int {
    get { budget.load(ordering: .relaxed) }
    nonmutating set { budget.store(newValue, ordering: .relaxed) }
  }

  /// Buckets of small items that a depot holds at most, for threads to hand to each other.
  package var exchangedBuckets: Int {
    get { exchanged.load(ordering: .relaxed) }
    nonmutating set { exchanged.store(newValue, ordering: .relaxed) }
  }

  borrowing func countDepot(_ bytes: Int) {
    _ = bytesInDepots.wrappingAdd(bytes, ordering: .relaxed)
  }

  package borrowing func pool(at index: Int) -> UnsafeMutablePointer<Pool> { pools + index }
}
