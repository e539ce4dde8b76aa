// ResizePurgeTests.swift: growing and shrinking in place, purging, misuse, fork.

import Base
import Pages
import Testing
import Vmem

@Suite struct ResizePurgeTests {
  let fixture = Fixture()

  @Test("growing takes from the free segments behind, and says what they were")
  func grow() throws {
    let arena = fixture.arena()
    #expect(arena.addSpan(0, 100))
    let first = try #require(arena.allocate(10))
    let second = try #require(arena.allocate(10))
    #expect(arena.grow(first, to: 15) == .failed)
    arena.free(second, dirty: true, stamp: 1)
    #expect(arena.grow(first, to: 15) == .dirty)
    #expect(arena.dirtyBytes == 5)
    #expect(arena.grow(first, to: 30) == .dirty, "5 dirty and 10 clean")
    #expect(arena.grow(first, to: 40) == .clean)
    #expect(arena.grow(first, to: 40) == .clean)
    #expect(arena.grow(first, to: 101) == .failed)
    #expect(arena.grow(first, to: 100) == .clean)
    #expect(segments(arena) == [Piece(kind: .busy, start: 0, size: 100)])
    #expect(arena.sizes.inUse == 100)
    arena.checkInvariants()
  }

  @Test("the last segment of a merging arena grows by importing")
  func growImporting() throws {
    let source = CountingSource.make(CountingSource(next: 0, end: 200, grain: 16))
    let arena = fixture.arena(
      mergesSpans: true, importSpan: CountingSource.importSpan, source: source)
    let below = try #require(arena.allocate(10))
    let tag = try #require(arena.allocate(10))
    #expect(tag.pointee.start == 10)
    #expect(arena.grow(tag, to: 100) == .clean)
    #expect(arena.grow(below, to: 11) == .failed)
    #expect(arena.grow(tag, to: 1000) == .failed)
    source.pointee.next = 150
    #expect(arena.grow(tag, to: 120) == .failed, "the import is elsewhere")
    #expect(arena.sizes.spanCount == 2)
    arena.checkInvariants()
  }

