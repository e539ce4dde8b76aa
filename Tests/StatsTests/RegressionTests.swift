// RegressionTests.swift: bugs 4 and 5 of UMA's history; for the others see
// ZoneTests/RegressionTests.swift.

import Base
import Keg
import Stats
import Testing
import TestSupport
import Zone

@Suite struct RegressionTests {
  @Test("4: zones without arrays, depots or kegs have rows without garbage")
  func absentCaches() {
    Rig.use { rig in
      for zone in [
        rig.zone(size: 64, flags: .isInternal), rig.zone(size: 64, flags: .noBucket),
        rig.zone(size: 64, keg: nil, flags: .cache),
      ] {
        let row = ZoneRow(zone, inArrays: 0)
        #expect(
          [row.used, row.inArrays, row.inDepot, row.freeInSlabs, row.slabCount, row.requests]
            == [0, 0, 0, 0, 0, 0])
      }
    }
  }

  @Test("5: right after a drain, and with arrays that were counted too early, USED is never negative")
  func negativeUsed() {
    Rig.use { rig in
      let zone = rig.zone(size: 512)
      let bin = rig.bin()
      for item in (0..<500).map({ _ in bin.allocate(zone) }) { bin.free(item, zone) }
      let early = UInt(bin.cachedCount)
      bin.flush(to: zone)
      for level in [ReclaimLevel.trim, .drain] {
        // The reader still believes in what the array held before.
        let row = ZoneRow(zone, inArrays: early)
        #expect(row.used <= zone.pointee.keg!.itemCount)
        #expect(row.items == zone.pointee.keg!.itemCount)
        zone.reclaim(level)
      }
      let row = ZoneRow(zone, inArrays: early)
      #expect([row.used, row.inArrays, row.inDepot, row.items] == [0, 0, 0, 0])
    }
  }
}
