// RegressionTests.swift: the bugs that UMA's history tells of, by number.
//
//   1  destroy races with the timer       PreloadTests/ZoneAPITests `churn`
//   2  bucket structs lost at destroy     below; ZoneAPITests `churn`
//   3  unused slab stays partial          below
//   4  statistics of absent caches        StatsTests/RegressionTests
//   5  negative USED after a drain        StatsTests/RegressionTests
//   6  array one too short                arrays of bins are Malloc's; PreloadTests
//   7  no item in a slab                  below
//   8  table grown under the lock         below; the arena's hash: VmemTests
//   9  lost race leaks a table            there is one grower, its lock is held; VmemTests
//  10  free never reuses a bucket         below
//  11  an empty bucket is handed out      below
//  12  no debug check without dtor        the debug library checks at the call, not in a ctor or dtor
//  13  debug check after the dtor         as 12
//  14  zero lost for cached items         PreloadTests: calloc; ZoneAPITests `zero`
//  15  blocking at the limit fails        LimitTests; PreloadTests/ZoneAPITests `waiters`, `fifo`
//  16  one address twice, pages leaked    below
//  17  lock held over the back end        below
//  18  boot pages left unused             below
//  19  reference count after its slab     PreloadTests/ZoneAPITests `refcnt`
//  20  natural alignment                  below
//  21  wrong lookup at destroy            below
//  22  INTERNAL zone asked for a cache    below

import Base
import Keg
import Pages
import Testing
import TestSupport
import Zone

@Suite struct RegressionTests {
  @Test("2: after flush and drain all buckets are in their pools but the few a depot keeps")
  func bucketStructs() {
    Rig.use { rig in
      let zone = rig.zone(size: 512)
      for _ in 0..<10 { rig.fillDepot(of: zone, 1000) }
      zone.reclaim(.drain)
      #expect(rig.bucketsInUse <= 4)
      // And they do not add up.
      for _ in 0..<10 {
        rig.fillDepot(of: zone, 1000)
        zone.reclaim(.drainCPU)
      }
      #expect(rig.bucketsInUse <= 4)
    }
  }

  @Test("3: a slab that was made and never used is free, and goes with a drain")
  func unusedSlab() {
    Rig.use { rig in
      let keg = Shared(rig.keg(size: 4096))
      let barrier = Barrier(8)
      rig.inParallel(8) { _ in
        barrier.wait()
        // One item each: most threads' slabs are surplus.
        keg.pointer.give(keg.pointer.takeAll(1)[0])
      }
      keg.pointer.drain()
      #expect(keg.pointer.slabCount == 0 && rig.heap.inUseBytes == 0)
      #expect(rig.heap.headersInUse == 0)
    }
  }

  @Test("7: sizes at and just over a chunk, and at the limit, have an item a slab")
  func itemsPerSlab() {
    for chunks in UInt(1)...16 {
      let size = chunks * Chunk.size
      for over in [-16, -1, 0, 1, 16] {
        let wanted = UInt(Int(size) + over)
        if wanted > 16 * Chunk.size { continue }
        #expect(SlabLayout(size: wanted, alignment: 16).itemCount >= 1)
      }
    }
  }

  @Test("8: the table of outside regions grows without losing one")
  func regionTable() {
    Rig.use { rig in
      let outside = UnsafeMutablePointer<OutsideRegions>.allocate(capacity: 1)
      outside.initialize(to: OutsideRegions())
      var regions: [(start: UInt, end: UInt)] = []
      for _ in 0..<70 {
        var actual: UInt = 0
        var isDirty = false
        let start = outside.pointee.make(
          Chunk.size, source: FakePages.source(), metadata: rig.heap.pointee.metadata,
          actual: &actual, isDirty: &isDirty)
        if start == .max { break }
        regions.append((start, start + actual))
      }
      #expect(regions.count == 70)
      for region in regions {
        let tables = outside.pointee.pageMap(for: region.start)?.tables
        #expect(tables != nil && tables! < region.start)
        #expect(outside.pointee.pageMap(for: region.end - 1)?.tables == tables)
        #expect(outside.pointee.pageMap(for: tables!) == nil)
      }
      #expect(rig.pages.violations == [])
      outside.deallocate()
    }
  }

  @Test("10: frees use the buckets that allocations emptied")
  func bucketReuse() {
    Rig.use { rig in
      let zone = rig.zone(size: 512)
      let (producer, consumer) = (rig.bin(), rig.bin())
      var highest: UInt = 0
      for round in 0..<100 {
        for item in (0..<200).map({ _ in producer.allocate(zone) }) { consumer.free(item, zone) }
        if round == 10 { highest = rig.bucketsInUse }
      }
      #expect(rig.bucketsInUse <= highest)
    }
  }

  @Test("11: no empty bucket gets into the depot, whatever the source gives")
  func emptyBuckets() {
    Rig.use { rig in
      let numbers = Numbers(3)
      let zone = rig.zone(size: 512, keg: nil, hooks: numbers.hooks, flags: .cache)
      let bins = (0..<3).map { _ in rig.bin() }
      for bin in bins {
        let ids = (0..<5).map { _ in bin.allocate(zone) }.filter { $0 != 0 }
        for id in ids { bin.free(id, zone) }
        bin.flush(to: zone)
        zone.checkInvariants()
        // Empty buckets both ways.
        bin.flush(to: zone)
        zone.checkInvariants()
      }
      #expect(zone.depotItems == 3)
      withExtendedLifetime(numbers) {}
    }
  }

