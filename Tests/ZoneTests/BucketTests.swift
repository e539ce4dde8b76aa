import Base
import Testing
import TestSupport
import Zone

@Suite struct BucketTests {
  @Test(
    "U08: a zone's first bucket size follows from the item size",
    arguments: [
      (8, 254), (64, 254), (65, 126), (128, 126), (129, 62), (256, 62), (257, 30), (512, 30),
      (513, 16), (1024, 16), (1025, 8), (2048, 8), (2049, 4), (3072, 4), (3073, 2), (4096, 2),
      (4097, 1), (8192, 1), (65536, 1),
    ] as [(UInt, Int)])
  func entries(size: UInt, expected: Int) {
    #expect(BucketSize.entries(forItemSize: size) == expected)
  }

  @Test("U08: capacities are 2 4 8 16, then powers of two less the header's two words")
  func capacities() {
    let capacities = (0..<BucketSize.count).map(BucketSize.capacity)
    #expect(capacities == [2, 4, 8, 16, 30, 62, 126, 254, 510])
    #expect(capacities.contains(BucketSize.largest))
    // From 30 on a bucket is a power of two of bytes.
    #expect(
      capacities.dropFirst(4).allSatisfy { (Bucket.headerBytes + UInt($0) * 8).isPowerOfTwo })
    #expect(MemoryLayout<Bucket>.size == Int(Bucket.headerBytes))
  }

  @Test("the pool for a number of entries is the smallest that holds it")
  func index() {
    for entries in 1...510 {
      let index = BucketSize.index(holding: entries)
      #expect(BucketSize.capacity(at: index) >= entries)
      if index > 0 { #expect(BucketSize.capacity(at: index - 1) < entries) }
    }
  }

  @Test("a bucket has room for its capacity, is empty, and goes back to its pool")
  func pools() {
    Rig.use { rig in
      for index in 0..<BucketSize.count {
        let capacity = BucketSize.capacity(at: index)
        let bucket = rig.pools.pointee.take(entries: capacity)!
        #expect(bucket.capacity == capacity && bucket.pointee.count == 0 && !bucket.isFull)
        #expect(bucket.high - bucket.low == UInt(capacity) * 8)
        for slot in 0..<capacity { bucket.slots[slot] = UInt(slot) }
        bucket.pointee.count = UInt32(capacity)
        #expect(bucket.isFull)
        #expect(rig.bucketsInUse == 1)
        rig.pools.pointee.give(bucket)
        #expect(rig.bucketsInUse == 0)
      }
    }
  }
}
