import Base
import Keg
import Testing
import TestSupport
import Zone

@Suite struct BinTests {
  @Test("an unused bin is empty and full, and 32 bytes")
  func unused() {
    Rig.use { rig in
      let bin = rig.bin()
      #expect(bin.count == 0 && bin.cachedCount == 0 && bin.loadedCapacity == 0)
      #expect(MemoryLayout<Bin>.stride == 1 << Int(Bin.strideShift))
      bin.flush(to: rig.zone(size: 64))
      #expect(bin.count == 0)
    }
  }

  @Test("U06: what was freed last is allocated first")
  func lifo() {
    Rig.use { rig in
      let zone = rig.zone(size: 64)
      let bin = rig.bin()
      let items = (0..<5).map { _ in bin.allocate(zone) }
      for item in items { bin.free(item, zone) }
      #expect((0..<5).map { _ in bin.allocate(zone) } == items.reversed())
    }
  }

  @Test("items of a fresh bucket come out ascending")
  func ascending() {
    Rig.use { rig in
      let zone = rig.zone(size: 64)
      let bin = rig.bin()
      let items = (0..<8).map { _ in bin.allocate(zone) }
      #expect(items == items.sorted())
    }
  }

  @Test("refill grows the bucket 8, 16, 30, 62, 126, 254 and stays there; it gets what the last could hold")
  func growth() {
    Rig.use { rig in
      let zone = rig.zone(size: 16)
      let bin = rig.bin()
      var capacities: [Int] = []
      var fills: [Int] = []
      var taken = 0
      for _ in 0..<9 {
        _ = bin.allocate(zone)
        taken += 1
        capacities.append(bin.loadedCapacity)
        fills.append(bin.count + 1)
        while bin.count > 0 {
          _ = bin.allocate(zone)
          taken += 1
        }
      }
      #expect(capacities == [8, 16, 30, 62, 126, 254, 254, 254, 254])
      #expect(fills == [2, 8, 16, 30, 62, 126, 254, 254, 254])
      // The small ones went back to their pools.
      #expect(rig.bucketsInUse == 1)
      #expect(zone.statistics.imported == UInt(taken))
    }
  }

  @Test("a bin that swaps to and fro gets one bucket for what lay in two, up to 4 KiB of items")
  func growthBySwaps() {
    Rig.use { rig in
      let zone = rig.zone(size: 256)
      let bin = rig.bin()
      func cached() -> Set<UInt> {
        var items: Set<UInt> = []
        bin.forEachItem { items.insert($0) }
        return items
      }
      // Fills both buckets, and takes what the loaded one has.
      func empty() {
        while !bin.hasPrevious || bin.cachedCount < bin.capacity { bin.free(zone.allocateItem(), zone) }
        while bin.count > 0 { _ = bin.allocate(zone) }
      }
      var capacities: [Int] = []
      for _ in 0..<3 {
        empty()
        if !bin.swapsTooOften(zone) { break }
        let items = cached()
        #expect(bin.grow(for: zone, mayBeLarge: true))
        #expect(bin.count < bin.loadedCapacity && cached() == items)
        capacities.append(bin.loadedCapacity)
      }
      #expect(capacities.last == 30)
      #expect(!bin.swapsTooOften(zone) && bin.swapForItems())
      #expect(rig.bucketsInUse == 2)
    }
  }

  @Test("where bins are tight, buckets become as small as the first", arguments: [(64, 8), (1024, 2)] as [(UInt, Int)])
  func tight(size: UInt, entries: Int) {
    Rig.use { rig in
      let zone = rig.zone(size: size)
      let bin = rig.bin()
      for _ in 0..<5 {
        #expect(bin.refill(from: zone))
        while bin.count > 0 { _ = bin.allocate(zone) }
      }
      #expect(bin.loadedCapacity > entries)
      #expect(bin.refill(from: zone, mayGrow: false, isTight: true))
      #expect(bin.loadedCapacity == entries && bin.count == entries)
      #expect(bin.makeRoom(for: zone))
      while bin.pointee.top != bin.pointee.high { bin.free(zone.allocateItem(), zone) }
      #expect(bin.makeRoom(for: zone, mayGrow: false, isTight: true, keepsFull: false))
      #expect(bin.capacity == entries && bin.count == 0)
    }
  }

