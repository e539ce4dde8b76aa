// ArenaTests.swift: one test for every vmem feature, by its id.

import Base
import Pages
import Testing
import Vmem

@Suite struct ArenaTests {
  let fixture = Fixture()

  @Test("A01: identifiers 100...299 are handed out once each")
  func identifiers() {
    let arena = fixture.arena(hashed: true)
    #expect(arena.addSpan(100, 200))
    var seen = Set<UInt>()
    for _ in 0..<200 { seen.insert(arena.allocateAddress(1)) }
    #expect(seen == Set(100...299))
    #expect(arena.allocateAddress(1) == Arena.none)
    arena.free(address: 177, size: 1, dirty: false, stamp: 0)
    #expect(arena.allocateAddress(1) == 177)
    arena.checkInvariants()
  }

  @Test("A01: 0 is a legal start, and the last integer is in no span")
  func zeroIsLegal() {
    let arena = fixture.arena(hashed: true)
    #expect(arena.addSpan(0, 4))
    #expect(arena.allocateAddress(4) == 0)
    #expect(arena.find(address: 0)?.pointee.size == 4)
    arena.free(address: 0, size: 4, dirty: false, stamp: 0)
    #expect(!arena.addSpan(UInt.max - 3, 4))
    #expect(arena.addSpan(UInt.max - 4, 4))
    #expect(!arena.addSpan(2, 4), "overlaps the first")
    #expect(!arena.addSpan(50, 0))
    #expect(arena.allocate(0) == nil)
    #expect(arena.allocate(5) == nil)
    #expect(arena.allocate(UInt.max) == nil)
    arena.checkInvariants()
  }

  @Test("A01: a span may be almost all integers")
  func hugeSpan() throws {
    let arena = fixture.arena(quantum: 1)
    #expect(arena.addSpan(0, UInt.max))
    let half = try #require(arena.allocate((1 << 63) + 1))
    #expect(half.pointee.start == 0)
    #expect(arena.allocate(1 << 63) == nil)
    arena.checkInvariants()
  }

  @Test("A02: spans added in any order are kept by address")
  func spanOrder() {
    let arena = fixture.arena(mergesSpans: true)
    for start: UInt in [50, 10, 30, 70, 20] { #expect(arena.addSpan(start, 10)) }
    #expect(!arena.addSpan(25, 10) && !arena.addSpan(45, 10) && !arena.addSpan(10, 10))
    #expect(
      segments(arena) == [
        Piece(kind: .free, start: 10, size: 20), Piece(kind: .free, start: 30, size: 10),
        Piece(kind: .free, start: 50, size: 10), Piece(kind: .free, start: 70, size: 10),
      ])
    #expect(arena.sizes.spanCount == 4, "20 extended 10; 30 was there before 20")
    arena.checkInvariants()
  }

  @Test("A02: segments cover their span; free neighbours of one kind coalesce")
  func coalescing() throws {
    let arena = fixture.arena(quantum: 4)
    #expect(arena.addSpan(0, 64))
    let tags = try (0..<4).map { _ in try #require(arena.allocate(16)) }
    #expect(tags.map { $0.pointee.start } == [0, 16, 32, 48])
    arena.free(tags[1], dirty: false, stamp: 0)
    arena.free(tags[3], dirty: false, stamp: 0)
    arena.free(tags[2], dirty: true, stamp: 9)
    #expect(
      segments(arena) == [
        Piece(kind: .busy, start: 0, size: 16), Piece(kind: .free, start: 16, size: 16),
        Piece(kind: .free, start: 32, size: 16), Piece(kind: .free, start: 48, size: 16),
      ])
    #expect(arena.dirtyBytes == 16)
    arena.free(tags[0], dirty: false, stamp: 0)
    #expect(segments(arena).count == 3)
    arena.checkInvariants()
    let purged = try #require(arena.withdrawDirty(notAfter: 9, atMost: 64))
    arena.returnPurged(purged, clean: true, stamp: 0)
    #expect(segments(arena) == [Piece(kind: .free, start: 0, size: 64)])
    arena.checkInvariants()
  }

