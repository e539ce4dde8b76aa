import Base
import Glibc
import Keg
import Testing
import TestSupport
import Zone

extension Rig {
  /// Puts buckets of `count` items in all into the depot, as use does.
  func fillDepot(of zone: ZonePointer, _ count: Int) {
    let bin = bin()
    let items = (0..<count).map { _ in bin.allocate(zone) }
    for item in items { bin.free(item, zone) }
    bin.flush(to: zone)
  }

  /// Makes threads wait for the zone's lock until they did so `times` times.
  func contend(for zone: ZonePointer, _ times: UInt) {
    let shared = Shared(zone)
    for _ in 0..<100 where zone.statistics.contended < times {
      let barrier = Barrier(2)
      let bucket = Shared(pools.pointee.take(entries: 2)!)
      zone.fill(bucket.pointer, 2)
      inParallel(2) { index in
        if index == 0 {
          shared.pointer.pointee.lock.lock()
          barrier.wait()
          usleep(5000)
          shared.pointer.pointee.lock.unlock()
        } else {
          barrier.wait()
          if let empty = shared.pointer.putBucket(bucket.pointer) {
            Rig.current.pools.pointee.give(empty)
          }
        }
      }
    }
  }
}

@Suite struct ZoneDepotTests {
  @Test("a depot gives back the latest bucket with all its items")
  func lifo() {
    Rig.use { rig in
      let zone = rig.zone(size: 256)
      let buckets = (0..<3).map { _ in rig.pools.pointee.take(entries: 30)! }
      for (index, bucket) in buckets.enumerated() {
        zone.fill(bucket, 10 + index)
        #expect(zone.putBucket(bucket) == nil)
      }
      #expect(zone.depotItems == 33)
      zone.checkInvariants()
      for bucket in buckets.reversed() { #expect(zone.takeBucket(returning: nil) == bucket) }
      #expect(zone.depotItems == 0)
      #expect(zone.takeBucket(returning: nil) == nil)
      #expect(zone.statistics.put == 33 && zone.statistics.taken == 33)
    }
  }

  @Test("empty buckets are exchanged for full ones, a few are kept, the rest go back")
  func empties() {
    Rig.use { rig in
      let zone = rig.zone(size: 512)
      for _ in 0..<6 {
        let bucket = rig.pools.pointee.take(entries: 30)!
        zone.fill(bucket, 30)
        _ = zone.putBucket(bucket)
      }
      var full: [UnsafeMutablePointer<Bucket>] = []
      for _ in 0..<6 {
        full.append(zone.takeBucket(returning: rig.pools.pointee.take(entries: 30)!)!)
      }
      // Six came, four stayed.
      #expect(rig.bucketsInUse == 10)
      for index in 0..<5 {
        let exchanged = zone.putBucket(full[index])
        #expect((exchanged != nil) == (index < 4))
        #expect(exchanged == nil || exchanged!.pointee.count == 0)
      }
    }
  }

  @Test(
    "a depot is bounded: to eight buckets, 512 KiB or a sixteenth of all items",
    arguments: [64, 512, 4096, 8192] as [UInt])
  func bound(size: UInt) {
    Rig.use { rig in
      let zone = rig.zone(size: size, keg: rig.keg(size: size), isBounded: true)
      let bin = rig.bin()
      let count = (4 << 20) / size
      let items = (0..<count).map { _ in bin.allocate(zone) }
      let most = max(8 * UInt(zone.startEntries), (1 << 19) / size, zone.pointee.keg!.itemCount / 16)
      var greatest = 0
      for item in items {
        bin.free(item, zone)
        greatest = max(greatest, zone.depotItems)
      }
      #expect(greatest > 0 && greatest <= max(16, most))
      #expect(zone.statistics.released > 0)
      zone.checkInvariants()
    }
  }

  @Test("the depot takes no more than its cap; what is beyond goes to the keg")
  func cap() {
    Rig.use { rig in
      let zone = rig.zone(size: 512)
      zone.pointee.mostItems = 100
      let bin = rig.bin()
      let items = (0..<600).map { _ in bin.allocate(zone) }
      for item in items {
        bin.free(item, zone)
        if zone.depotItems > 100 { Issue.record("\(zone.depotItems) in the depot") }
      }
      #expect(zone.depotItems > 60)
      #expect(zone.statistics.released > 400)
      zone.checkInvariants()
      zone.pointee.keg!.checkInvariants()
    }
  }

  @Test("U09: each wait for the lock makes the zone's buckets one entry larger, up to 254")
  func contention() {
    Rig.use { rig in
      let zone = rig.zone(size: 512)
      rig.fillDepot(of: zone, 500)
      #expect(zone.bucketEntries == 30 && zone.statistics.contended == 0)
      rig.contend(for: zone, 3)
      #expect(zone.bucketEntries == 30 + Int(zone.statistics.contended))
      let small = rig.zone(size: 64)
      rig.contend(for: small, 1)
      #expect(small.bucketEntries == 254)
    }
  }

  @Test("U10: a reclaim takes one entry back, DRAIN_CPU half the way, never below the start")
  func shrinking() {
    Rig.use { rig in
      let zone = rig.zone(size: 512)
      rig.contend(for: zone, 5)
      let grown = zone.bucketEntries
      #expect(grown >= 35)
      zone.reclaim(.trim)
      #expect(zone.bucketEntries == grown - 1)
      zone.reclaim(.drain)
      #expect(zone.bucketEntries == grown - 2)
      zone.reclaim(.drainCPU)
      #expect(zone.bucketEntries == (30 + grown - 2) / 2)
      for _ in 0..<10 { zone.reclaim(.drain) }
      #expect(zone.bucketEntries == 30 && zone.startEntries == 30)
    }
  }

  @Test("U15: TRIM leaves the working set, DRAIN nothing, and slabs go back with the items")
  func reclaimLevels() {
    Rig.use { rig in
      let zone = rig.zone(size: 512)
      let keg = zone.pointee.keg!
      rig.fillDepot(of: zone, 900)
      let slabs = keg.slabCount
      // Draw 400 of the depot and put them back: the working set.
      let bin = rig.bin()
      let items = (0..<400).map { _ in bin.allocate(zone) }
      for item in items { bin.free(item, zone) }
      bin.flush(to: zone)
      zone.tick()
      let trimmed = zone.depotItems
      let workingSet = zone.workingSet.size
      #expect(workingSet >= 370 && workingSet <= 460)
      // Whole buckets: at most one less than the working set.
      #expect(trimmed <= workingSet && trimmed > workingSet - 30)
      #expect(keg.usedCount == UInt(trimmed))
      #expect(keg.slabCount < slabs)
      zone.checkInvariants()
      zone.reclaim(.drain)
      #expect(zone.depotItems == 0 && keg.usedCount == 0 && keg.slabCount == 0)
      #expect(rig.heap.inUseBytes == 0)
      // The estimate survives: what was needed will be needed.
      #expect(zone.workingSet.size == workingSet)
      zone.checkInvariants()
    }
  }

  @Test("U14: an idle zone's working set decays by a quarter a tick, and its items go back")
  func decay() {
    Rig.use { rig in
      let zone = rig.zone(size: 512)
      rig.fillDepot(of: zone, 900)
      let bin = rig.bin()
      for item in (0..<500).map({ _ in bin.allocate(zone) }) { bin.free(item, zone) }
      bin.flush(to: zone)
      zone.tick()
      var last = zone.workingSet.size
      for _ in 0..<30 {
        zone.tick()
        #expect(zone.workingSet.size <= last)
        #expect(zone.depotItems <= zone.workingSet.size)
        last = zone.workingSet.size
      }
      #expect(zone.depotItems == 0 && zone.pointee.keg!.slabCount == 0)
    }
  }
}
