import Base
import Glibc
import Malloc
import Synchronization
import TestSupport
import Testing

@testable import ZoneAPI

@Suite struct RegistryTests {
  @Test("zones come and go on three threads while a fourth trims and drains what there is")
  func churn() {
    let isDone = Shared(UnsafeMutablePointer<Atomic<Int>>.allocate(capacity: 1))
    isDone.pointer.initialize(to: Atomic(0))
    inThreads(4) { index in
      if index == 0 {
        while isDone.pointer.pointee.load(ordering: .relaxed) < 3 {
          _ = keg_reclaim(1)
          _ = keg_reclaim(2)
          tickZones()
        }
      } else {
        for round in 0..<60 {
          let zone = TestZone("churn", size: 64 + UInt(round % 5) * 300)
          useItems(of: zone, 100, mark: UInt(index))
          if keg_zone_destroy(zone.pointer, 0) != 0 { die("test: items are left") }
        }
        isDone.pointer.pointee.wrappingAdd(1, ordering: .relaxed)
      }
    }
    isDone.pointer.deallocate()
  }

  @Test("U26: two secondary zones on one keg, a thread each")
  func secondary() {
    let primary = TestZone("primary", size: 200)
    let zones = (0..<2).map { _ in
      TestZone("secondary", size: 200) { $0.primary = primary.pointer }
    }
    inThreads(4) { index in
      for _ in 0..<100 { useItems(of: zones[index % 2], 50, mark: UInt(index)) }
    }
    #expect(keg_zone_destroy(primary.pointer, 0) == 16 /* EBUSY */)
    zones.forEach { $0.end() }
    primary.end()
  }

  @Test("U28: four threads on a cache zone, each identifier once")
  func cache() {
    let zone = TestZone("identifiers", size: 1) {
      $0.importItems = { _, items, count, _ in Identifiers.shared.take(items, count) }
      $0.releaseItems = { _, items, count in Identifiers.shared.give(items, count) }
      $0.cacheCapacity = 8
    }
    let held = Shared(UnsafeMutablePointer<Atomic<Bool>>.allocate(capacity: 1001))
    for i in 0...1000 { (held.pointer + i).initialize(to: Atomic(false)) }
    inThreads(4) { _ in
      for _ in 0..<500 {
        let mine = (0..<10).map { _ in zone.tryToTake() }
        for id in mine where held.pointer[Int(id)].exchange(true, ordering: .relaxed) {
          die("test: an identifier was given twice")
        }
        for id in mine {
          held.pointer[Int(id)].store(false, ordering: .relaxed)
          zone.give(id)
        }
      }
    }
    zone.end()
    #expect(Identifiers.shared.freeCount == 1000)
    held.pointer.deallocate()
  }

  @Test("A05, A13: four threads on an arena with quantum caches over another, while a fifth looks")
  func arenas() {
    struct Arena: @unchecked Sendable { let pointer: UnsafeMutableRawPointer? }
    let source = Arena(pointer: keg_arena_create("source", 1 << 20, 1 << 30, 4096, 0))
    let arena = Arena(pointer: keg_arena_create("stacked", 0, 0, 4096, 16 * 4096))
    #expect(keg_arena_set_source(arena.pointer, source.pointer, 1 << 16) == 0)
    inThreads(5) { index in
      if index == 4 {
        for _ in 0..<50 {
          _ = keg_arena_reap(arena.pointer)
          _ = keg_arena_size(arena.pointer, 3)
        }
        return
      }
      var random = SeededGenerator(seed: UInt64(index))
      var mine: [(UInt, UInt)] = []
      for _ in 0..<1000 {
        if mine.count < 20 {
          let size = UInt(1 + random.below(30)) * 4096
          var start: UInt = 0
          if keg_arena_alloc(arena.pointer, size, 0, &start) != 0 { die("test: no room") }
          mine.append((start, size))
        } else {
          let (start, size) = mine.remove(at: random.below(mine.count))
          if keg_arena_free(arena.pointer, start, size) != 0 { die("test: not freed") }
        }
      }
      for (start, size) in mine { _ = keg_arena_free(arena.pointer, start, size) }
    }
    #expect(keg_arena_destroy(arena.pointer, 0) == 0 && keg_arena_destroy(source.pointer, 0) == 0)
  }

  @Test("an arena without segments in use can be destroyed, whoever empties its caches meanwhile")
  func destroyed() {
    let rounds = Shared(UnsafeMutablePointer<Atomic<Int>>.allocate(capacity: 1))
    rounds.pointer.initialize(to: Atomic(0))
    inThreads(2) { index in
      while index == 1, rounds.pointer.pointee.load(ordering: .relaxed) < 300 { _ = keg_reclaim(2) }
      while index == 0, rounds.pointer.pointee.add(1, ordering: .relaxed).oldValue < 300 {
        let arena = keg_arena_create("short", 1 << 20, 1 << 30, 4096, 16 * 4096)
        var starts = (0..<64).map { _ in
          var start: UInt = 0
          if keg_arena_alloc(arena, 4096, 0, &start) != 0 { die("test: no room") }
          return start
        }
        while let start = starts.popLast() { _ = keg_arena_free(arena, start, 4096) }
        if keg_arena_destroy(arena, 0) != 0 { die("test: not destroyed") }
      }
    }
    rounds.pointer.deallocate()
  }
}

/// The identifiers 1 to 1,000.
private final class Identifiers: @unchecked Sendable {
  static let shared = Identifiers()
  private var free = Array((1...1000) as ClosedRange<UInt>)
  private var mutex = pthread_mutex_t()

  var freeCount: Int { free.count }

  func take(_ items: UnsafeMutablePointer<UInt>, _ count: Int32) -> Int32 {
    pthread_mutex_lock(&mutex)
    defer { pthread_mutex_unlock(&mutex) }
    var got = 0
    while got < Int(count), let id = free.popLast() {
      items[got] = id
      got += 1
    }
    return Int32(got)
  }

  func give(_ items: UnsafeMutablePointer<UInt>, _ count: Int32) {
    pthread_mutex_lock(&mutex)
    for i in 0..<Int(count) { free.append(items[i]) }
    pthread_mutex_unlock(&mutex)
  }
}