  @Test("A03: instant fit takes from a list whose every member fits")
  func instantFit() throws {
    // Free: 5 quanta at 0, 9 at 100, 32 at 200.
    let arena = fixture.arena()
    #expect(arena.addSpan(0, 5))
    #expect(arena.addSpan(100, 9))
    #expect(arena.addSpan(200, 32))
    // 5 is in list 2, where not every member holds 5: the 9 is the instant fit.
    #expect(try #require(arena.allocate(5)).pointee.start == 100)
    // 6: list 3 is empty now (4 left at 105), so the 32.
    #expect(try #require(arena.allocate(6)).pointee.start == 200)
    arena.checkInvariants()
  }

  @Test("A03: instant fit that fails retries as best fit before it imports")
  func bestFitBeforeImport() throws {
    let source = CountingSource.make(CountingSource(next: 1000, end: 2000, grain: 100))
    let arena = fixture.arena(importSpan: CountingSource.importSpan, source: source)
    #expect(arena.addSpan(0, 7))
    #expect(try #require(arena.allocate(6)).pointee.start == 0)
    #expect(source.pointee.imports == 0)
    #expect(try #require(arena.allocate(6)).pointee.start == 1000)
    #expect(source.pointee.imports == 1)
    let constrained = arena.allocate(1, alignment: 1, fit: .best)
    #expect(try #require(constrained).pointee.start == 6)
    arena.checkInvariants()
  }

  @Test("A03: dirty segments are used first, the smallest that fits")
  func dirtyFirst() throws {
    let arena = fixture.arena()
    #expect(arena.addSpan(0, 1000))
    var tags: [TagPointer] = []
    for size: UInt in [30, 1, 20, 1, 25, 1] { tags.append(arena.allocate(size)!) }
    for index in [0, 2, 4] { arena.free(tags[index], dirty: true, stamp: 1) }
    let tight = try #require(arena.allocate(18))
    #expect(tight.pointee.start == 31 && tight.pointee.isDirty)
    let next = try #require(arena.allocate(25))
    #expect(next.pointee.start == 52 && next.pointee.isDirty)
    let fresh = try #require(arena.allocate(31))
    #expect(fresh.pointee.start == 78 && !fresh.pointee.isDirty)
    arena.checkInvariants()
  }

  @Test("A03: a request is met as long as free neighbours are long enough together")
  func joinedNeighbours() throws {
    let arena = fixture.arena()
    #expect(arena.addSpan(0, 12))
    let tags = (0..<3).map { _ in arena.allocate(4)! }
    for (index, tag) in tags.enumerated() {
      arena.free(tag, dirty: index == 1, stamp: 5)
    }
    let all = try #require(arena.allocate(12))
    #expect(all.pointee.start == 0 && all.pointee.isDirty)
    #expect(arena.dirtyBytes == 0)
    arena.checkInvariants()
  }