  @Test("a bin that only frees keeps no full bucket, and one that takes again keeps one")
  func onlyFrees() {
    Rig.use { rig in
      let zone = rig.zone(size: 64)
      let bin = rig.bin()
      var given = 0
      func fill() {
        while bin.pointee.top != bin.pointee.high || bin.swapForRoom() {
          bin.free(zone.allocateItem(), zone)
          given += 1
        }
      }
      #expect(bin.makeRoom(for: zone))
      fill()
      #expect(bin.makeRoom(for: zone))
      fill()
      #expect(bin.hasPrevious && bin.cachedCount == given)
      for _ in 0..<3 {
        #expect(bin.makeRoom(for: zone, keepsFull: false))
        #expect(!bin.hasPrevious && bin.count == 0 && bin.loadedCapacity > 0)
        #expect(zone.countDepotItems() == given)
        fill()
      }
      #expect(bin.makeRoom(for: zone))
      #expect(bin.hasPrevious && bin.count == 0)
    }
  }

  @Test(
    "a bin that may not grow starts with few entries and keeps few: 30 or 8 KiB of small items, 2 of others",
    arguments: [
      (64, [8, 16, 30, 62, 126, 126]), (128, [8, 16, 30, 62, 62]), (512, [8, 16, 30, 30]),
      (1024, [2, 2, 2]),
    ] as [(UInt, [Int])])
  func noGrowth(size: UInt, entries: [Int]) {
    Rig.use { rig in
      let zone = rig.zone(size: size)
      let bin = rig.bin()
      for expected in entries {
        #expect(bin.refill(from: zone, mayGrow: false))
        #expect(bin.loadedCapacity == expected)
        while bin.count > 0 { _ = bin.allocate(zone) }
      }
      #expect(rig.bucketsInUse == 1 && bin.capacity == entries.last)
    }
  }

  @Test(
    "what a thread frees of its own goes to slabs, but for few items or large ones",
    arguments: [(64, 17, true, true), (64, 17, false, false), (64, 16, false, true), (1024, 16, false, true)] as [(UInt, Int, Bool, Bool)])
  func ownItems(size: UInt, count: Int, isForOthers: Bool, intoDepot: Bool) throws {
    try Rig.use { rig in
      let zone = rig.zone(size: size)
      let taken = rig.pools.pointee.take(entries: zone.bucketEntries)
      let bucket = try #require(taken)
      for i in 0..<count { bucket.slots[i] = zone.allocateItem() }
      bucket.pointee.count = UInt32(count)
      let empty = zone.putBucket(bucket, isForOthers)
      #expect(zone.depotItems == (intoDepot ? count : 0))
      #expect(zone.statistics.released == (intoDepot ? 0 : UInt(count)))
      // Who drains a bucket keeps it.
      #expect(empty == (intoDepot ? nil : bucket))
      #expect(intoDepot || bucket.pointee.count == 0)
      zone.checkInvariants()
    }
  }

  @Test("growth ends at what the zone says", arguments: [(1024, 16), (2048, 8), (4096, 2), (8192, 1)] as [(UInt, Int)])
  func growthLimit(size: UInt, most: Int) {
    Rig.use { rig in
      let zone = rig.zone(size: size)
      let bin = rig.bin()
      for _ in 0..<100 { _ = bin.allocate(zone) }
      #expect(bin.loadedCapacity == BucketSize.capacity(at: BucketSize.index(holding: most)))
      #expect(zone.bucketEntries == most)
    }
  }

  @Test("U06: alternating over two buckets never touches the zone")
  func twoBuckets() {
    Rig.use { rig in
      let zone = rig.zone(size: 512)
      let bin = rig.bin()
      // Both buckets at full size.
      var items = (0..<400).map { _ in bin.allocate(zone) }
      while let item = items.popLast() { bin.free(item, zone) }
      let cached = bin.cachedCount
      #expect(bin.loadedCapacity == 30 && cached >= 30)
      let before = zone.statistics
      for round in 1...200 {
        let held = (0..<(round % cached + 1)).map { _ in bin.allocate(zone) }
        for item in held { bin.free(item, zone) }
      }
      let after = zone.statistics
      #expect(after.taken == before.taken && after.put == before.put)
      #expect(after.imported == before.imported && after.released == before.released)
      zone.checkInvariants()
    }
  }

