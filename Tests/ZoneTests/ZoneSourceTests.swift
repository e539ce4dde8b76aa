import Base
import Keg
import Testing
import TestSupport
import Zone

@Suite struct ZoneSourceTests {
  @Test("U26: a secondary zone shares the keg, and its init and fini run at the border")
  func secondary() {
    Rig.use { rig in
      let keg = rig.keg(size: 256)
      let primary = rig.zone("mbuf", size: 256, keg: keg)
      var hooks = ZoneHooks()
      hooks.itemInit = HookLog.itemInit
      hooks.itemFini = HookLog.itemFini
      let secondary = rig.zone("packet", size: 256, keg: keg, hooks: hooks, flags: .secondary)
      let (first, second) = (rig.bin(), rig.bin())
      let plain = (0..<20).map { _ in first.allocate(primary) }
      #expect(rig.hooks.log.isEmpty)
      let packets = (0..<20).map { _ in second.allocate(secondary) }
      #expect(Set(plain + packets).count == 40)
      #expect(keg.slabCount == 1)
      let crossed = rig.hooks.inits
      #expect(crossed.count == Int(secondary.statistics.imported))
      #expect(Set(packets).isSubset(of: Set(crossed)))
      // Use and reuse call nothing.
      for item in packets { second.free(item, secondary) }
      _ = (0..<20).map { _ in second.allocate(secondary) }
        .map { second.free($0, secondary) }
      #expect(rig.hooks.log.count == crossed.count)
      second.flush(to: secondary)
      secondary.reclaim(.drain)
      #expect(rig.hooks.finis.sorted() == crossed.sorted())
      #expect(keg.usedCount == UInt(20 + first.cachedCount))
      keg.checkInvariants()
    }
  }

  @Test("U03: when the sixth init of a bucket fails five items are there and the rest went back")
  func partialInit() {
    Rig.use { rig in
      let keg = rig.keg(size: 256)
      var hooks = ZoneHooks()
      hooks.itemInit = HookLog.itemInit
      hooks.itemFini = HookLog.itemFini
      let zone = rig.zone(size: 256, keg: keg, hooks: hooks)
      let bin = rig.bin()
      rig.hooks.allowInits(5)
      let items = (0..<5).map { _ in bin.allocate(zone) }
      #expect(items.sorted() == rig.hooks.inits.sorted())
      #expect(keg.usedCount == 5)
      #expect(zone.statistics.imported == 5 && zone.statistics.failures == 0)
      // From now on every init fails: no item, nothing taken.
      #expect(bin.allocate(zone) == 0)
      #expect(keg.usedCount == 5)
      #expect(rig.hooks.finis.isEmpty)
      rig.hooks.allowInits(.max)
      #expect(bin.allocate(zone) != 0)
      for item in items { bin.free(item, zone) }
      bin.flush(to: zone)
      keg.checkInvariants()
    }
  }

  @Test("U28: a cache zone over identifiers hands out each once, and imports by the bucket")
  func cacheZone() {
    Rig.use { rig in
      let numbers = Numbers(4000)
      let zone = Shared(rig.zone("ids", size: 512, keg: nil, hooks: numbers.hooks, flags: .cache))
      let bins = (0..<4).map { _ in Shared(rig.bin()) }
      let barrier = Barrier(4)
      let taken = Collected<[UInt]>()
      rig.inParallel(4) { index in
        let bin = bins[index].pointer
        barrier.wait()
        for _ in 0..<50 {
          for item in (0..<100).map({ _ in bin.allocate(zone.pointer) }) { bin.free(item, zone.pointer) }
        }
        barrier.wait()
        taken.append((0..<200).map { _ in bin.allocate(zone.pointer) })
      }
      let ids = taken.values.flatMap { $0 }
      #expect(ids.count == 800 && Set(ids).count == 800)
      #expect(ids.allSatisfy { (1...4000).contains($0) })
      // 20,800 allocations.
      #expect(numbers.imports < 200)
      for (bin, items) in zip(bins, taken.values) {
        for item in items { bin.pointer.free(item, zone.pointer) }
        bin.pointer.flush(to: zone.pointer)
      }
      zone.pointer.checkInvariants()
      zone.pointer.reclaim(.drain)
      #expect(numbers.freeCount == 4000)
      withExtendedLifetime(numbers) {}
    }
  }

  @Test("items on their way from the depot to their source are free ones")
  func reclaimCounts() {
    Rig.use { rig in
      let numbers = Numbers(4000)
      let zone = Shared(rig.zone("ids", size: 512, keg: nil, hooks: numbers.hooks, flags: .cache))
      rig.fillDepot(of: zone.pointer, 300)
      let used = Collected<Int>()
      numbers.whenReleasing = {
        let zone = zone.pointer
        used.append(Int(zone.statistics.imported - zone.statistics.released) - zone.depotItems)
      }
      zone.pointer.reclaim(.drain)
      #expect(used.values.count > 1)
      #expect(used.values.allSatisfy { $0 == 0 })
      #expect(zone.pointer.depotItems == 0)
      withExtendedLifetime(numbers) {}
    }
  }

  @Test("U28: an import function that has nothing left makes allocations fail, and count")
  func cacheZoneExhausted() {
    Rig.use { rig in
      let numbers = Numbers(10)
      let zone = rig.zone("ids", size: 512, keg: nil, hooks: numbers.hooks, flags: .cache)
      let bin = rig.bin()
      let ids = (0..<10).map { _ in bin.allocate(zone) }
      #expect(Set(ids) == Set(1...10))
      #expect(zone.statistics.failures == 0)
      #expect(bin.allocate(zone) == 0)
      #expect(zone.statistics.failures > 0)
      bin.free(ids[3], zone)
      #expect(bin.allocate(zone) == ids[3])
      withExtendedLifetime(numbers) {}
    }
  }
}

/// The identifiers 1 … n, behind an import and a release function.
final class Numbers: @unchecked Sendable {
  private let mutex = Mutex()
  private var free: [UInt]
  private var importCount = 0
  /// Called before a release.
  var whenReleasing: () -> Void = {}

  init(_ count: Int) { free = (1...UInt(count)).reversed() }

  var freeCount: Int { mutex.withLock { Set(free).count } }
  var imports: Int { mutex.withLock { importCount } }

  /// Those of a cache zone over these numbers, which must outlive it.
  var hooks: ZoneHooks {
    var hooks = ZoneHooks()
    hooks.importItems = Numbers.importItems
    hooks.releaseItems = Numbers.releaseItems
    hooks.argument = Unmanaged.passUnretained(self).toOpaque()
    return hooks
  }

  private static var importItems: ItemImport {
    { argument, items, count, _ in
      let numbers = Unmanaged<Numbers>.fromOpaque(argument!).takeUnretainedValue()
      return numbers.mutex.withLock {
        numbers.importCount += 1
        let got = min(Int(count), numbers.free.count)
        for index in 0..<got { items[index] = numbers.free.removeLast() }
        return Int32(got)
      }
    }
  }

  private static var releaseItems: ItemRelease {
    { argument, items, count in
      let numbers = Unmanaged<Numbers>.fromOpaque(argument!).takeUnretainedValue()
      numbers.whenReleasing()
      numbers.mutex.withLock { for index in 0..<Int(count) { numbers.free.append(items[index]) } }
    }
  }
}