  @Test("A04: alignment, phase, nocross, minimum and maximum hold")
  func constraints() throws {
    let arena = fixture.arena()
    #expect(arena.addSpan(3, 1000))
    let aligned = try #require(arena.allocate(10, alignment: 64))
    #expect(aligned.pointee.start == 64)
    let phased = try #require(arena.allocate(10, alignment: 64, phase: 5))
    #expect(phased.pointee.start % 64 == 5)
    let inBlock = try #require(
      arena.allocate(30, alignment: 1, nocross: 32, minimum: 100))
    #expect(inBlock.pointee.start / 32 == (inBlock.pointee.start + 29) / 32)
    let bounded = try #require(arena.allocate(5, alignment: 1, minimum: 500, maximum: 504))
    #expect(bounded.pointee.start == 500)
    #expect(arena.allocate(5, alignment: 1, minimum: 500, maximum: 507) == nil)
    #expect(arena.allocate(5, alignment: 3) == nil, "not a power of two")
    #expect(arena.allocate(5, alignment: 8, phase: 8) == nil)
    #expect(arena.allocate(5, alignment: 1, nocross: 4) == nil)
    #expect(arena.allocate(5, alignment: 1, minimum: 9, maximum: 8) == nil)
    #expect(arena.allocate(5, alignment: 1 << 63) == nil)
    #expect(arena.allocate(5, alignment: 1, minimum: UInt.max) == nil)
    arena.checkInvariants()
  }

  @Test("A04: an alignment imports what it may cost; other constraints do not import")
  func constrainedImport() throws {
    let source = CountingSource.make(CountingSource(next: 1001, end: 9000, grain: 1))
    let arena = fixture.arena(importSpan: CountingSource.importSpan, source: source)
    let tag = try #require(arena.allocate(10, alignment: 64))
    #expect(tag.pointee.start == 1024)
    #expect(source.pointee.imports == 1)
    #expect(arena.allocate(10, alignment: 1, minimum: 2000) == nil)
    #expect(source.pointee.imports == 1)
    arena.checkInvariants()
  }

  @Test("A05: freeing the last block of an imported span releases it once")
  func release() throws {
    let source = CountingSource.make(
      CountingSource(next: 1000, end: 9000, grain: 100, gap: 10))
    let arena = fixture.arena(
      importSpan: CountingSource.importSpan, releaseSpan: CountingSource.releaseSpan,
      source: source)
    #expect(arena.addSpan(0, 10))
    let still = try #require(arena.allocate(10))
    let first = try #require(arena.allocate(60))
    let second = try #require(arena.allocate(40))
    let other = try #require(arena.allocate(100))
    #expect(source.pointee.imports == 2)
    #expect(other.pointee.start == 1110)
    arena.free(first, dirty: true, stamp: 7)
    #expect(source.pointee.releases == 0)
    arena.free(second, dirty: false, stamp: 8)
    #expect(source.pointee.releases == 1)
    #expect(source.pointee.releasedStart == 1000 && source.pointee.releasedSize == 100)
    #expect(source.pointee.releasedDirty && source.pointee.releasedStamp == 7)
    arena.checkInvariants()
    arena.free(still, dirty: false, stamp: 0)
    #expect(source.pointee.releases == 1, "a static span stays")
    arena.free(other, dirty: false, stamp: 0)
    #expect(source.pointee.releases == 2)
    #expect(arena.sizes.total == 10 && arena.sizes.spanCount == 1)
    arena.checkInvariants()
  }

  @Test("A05: an arena is the source of another; zeroes and dirt pass through")
  func stacking() throws {
    let parent = fixture.arena(quantum: 64, hashed: true, height: 1)
    #expect(parent.addSpan(0, 1024))
    let child = fixture.arena(
      quantum: 16, importSpan: Arena.importFromArena, releaseSpan: Arena.releaseToArena,
      source: parent.raw)
    let tag = try #require(child.allocate(16))
    #expect(tag.pointee.start == 0 && !tag.pointee.isDirty)
    #expect(parent.sizes.inUse == 64)
    child.free(tag, dirty: true, stamp: 3)
    #expect(parent.sizes.inUse == 0 && parent.dirtyBytes == 64)
    #expect(child.sizes.total == 0)
    let again = try #require(child.allocate(80))
    #expect(again.pointee.start == 64 && !again.pointee.isDirty, "128 fit only clean")
    let reused = try #require(child.allocate(64))
    #expect(reused.pointee.start == 0 && reused.pointee.isDirty)
    child.checkInvariants()
    parent.checkInvariants()
  }

  @Test("A05: an arena that merges spans has one span however often it imports")
  func merging() throws {
    let source = CountingSource.make(CountingSource(next: 0, end: 4096, grain: 32))
    let arena = fixture.arena(
      mergesSpans: true, importSpan: CountingSource.importSpan,
      releaseSpan: CountingSource.releaseSpan, source: source)
    var tags: [TagPointer] = []
    for _ in 0..<20 { tags.append(try #require(arena.allocate(24))) }
    #expect(tags.map { $0.pointee.start } == (0..<20).map { $0 * 24 })
    #expect(arena.sizes.spanCount == 1)
    for tag in tags { arena.free(tag, dirty: false, stamp: 0) }
    #expect(segments(arena).count == 1)
    #expect(source.pointee.releases == 0, "it never releases")
    arena.checkInvariants()
  }

  @Test("A06: with no memory for metadata frees still succeed")
  func freeWithoutMetadata() throws {
    let arena = fixture.arena(hashed: true)
    #expect(arena.addSpan(0, 100_000))
    var tags: [TagPointer] = []
    for _ in 0..<1000 { tags.append(try #require(arena.allocate(3))) }
    let address = arena.allocateAddress(5)
    fixture.failMetadata()
    // What is in hand is used up, then allocation fails cleanly.
    while let tag = arena.allocate(3) { tags.append(tag) }
    #expect(tags.count < 1020)
    arena.checkInvariants()
    for (index, tag) in tags.enumerated() where index % 2 == 0 {
      arena.free(tag, dirty: index % 4 == 0, stamp: UInt64(index))
    }
    arena.checkInvariants()
    for (index, tag) in tags.enumerated() where index % 2 == 1 {
      arena.free(tag, dirty: false, stamp: 0)
    }
    arena.free(address: address, size: 5, dirty: false, stamp: 0)
    #expect(arena.sizes.inUse == 0)
    while let tag = arena.withdrawDirty(notAfter: .max, atMost: 1) {
      arena.returnPurged(tag, clean: true, stamp: 0)
    }
    arena.checkInvariants()
    #expect(segments(arena) == [Piece(kind: .free, start: 0, size: 100_000)])
    #expect(arena.allocate(3) != nil, "freeing brought tags")
  }

  @Test("A06: a failed import for want of tags changes nothing")
  func importWithoutMetadata() {
    let source = CountingSource.make(CountingSource(next: 0, end: 1 << 20, grain: 1))
    let arena = fixture.arena(
      mergesSpans: true, importSpan: CountingSource.importSpan, source: source)
    fixture.failMetadata()
    #expect(!arena.addSpan(1 << 30, 10))
    #expect(arena.allocate(10) == nil)
    #expect(source.pointee.imports == 0)
    fixture.restoreMetadata()
    #expect(arena.allocate(10) != nil)
    arena.checkInvariants()
  }

  @Test("A07: the hash table follows the number of segments, 1...131,072 buckets")
  func rehash() {
    let arena = fixture.arena(hashed: true)
    #expect(arena.addSpan(0, 40_000))
    #expect(arena.bucketCount == 1)
    for _ in 0..<20_000 { _ = arena.allocateAddress(2) }
    #expect(arena.bucketCount == 16384)
    #expect(arena.rehash())
    for index: UInt in 0..<20_000 {
      arena.free(address: index * 2, size: 2, dirty: false, stamp: 0)
      if index % 1000 == 0 { #expect(arena.rehash()) }
    }
    #expect(arena.rehash())
    #expect(arena.bucketCount == 1)
    #expect(arena.find(address: 0) == nil)
    arena.checkInvariants()
  }

  @Test("A08, A11: tags come from their pool, and all of them are counted")
  func tagAccounting() throws {
    let arena = fixture.arena()
    #expect(arena.addSpan(0, 1 << 20))
    var tags: [TagPointer] = []
    for _ in 0..<500 { tags.append(try #require(arena.allocate(7))) }
    #expect(arena.tagCount == fixture.tags.pointee.usedCount)
    #expect(arena.tagBytes == arena.tagCount * 80)
    let low = fixture.base
    #expect(tags.allSatisfy { $0.address > low && $0.address < low + (64 << 20) })
    for tag in tags { arena.free(tag, dirty: false, stamp: 0) }
    #expect(arena.tagCount == fixture.tags.pointee.usedCount)
    #expect(arena.tagCount <= 18, "one span, one segment, at most 16 in hand")
  }

  @Test("A09: the sizes add up")
  func sizes() throws {
    let arena = fixture.arena(quantum: 16, cachedQuanta: 2)
    #expect(arena.addSpan(0, 1600))
    let small = try #require(arena.allocate(20))
    let large = try #require(arena.allocate(100))
    arena.free(small, dirty: true, stamp: 0)
    let other = try #require(arena.allocate(160))
    arena.free(large, dirty: true, stamp: 1)
    _ = arena.withdrawDirty(notAfter: 1, atMost: 33)
    let sizes = arena.sizes
    #expect(sizes.total == 1600 && sizes.cached == 32 && sizes.withdrawn == 32)
    #expect(sizes.inUse == 32 + other.pointee.size && sizes.dirty == 80)
    #expect(sizes.free + sizes.inUse + sizes.withdrawn == sizes.total)
    arena.checkInvariants()
  }

  @Test("A10: an arena with tags in reserve works without metadata")
  func emergency() throws {
    let arena = fixture.arena()
    #expect(arena.reserveTags(100))
    #expect(arena.addSpan(0, 1 << 20))
    fixture.failMetadata()
    for _ in 0..<90 { _ = try #require(arena.allocate(3)) }
    _ = try #require(arena.allocate(10, alignment: 4096))
    arena.checkInvariants()
  }

  @Test("A12: whatIs knows the segment of every integer")
  func whatIs() throws {
    let arena = fixture.arena(quantum: 4, cachedQuanta: 1)
    #expect(arena.addSpan(100, 40))
    #expect(arena.addSpan(200, 40))
    let first = try #require(arena.allocate(12))
    let second = try #require(arena.allocate(4))
    arena.free(second, dirty: true, stamp: 0)
    let start = first.pointee.start
    let inside = try #require(arena.whatIs(start + 7))
    #expect(inside.kind == .busy && inside.offset == 7 && inside.size == 12)
    let cached = try #require(arena.whatIs(second.pointee.start))
    #expect(cached.isCached && cached.isDirty)
    #expect(try #require(arena.whatIs(239)).kind == .free)
    for outside: UInt in [0, 99, 140, 199, 240, .max] {
      #expect(arena.whatIs(outside) == nil)
    }
  }

  @Test("A13: a loop over one size takes no arena lock")
  func quantumCache() throws {
    let arena = fixture.arena(quantum: 4096, cachedQuanta: 4)
    #expect(arena.addSpan(0, 1 << 20))
    let tag = try #require(arena.allocate(8192))
    arena.free(tag, dirty: true, stamp: 5)
    // Whoever needs the arena's lock now waits for ever.
    arena.pointer.pointee.lock.lock()
    for round in 0..<1000 {
      let again = try #require(arena.allocate(5000))
      #expect(again == tag && again.pointee.payload == 0)
      #expect(again.pointee.isDirty == (round % 2 == 0))
      again.pointee.payload = 42
      arena.free(again, dirty: round % 2 == 1, stamp: 6)
    }
    arena.pointer.pointee.lock.unlock()
    arena.checkInvariants()
  }

  @Test("A13: a cache is bounded")
  func quantumCacheBound() throws {
    let arena = fixture.arena(cachedQuanta: 16)
    #expect(arena.addSpan(0, 10_000))
    for size: UInt in 1...16 {
      let tags = (0..<40).map { _ in arena.allocate(size)! }
      for tag in tags { arena.free(tag, dirty: false, stamp: 0) }
    }
    let bound = (1...16).reduce(0) { $0 + max(2, 16 / $1) * $1 }
    #expect(arena.sizes.cached == UInt(bound))
    arena.checkInvariants()
  }

  @Test("A14: reap drains the caches and says whether there was anything")
  func reap() throws {
    let source = CountingSource.make(CountingSource(next: 0, end: 4096, grain: 64))
    let arena = fixture.arena(
      cachedQuanta: 8, importSpan: CountingSource.importSpan,
      releaseSpan: CountingSource.releaseSpan, source: source)
    let tags = (1...8).map { arena.allocate($0)! }
    for tag in tags { arena.free(tag, dirty: true, stamp: 11) }
    #expect(source.pointee.releases == 0 && arena.sizes.cached == 36)
    #expect(arena.reap())
    #expect(source.pointee.releases == 1 && source.pointee.releasedStamp == 11)
    #expect(arena.sizes.total == 0)
    #expect(!arena.reap())
    arena.checkInvariants()
  }
}