  @Test("U07: room in a full bin is made by whole buckets to the depot")
  func wholeBuckets() {
    Rig.use { rig in
      let zone = rig.zone(size: 512)
      let bin = rig.bin()
      let items = (0..<600).map { _ in bin.allocate(zone) }
      let released = zone.statistics.released
      for item in items { bin.free(item, zone) }
      #expect(zone.depotItems + bin.cachedCount == Int(zone.statistics.imported))
      #expect(zone.depotItems > 400)
      #expect(zone.statistics.put == UInt(zone.depotItems))
      #expect(zone.statistics.released == released)
      zone.checkInvariants()
    }
  }

  @Test("refill takes the depot's latest bucket before it asks the keg")
  func depotFirst() {
    Rig.use { rig in
      let zone = rig.zone(size: 512)
      let bin = rig.bin()
      for item in (0..<600).map({ _ in bin.allocate(zone) }) { bin.free(item, zone) }
      let imported = zone.statistics.imported
      let again = (0..<600).map { _ in bin.allocate(zone) }
      #expect(Set(again).count == 600)
      #expect(zone.statistics.imported == imported)
      #expect(zone.statistics.taken > 400)
      zone.checkInvariants()
    }
  }

  @Test("flush hands over both buckets, leaves the bin unused, and is no sign of use")
  func flush() {
    Rig.use { rig in
      let zone = rig.zone(size: 512)
      let bin = rig.bin()
      for item in (0..<100).map({ _ in bin.allocate(zone) }) { bin.free(item, zone) }
      let cached = bin.cachedCount
      let depot = zone.depotItems
      #expect(bin.hasPrevious)
      bin.flush(to: zone)
      #expect(zone.depotItems == depot + cached)
      #expect(bin.count == 0 && bin.cachedCount == 0 && bin.loadedCapacity == 0 && !bin.hasPrevious)
      #expect(zone.statistics.put == UInt(depot))
      zone.checkInvariants()
      // And it can be used again.
      let item = bin.allocate(zone)
      #expect(item != 0)
    }
  }

  @Test("an empty bucket that is flushed goes back to its pool")
  func flushEmpty() {
    Rig.use { rig in
      let zone = rig.zone(size: 512)
      let bin = rig.bin()
      _ = bin.allocate(zone)
      while bin.count > 0 { _ = bin.allocate(zone) }
      #expect(rig.bucketsInUse == 1)
      bin.flush(to: zone)
      #expect(rig.bucketsInUse == 0 && zone.depotItems == 0)
    }
  }

  @Test("U11: without memory for a bucket items are allocated and freed one by one")
  func noBucketMemory() {
    Rig.use { rig in
      let zone = rig.zone(size: 64)
      let bin = rig.bin()
      let other = rig.bin()
      // A slab with free items is there, metadata for buckets is not.
      let first = other.allocate(zone)
      other.free(first, zone)
      rig.exhaustBuckets()
      let items = (0..<20).map { _ in bin.allocate(zone) }
      #expect(items.allSatisfy { $0 != 0 } && Set(items).count == 20)
      #expect(bin.loadedCapacity == 0)
      #expect(zone.statistics.withoutBucket == 20)
      for item in items { bin.free(item, zone) }
      #expect(zone.statistics.withoutBucket == 40)
      #expect(zone.statistics.failures == 0)
      zone.pointee.keg!.checkInvariants()
    }
  }

  @Test("a zone without buckets serves every item from the keg")
  func noBucketZone() {
    Rig.use { rig in
      let zone = rig.zone(size: 64, flags: .noBucket)
      let bin = rig.bin()
      let item = bin.allocate(zone)
      #expect(item != 0 && bin.loadedCapacity == 0)
      #expect(zone.pointee.keg!.usedCount == 1)
      bin.free(item, zone)
      #expect(zone.pointee.keg!.usedCount == 0)
      #expect(rig.bucketsInUse == 0)
    }
  }

  @Test("without memory for items refill fails, and what is cached is still served")
  func noItemMemory() {
    Rig.use(wanted: 1 << 22) { rig in
      let zone = rig.zone(size: 65536)
      let bin = rig.bin()
      rig.pages.allowReserves(0)
      var items: [UInt] = []
      while true {
        let item = bin.allocate(zone)
        if item == 0 { break }
        items.append(item)
      }
      #expect(items.count > 10 && Set(items).count == items.count)
      #expect(zone.statistics.failures > 0)
      bin.free(items[0], zone)
      #expect(bin.allocate(zone) == items[0])
      zone.checkInvariants()
      zone.pointee.keg!.checkInvariants()
    }
  }
}
