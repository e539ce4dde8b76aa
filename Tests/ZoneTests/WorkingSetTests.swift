import Testing
import TestSupport
import Zone

/// The figures of a working set in the order of UMA's sysctl tree.
private func figures(_ set: WorkingSet) -> [Int] {
  [
    set.items, set.greatest, set.least, set.leastSinceGreatest, set.size, set.idleItems,
    set.idleTicks,
  ]
}

/// U13: every figure after every tick, worked out by hand from
///
///   wss = max(wss * 3/4, imax - bimin)
///   m = imin - wss; limin = m or (m + 255 limin) / 256; timin counts
///   imax -= (imax - nitems + 1) / 2; imin = bimin = nitems
@Suite struct WorkingSetTests {
  @Test("a depot that only fills has no working set, and all of it is idle")
  func fillOnly() {
    var set = WorkingSet()
    set.put(100)
    #expect(figures(set) == [100, 100, 0, 100, 0, 0, 0])
    set.put(412)
    #expect(figures(set) == [512, 512, 0, 512, 0, 0, 0])
    // m = 0 - 0: nothing was there all the time.
    set.tick()
    #expect(figures(set) == [512, 512, 512, 512, 0, 0, 1])
    // m = 512 > limin: (512 + 255 * 0) / 256.
    set.tick()
    #expect(figures(set) == [512, 512, 512, 512, 0, 2, 2])
    // (512 + 255 * 2) / 256 = 3.99.
    set.tick()
    #expect(figures(set) == [512, 512, 512, 512, 0, 3, 3])
  }

  @Test("the first bucket of a new depot counts for nothing, the working set is what is drawn")
  func drawn() {
    var set = WorkingSet()
    set.drainInto(1000)
    #expect(figures(set) == [1000, 1000, 1000, 1000, 0, 0, 0])
    set.take(300)
    #expect(figures(set) == [700, 1000, 700, 700, 0, 0, 0])
    // wss = 1000 - 700 = 300; m = 700 - 300 = 400: 400 / 256 = 1.
    // imax -= (1000 - 700 + 1) / 2 = 150.
    set.tick()
    #expect(figures(set) == [700, 850, 700, 700, 300, 1, 1])
    // wss = max(225, 850 - 700) = 225; m = 475: (475 + 255) / 256 = 2; imax -= 75.
    set.tick()
    #expect(figures(set) == [700, 775, 700, 700, 225, 2, 2])
    // wss = max(168, 75) = 168; m = 532: (532 + 510) / 256 = 4; imax -= 38.
    set.tick()
    #expect(figures(set) == [700, 737, 700, 700, 168, 4, 3])
  }

  @Test("a new peak after a trough widens the working set within one interval")
  func peak() {
    var set = WorkingSet()
    set.drainInto(500)
    set.take(400)
    #expect(figures(set) == [100, 500, 100, 100, 0, 0, 0])
    set.put(300)
    #expect(figures(set) == [400, 500, 100, 100, 0, 0, 0])
    // Above the old peak: wss = max(0, 500 - 100); imax = bimin = 600.
    set.put(200)
    #expect(figures(set) == [600, 600, 100, 600, 400, 0, 0])
    set.take(50)
    #expect(figures(set) == [550, 600, 100, 550, 400, 0, 0])
    // wss = max(300, 600 - 550) = 300; m = 100 - 300 < 0; imax -= 25.
    set.tick()
    #expect(figures(set) == [550, 575, 550, 550, 300, 0, 0])
  }

  @Test("falling below the working set ends idleness")
  func idle() {
    var set = WorkingSet()
    set.drainInto(2560)
    set.tick()
    // wss 0, m = 2560 > limin 0: 2560 / 256.
    #expect(figures(set) == [2560, 2560, 2560, 2560, 0, 10, 1])
    set.tick()
    // (2560 + 2550) / 256 = 19.
    #expect(figures(set) == [2560, 2560, 2560, 2560, 0, 19, 2])
    set.take(2555)
    #expect(figures(set) == [5, 2560, 5, 5, 0, 19, 2])
    // wss = 2555; m = 5 - 2555 < 0; imax -= (2560 - 5 + 1) / 2 = 1278.
    set.tick()
    #expect(figures(set) == [5, 1282, 5, 5, 2555, 0, 0])
  }

  @Test("long unused items fall at once when fewer of them are unused")
  func idleFalls() {
    var set = WorkingSet()
    set.drainInto(25_600)
    for _ in 0..<2 { set.tick() }
    #expect(set.idleItems == 199)
    set.reclaim(25_500)
    set.tick()
    // m = 100 <= limin: limin = m.
    #expect(set.idleItems == 100 && set.idleTicks == 3)
  }

  @Test("reclaim and drain move the marks along instead of counting as use")
  func reclaim() {
    var set = WorkingSet()
    set.drainInto(300)
    set.reclaim(100)
    #expect(figures(set) == [200, 200, 200, 200, 0, 0, 0])
    set.tick()
    #expect(set.size == 0)
    set.take(50)
    set.reclaim(150)
    #expect(figures(set) == [0, 50, 0, 0, 0, 0, 1])
    set.drainInto(10)
    #expect(figures(set) == [10, 60, 10, 10, 0, 0, 1])
    set.tick()
    #expect(set.size == 50)
  }

  @Test("no history makes a figure negative, or lets the marks cross", arguments: [1, 2, 3] as [UInt64])
  func walk(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    var set = WorkingSet()
    for step in 0..<20_000 {
      switch random.below(9) {
      case 0, 1, 2: set.put(random.below(254) + 1)
      case 3, 4, 5: if set.items > 0 { set.take(random.below(set.items) + 1) }
      case 6: if set.items > 0 { set.reclaim(random.below(set.items) + 1) }
      case 7: set.drainInto(random.below(254) + 1)
      default: set.tick()
      }
      if figures(set).contains(where: { $0 < 0 }) || set.least > set.items
        || set.greatest < set.items || set.leastSinceGreatest > set.items
        || set.least > set.leastSinceGreatest
      {
        Issue.record("seed \(seed), step \(step): \(set)")
        return
      }
    }
  }
}
