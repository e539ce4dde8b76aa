import Base
import Keg
import Stats
import Testing
import TestSupport
import Zone

@Suite struct SnapshotTests {
  @Test("a row says where every item of the zone's slabs is")
  func places() {
    Rig.use { rig in
      let zone = rig.zone("malloc-512", size: 512, keg: rig.keg(size: 512))
      let (first, second) = (rig.bin(), rig.bin())
      let held = (0..<1000).map { _ in first.allocate(zone) }
      for item in held.prefix(700) { second.free(item, zone) }
      let arrays = UInt(first.cachedCount + second.cachedCount)
      let row = ZoneRow(zone, inArrays: arrays)
      let keg = zone.pointee.keg!
      #expect(row.used == 300)
      #expect(row.inArrays == arrays)
      #expect(row.inDepot == UInt(zone.depotItems))
      #expect(row.freeInSlabs == keg.freeCount)
      #expect(row.items == row.slabCount * keg.layout.itemCount)
      #expect(row.used + row.free == row.items)
      #expect(row.slabBytes == row.slabCount * keg.layout.byteCount)
      #expect(row.requests == zone.statistics.imported + zone.statistics.taken)
      #expect(row.exchanged == zone.statistics.taken && row.failures == 0)
      #expect(row.size == 512 && row.bucketEntries == zone.bucketEntries)
    }
  }

  @Test("rows add up at any moment while threads run", arguments: [1, 2] as [UInt64])
  func underLoad(seed: UInt64) {
    Rig.use { rig in
      let zone = Shared(rig.zone(size: 512))
      let bins = (0..<3).map { _ in Shared(rig.bin()) }
      let rows = Collected<String>()
      rig.inParallel(4) { index in
        if index == 3 {
          for _ in 0..<2000 {
            let row = ZoneRow(zone.pointer, inArrays: 100)
            let perSlab = zone.pointer.pointee.keg!.layout.itemCount
            if row.items != row.slabCount * perSlab || row.used > row.items {
              rows.append("\(row)")
            }
          }
          return
        }
        var random = SeededGenerator(seed: seed &* 10 &+ UInt64(index))
        let bin = bins[index].pointer
        for _ in 0..<40 {
          let items = (0..<random.below(500) + 1).map { _ in bin.allocate(zone.pointer) }
          for item in items { bin.free(item, zone.pointer) }
          if random.below(4) == 0 { zone.pointer.reclaim(.drain) }
        }
      }
      #expect(rows.values == [], "seed \(seed)")
    }
  }

  @Test("the totals are the sums of the rows: in use, cached, free in slabs make up the slabs")
  func totals() {
    Rig.use { rig in
      var totals = Totals()
      var slabBytes: UInt = 0
      for size in [16, 48, 512, 5000, 40_000] as [UInt] {
        let zone = rig.zone(size: size)
        let bin = rig.bin()
        let items = (0..<200).map { _ in bin.allocate(zone) }
        for item in items.prefix(150) { bin.free(item, zone) }
        let row = ZoneRow(zone, inArrays: UInt(bin.cachedCount))
        #expect(row.used == 50)
        totals.add(row)
        slabBytes += row.slabBytes
      }
      #expect(totals.usedSmall == 50 * (16 + 48 + 512 + 5000 + 40_000))
      #expect(totals.usedSmall + totals.cachedSmall + totals.freeInSlabs == slabBytes)
      #expect(slabBytes == rig.heap.inUseBytes)
      totals.usedLarge = 1 << 20
      #expect(totals.used == totals.usedSmall + (1 << 20))
    }
  }
}
