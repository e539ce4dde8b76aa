import Base
import Keg
import Testing
import TestSupport
import Zone

@Suite struct ZoneThreadTests {
  @Test("U12: between a bin that allocates and one that frees whole buckets move, and no slab is touched")
  func producerConsumer() {
    Rig.use { rig in
      let zone = rig.zone(size: 512)
      let (producer, consumer) = (rig.bin(), rig.bin())
      func round() {
        for item in (0..<300).map({ _ in producer.allocate(zone) }) { consumer.free(item, zone) }
      }
      for _ in 0..<5 { round() }
      let before = zone.statistics
      for _ in 0..<200 { round() }
      let after = zone.statistics
      #expect(after.imported == before.imported)
      #expect(after.released == before.released)
      #expect(after.withoutBucket == 0)
      #expect(after.taken - before.taken >= 200 * 300 - 60)
      zone.checkInvariants()
    }
  }

  @Test("U12: the same between two threads")
  func producerConsumerThreads() {
    Rig.use { rig in
      let zone = Shared(rig.zone(size: 512))
      let bins = [Shared(rig.bin()), Shared(rig.bin())]
      let barrier = Barrier(2)
      let handed = Collected<UInt>()
      let rounds = 200
      rig.inParallel(2) { index in
        let bin = bins[index].pointer
        for round in 0..<rounds {
          if index == 0 {
            for _ in 0..<200 {
              let item = bin.allocate(zone.pointer)
              item.word = UInt(round)
              handed.append(item)
            }
          }
          barrier.wait()
          if index == 1 {
            for item in handed.removeAll() {
              if item.word != UInt(round) { die("test: an item was written to on its way") }
              bin.free(item, zone.pointer)
            }
          }
          barrier.wait()
        }
      }
      let statistics = zone.pointer.statistics
      #expect(statistics.imported < 1000 && statistics.released == 0)
      #expect(statistics.taken > UInt(rounds * 200 - 2000))
      zone.pointer.checkInvariants()
    }
  }

  @Test(
    "items of the keg are used, in bins, in the depot or free in slabs, whatever threads did",
    arguments: [(1, 16), (2, 200), (3, 512), (4, 4096), (5, 20_000)] as [(UInt64, UInt)])
  func conservation(seed: UInt64, size: UInt) {
    Rig.use { rig in
      let keg = rig.keg(size: size)
      let zone = Shared(rig.zone(size: size, keg: keg))
      let bins = (0..<4).map { _ in Shared(rig.bin()) }
      let left = Collected<[UInt]>()
      let passed = Collected<UInt>()
      rig.inParallel(4) { index in
        var random = SeededGenerator(seed: seed &* 100 &+ UInt64(index))
        let bin = bins[index].pointer
        var held: [UInt] = []
        for step in 0..<6000 {
          switch random.below(20) {
          case 0..<10 where held.count < 400:
            let item = bin.allocate(zone.pointer)
            item.word = UInt(index)
            held.append(item)
          case 18:
            // Items that another thread allocated.
            for item in passed.removeAll() { bin.free(item, zone.pointer) }
          case 19:
            if step % 50 == 0 { bin.flush(to: zone.pointer) }
            if step % 100 == 0 { zone.pointer.reclaim(step % 200 == 0 ? .trim : .drain) }
            if step % 70 == 0 { zone.pointer.tick() }
          default:
            guard !held.isEmpty else { continue }
            held.swapAt(random.below(held.count), held.count - 1)
            let item = held.removeLast()
            if item.word != UInt(index) { die("test: one item for two threads") }
            if random.below(3) == 0 { passed.append(item) } else { bin.free(item, zone.pointer) }
          }
        }
        left.append(held)
      }
      let live = left.values.reduce(0) { $0 + $1.count } + passed.values.count
      let inBins = bins.reduce(0) { $0 + $1.pointer.cachedCount }
      let depot = zone.pointer.depotItems
      #expect(
        keg.itemCount == UInt(live + inBins + depot) + keg.freeCount, "seed \(seed)")
      let statistics = zone.pointer.statistics
      #expect(statistics.imported - statistics.released == keg.usedCount, "seed \(seed)")
      keg.checkInvariants()
      zone.pointer.checkInvariants()
      // And all of it comes back.
      for item in left.values.flatMap({ $0 }) + passed.values {
        bins[0].pointer.free(item, zone.pointer)
      }
      for bin in bins { bin.pointer.flush(to: zone.pointer) }
      zone.pointer.reclaim(.drain)
      #expect(keg.slabCount == 0 && rig.heap.inUseBytes == 0, "seed \(seed)")
      #expect(rig.pages.violations == [])
    }
  }

  @Test("two zones on one keg share its items and nothing else, from several threads")
  func sharedKeg() {
    Rig.use { rig in
      let keg = rig.keg(size: 256)
      let zones = (0..<2).map { _ in Shared(rig.zone(size: 256, keg: keg)) }
      let bins = (0..<4).map { _ in Shared(rig.bin()) }
      rig.inParallel(4) { index in
        let (bin, zone) = (bins[index].pointer, zones[index % 2].pointer)
        for _ in 0..<50 {
          let items = (0..<300).map { _ in bin.allocate(zone) }
          for item in items { item.word = UInt(index) }
          if items.contains(where: { $0.word != UInt(index) }) { die("test: zones overlap") }
          for item in items { bin.free(item, zone) }
        }
      }
      let cached = bins.reduce(0) { $0 + $1.pointer.cachedCount }
      let depots = zones.reduce(0) { $0 + $1.pointer.depotItems }
      #expect(keg.usedCount == UInt(cached + depots))
      keg.checkInvariants()
    }
  }
}