  @Test("16: threads that allocate spans at once get disjoint ones")
  func spans() {
    Rig.use(wanted: 1 << 26) { rig in
      let spans = spansOfThreads(rig).sorted { $0.lowerBound < $1.lowerBound }
      #expect(spans.count > 100)
      #expect(zip(spans, spans.dropFirst()).allSatisfy { $0.upperBound <= $1.lowerBound })
      #expect(rig.heap.inUseBytes == spans.reduce(0) { $0 + UInt($1.count) })
      rig.heap.checkInvariants()
    }
  }

  private func spansOfThreads(_ rig: Rig) -> [Range<UInt>] {
    let barrier = Barrier(8)
    let taken = Collected<Range<UInt>>()
    rig.inParallel(8) { _ in
      barrier.wait()
      for count in UInt(1)...20 {
        let range = Rig.current.spanRange(count * Chunk.size)
        if !range.isEmpty { taken.append(range) }
      }
    }
    return taken.values
  }

  @Test("16: a span that cannot be had leaks nothing")
  func spanFailure() {
    Rig.use(wanted: 1 << 26) { rig in
      _ = rig.spanRange(1 << 20)
      let inUse = rig.heap.inUseBytes
      let reserved = rig.pages.reservedBytes
      rig.pages.allowCommits(0)
      #expect(rig.spanRange(1 << 27).isEmpty)
      rig.pages.allowCommits(.max)
      #expect(rig.heap.inUseBytes == inUse && rig.pages.reservedBytes == reserved)
      rig.heap.checkInvariants()
    }
  }

  @Test("17: zone and keg lock are free whenever the kernel is asked")
  func locksDropped() {
    Rig.use(wanted: 1 << 22) { rig in
      let zone = rig.zone(size: 4096)
      let keg = zone.pointee.keg!
      let locks = Locks(zone: zone, keg: keg)
      rig.pages.observe {
        // Another thread asks: this one may hold locks of higher rank.
        Parallel.run(1) { _ in locks.look() }
        return locks.held
      }
      for _ in 0..<3 { rig.fillDepot(of: zone, 3000) }
      zone.reclaim(.drain)
      _ = rig.heap.purge(notAfter: .max)
      #expect(rig.pages.counts.commit > 10 && rig.pages.counts.purge > 0)
      #expect(rig.pages.violations == [])
    }
  }

  @Test("18: metadata that was committed is used up before more is")
  func committedMetadata() {
    Rig.use { rig in
      let metadata = rig.heap.pointee.metadata
      let commits = rig.pages.counts.commit
      // The heap made so far is the first commit's: 128 KiB.
      #expect(commits == 1)
      let left = (1 << 17) - metadata.pointee.usedBytes
      for _ in 0..<left / 64 { _ = metadata.room(for: UInt.self) }
      #expect(rig.pages.counts.commit == 1)
      _ = metadata.room(for: UInt.self)
      #expect(rig.pages.counts.commit == 2)
    }
  }

  @Test("20: items of a power of two are aligned to it, all others to the alignment asked for")
  func naturalAlignment() {
    Rig.use { rig in
      for shift in UInt(3)...16 {
        let size: UInt = 1 << shift
        let items = rig.keg(size: size, alignment: 8).takeAll(40)
        #expect(items.count == 40 && items.allSatisfy { $0 % size == 0 })
      }
      for alignment in [16, 64, 4096] as [UInt] {
        let items = rig.keg(size: 5000, alignment: alignment).takeAll(40)
        #expect(items.allSatisfy { $0 % alignment == 0 })
      }
    }
  }

  @Test("21: slabs outside the reservation are found and cleared in their own tables")
  func lookupAtDrain() {
    Rig.use(wanted: 1 << 22) { rig in
      let keg = rig.keg(size: 40_000)
      let items = keg.takeAll(26 * 20)
      #expect(rig.heap.outsideCount > 0)
      // One item stays, so that a region does.
      keg.giveAll(items.dropLast())
      keg.drain()
      _ = rig.heap.purge(notAfter: .max)
      let bins = items.map { item in
        rig.heap.pageMap(for: item).map { $0.bin(at: $0.index(of: item)) } ?? 0
      }
      #expect(bins.last == 32 && bins.count { $0 != 0 } <= Int(keg.layout.itemCount))
      #expect(rig.heap.outsideCount == 1)
    }
  }

  @Test("22: an internal zone has no buckets, and reclaim leaves it alone")
  func internalZone() {
    Rig.use { rig in
      let zone = rig.zone(size: 64, flags: .isInternal)
      let bin = rig.bin()
      let item = bin.allocate(zone)
      bin.free(item, zone)
      for level in [ReclaimLevel.trim, .drain, .drainCPU] { zone.reclaim(level) }
      zone.tick()
      #expect(zone.bucketEntries == 0 && bin.cachedCount == 0 && rig.bucketsInUse == 0)
    }
  }
}

extension Rig {
  /// The addresses of a new span; empty when there is none.
  fileprivate func spanRange(_ size: UInt) -> Range<UInt> {
    guard let span = heap.allocateSpan(size) else { return 0..<0 }
    return span.pointee.start..<span.pointee.start + span.pointee.size
  }
}

/// Two locks, and which of them somebody held when they were looked at last.
private final class Locks: @unchecked Sendable {
  let zone: UnsafeMutablePointer<Zone>
  let keg: UnsafeMutablePointer<Keg>
  var held: String?

  init(zone: UnsafeMutablePointer<Zone>, keg: UnsafeMutablePointer<Keg>) {
    self.zone = zone
    self.keg = keg
  }

  func look() {
    held = nil
    if zone.pointee.lock.tryLock() { zone.pointee.lock.unlock() } else { held = "zone lock held" }
    if keg.pointee.lock.tryLock() { keg.pointee.lock.unlock() } else { held = "keg lock held" }
  }
}
