// ConcurrencyTests.swift: stacked arenas under four threads, for TSan too.

import Base
import Foundation
import Testing
import Vmem

/// Runs `body` on `count` threads at once and waits for all.
private func onThreads(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) {
  let finished = DispatchSemaphore(value: 0)
  for index in 0..<count {
    Thread {
      body(index)
      finished.signal()
    }.start()
  }
  for _ in 0..<count { finished.wait() }
}

@Suite struct ConcurrencyTests {
  let fixture = Fixture()

  /// Every integer has a plain word that only the owner of its segment writes:
  /// an overlap shows as a foreign number, a missing lock as a race.
  @Test("segments are never owned twice, whoever imports, purges, reaps and looks")
  func owners() {
    let parent = fixture.arena(quantum: 64, hashed: true, height: 1)
    #expect(parent.addSpan(0, 8192))
    let child = fixture.arena(
      quantum: 4, hashed: true, cachedQuanta: 4, importSpan: Arena.importFromArena,
      releaseSpan: Arena.releaseToArena, source: parent.raw)
    let owner = UnsafeMutablePointer<Int>.allocate(capacity: 8192)
    owner.initialize(repeating: 0, count: 8192)
    nonisolated(unsafe) let cells = owner
    let seed = UInt64.random(in: 0 ... .max)
    print("seed \(seed)")
    onThreads(4) { index in
      var worker = Worker(arena: child, cells: cells, id: index + 1, seed: seed &+ UInt64(index))
      for round in 0..<4000 {
        worker.step()
        if round % 64 == index { maintain(child, parent, UInt64(round)) }
      }
      worker.finish()
    }
    _ = child.reap()
    child.checkInvariants()
    parent.checkInvariants()
    #expect(child.sizes.inUse == 0 && child.sizes.total == 0)
    #expect(parent.sizes.inUse == 0)
    owner.deallocate()
  }

  @Test("four threads on one growing arena lose nothing")
  func growth() {
    let parent = fixture.arena(quantum: 256, hashed: true, height: 1)
    #expect(parent.addSpan(0, 1 << 20))
    let arena = fixture.arena(
      quantum: 4, mergesSpans: true, importSpan: Arena.importFromArena, source: parent.raw)
    onThreads(4) { index in
      var tags: [TagPointer] = []
      for round in 0..<2000 {
        if let tag = arena.allocate(UInt(4 + (round * 7 + index) % 60)) { tags.append(tag) }
        if round % 3 == 0, let tag = tags.last {
          _ = arena.grow(tag, to: tag.pointee.size + 16)
          _ = arena.shrink(tag, to: 4, dirty: true, stamp: UInt64(round))
        }
        if round % 2 == 0, let tag = tags.popLast() {
          arena.free(tag, dirty: round % 4 == 0, stamp: UInt64(round))
        }
      }
      for tag in tags { arena.free(tag, dirty: false, stamp: 0) }
    }
    arena.checkInvariants()
    #expect(arena.sizes.inUse == 0)
    #expect(arena.sizes.total == parent.sizes.inUse)
  }
}

private func maintain(_ child: TestArena, _ parent: TestArena, _ time: UInt64) {
  if let tag = child.withdrawDirty(notAfter: time, atMost: 16) {
    child.returnPurged(tag, clean: true, stamp: time)
  }
  _ = child.reap()
  _ = child.rehash()
  _ = parent.rehash()
  _ = child.sizes
  _ = child.whatIs(UInt(time))
  child.checkInvariants()
  parent.checkInvariants()
}

private struct Worker {
  let arena: TestArena
  let cells: UnsafeMutablePointer<Int>
  let id: Int
  var generator: SeededGenerator
  var tags: [TagPointer] = []
  var addresses: [(start: UInt, size: UInt)] = []

  init(arena: TestArena, cells: UnsafeMutablePointer<Int>, id: Int, seed: UInt64) {
    self.arena = arena
    self.cells = cells
    self.id = id
    generator = SeededGenerator(seed: seed)
  }

  func own(_ start: UInt, _ size: UInt) {
    for cell in Int(start)..<Int(start + size) {
      if cells[cell] != 0 { die("test: segment owned twice") }
      cells[cell] = id
    }
  }

  func disown(_ start: UInt, _ size: UInt) {
    for cell in Int(start)..<Int(start + size) {
      if cells[cell] != id { die("test: segment owned by another") }
      cells[cell] = 0
    }
  }

  mutating func step() {
    let random = generator.next()
    let size = UInt(random >> 8) % 40 + 1
    switch random % 8 {
    case 0...2:
      if let tag = arena.allocate(size) {
        own(tag.pointee.start, tag.pointee.size)
        tags.append(tag)
      }
    case 3:
      let start = arena.allocateAddress(size)
      if start != Arena.none {
        own(start, size)
        addresses.append((start, size))
      }
    case 4:
      if let tag = arena.allocate(size, alignment: 32) {
        own(tag.pointee.start, tag.pointee.size)
        tags.append(tag)
      }
    case 5...6: freeTag()
    default: freeAddress()
    }
    while tags.count > 20 { freeTag() }
    while addresses.count > 10 { freeAddress() }
  }

  mutating func freeTag() {
    guard let tag = tags.popLast() else { return }
    disown(tag.pointee.start, tag.pointee.size)
    arena.free(tag, dirty: generator.next() % 2 == 0, stamp: 1)
  }

  mutating func freeAddress() {
    guard let (start, size) = addresses.popLast() else { return }
    disown(start, size)
    arena.free(address: start, size: size, dirty: generator.next() % 2 == 0, stamp: 1)
  }

  mutating func finish() {
    while !tags.isEmpty { freeTag() }
    while !addresses.isEmpty { freeAddress() }
  }
}