  @Test("shrinking gives the tail back")
  func shrink() throws {
    let arena = fixture.arena(quantum: 4)
    #expect(arena.addSpan(0, 100))
    let tag = try #require(arena.allocate(60))
    #expect(!arena.shrink(tag, to: 57, dirty: true, stamp: 1), "rounds up to 60")
    #expect(!arena.shrink(tag, to: 0, dirty: true, stamp: 1))
    #expect(arena.shrink(tag, to: 39, dirty: true, stamp: 1))
    #expect(arena.dirtyBytes == 20 && tag.pointee.size == 40)
    #expect(arena.shrink(tag, to: 20, dirty: true, stamp: 2))
    #expect(
      segments(arena) == [
        Piece(kind: .busy, start: 0, size: 20), Piece(kind: .free, start: 20, size: 40),
        Piece(kind: .free, start: 60, size: 40),
      ])
    arena.checkInvariants()
  }

  @Test("the oldest dirty segment is withdrawn first, in parts if it is long")
  func withdraw() throws {
    let arena = fixture.arena()
    #expect(arena.addSpan(0, 1000))
    let tags = (0..<6).map { _ in arena.allocate(10)! }
    arena.free(tags[4], dirty: true, stamp: 1)
    arena.free(tags[0], dirty: true, stamp: 2)
    arena.free(tags[2], dirty: true, stamp: 3)
    #expect(arena.withdrawDirty(notAfter: 0, atMost: 100) == nil)
    #expect(arena.withdrawDirty(notAfter: 9, atMost: 0) == nil)
    let part = try #require(arena.withdrawDirty(notAfter: 1, atMost: 4))
    #expect(part.pointee.start == 40 && part.pointee.size == 4)
    let rest = try #require(arena.withdrawDirty(notAfter: 1, atMost: 100))
    #expect(rest.pointee.start == 44 && rest.pointee.size == 6)
    #expect(arena.withdrawDirty(notAfter: 1, atMost: 100) == nil)
    #expect(arena.dirtyBytes == 20 && arena.sizes.withdrawn == 10)
    arena.checkInvariants()
    arena.returnPurged(part, clean: true, stamp: 0)
    // The purge failed: still dirty, and aging anew behind all others.
    arena.returnPurged(rest, clean: false, stamp: 7)
    let order = (0..<3).map { _ in
      arena.withdrawDirty(notAfter: 9, atMost: 100)!.pointee.start
    }
    #expect(order == [0, 20, 44])
    arena.checkInvariants()
  }

  @Test("a joined segment has the age of its larger part")
  func joinedAge() throws {
    let arena = fixture.arena()
    #expect(arena.addSpan(0, 200))
    let large = try #require(arena.allocate(100))
    let small = try #require(arena.allocate(10))
    let middle = try #require(arena.allocate(5))
    let other = try #require(arena.allocate(20))
    arena.free(large, dirty: true, stamp: 10)
    arena.free(other, dirty: true, stamp: 20)
    arena.free(small, dirty: true, stamp: 30)
    arena.checkInvariants()
    let old = try #require(arena.withdrawDirty(notAfter: 10, atMost: 500))
    #expect(old.pointee.start == 0 && old.pointee.size == 110)
    arena.free(middle, dirty: true, stamp: 40)
    #expect(arena.withdrawDirty(notAfter: 20, atMost: 500)?.pointee.size == 25)
    arena.checkInvariants()
  }

  @Test("a withdrawn part keeps an imported span from being released")
  func withdrawnSpan() throws {
    let source = CountingSource.make(CountingSource(next: 0, end: 100, grain: 100))
    let arena = fixture.arena(
      importSpan: CountingSource.importSpan, releaseSpan: CountingSource.releaseSpan,
      source: source)
    let first = try #require(arena.allocate(50))
    let second = try #require(arena.allocate(50))
    arena.free(first, dirty: true, stamp: 1)
    let purged = try #require(arena.withdrawDirty(notAfter: 1, atMost: 50))
    arena.free(second, dirty: false, stamp: 0)
    #expect(source.pointee.releases == 0)
    arena.returnPurged(purged, clean: true, stamp: 0)
    #expect(source.pointee.releases == 1 && !source.pointee.releasedDirty)
  }

  @Test("misuse ends the process")
  func misuse() async {
    await #expect(processExitsWith: .signal(6)) {
      let arena = Fixture.immortal().arena()
      _ = arena.addSpan(0, 10)
      let tag = arena.allocate(5)!
      arena.free(tag, dirty: false, stamp: 0)
      arena.free(tag, dirty: false, stamp: 0)
    }
    await #expect(processExitsWith: .signal(6)) {
      let arena = Fixture.immortal().arena(cachedQuanta: 8)
      _ = arena.addSpan(0, 10)
      let tag = arena.allocate(5)!
      arena.free(tag, dirty: false, stamp: 0)
      arena.free(tag, dirty: false, stamp: 0)
    }
    await #expect(processExitsWith: .signal(6)) {
      let arena = Fixture.immortal().arena(hashed: true)
      _ = arena.addSpan(0, 10)
      let address = arena.allocateAddress(5)
      arena.free(address: address, size: 4, dirty: false, stamp: 0)
    }
    await #expect(processExitsWith: .signal(6)) {
      let arena = Fixture.immortal().arena(hashed: true)
      arena.free(address: 7, size: 4, dirty: false, stamp: 0)
    }
  }

  @Test("fork locks children before their sources, and the child starts unlocked")
  func fork() {
    let parent = fixture.arena(hashed: true, height: 1, cachedQuanta: 2)
    let child = fixture.arena(
      cachedQuanta: 2, importSpan: Arena.importFromArena, source: parent.raw)
    #expect(parent.addSpan(0, 100))
    child.pointer.lockForFork()
    parent.pointer.lockForFork()
    parent.pointer.unlockAfterFork()
    child.pointer.unlockAfterFork()
    #expect(child.allocate(5) != nil)
    child.pointer.pointee.lock.lock()
    child.pointer.pointee.lock.unlock()
    child.pointer.resetAfterFork()
    #expect(child.allocate(5) != nil)
  }
}
