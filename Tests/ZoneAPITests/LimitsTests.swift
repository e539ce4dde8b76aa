import Base
import Glibc
import Platform
import Synchronization
import TestSupport
import Testing
import Zone

@testable import ZoneAPI

private let live = Atomic<Int>(0)

@Suite struct LimitsTests {
  @Test("U37: eight threads, five items: all finish, never more than five, nobody is forgotten")
  func waiters() {
    let zone = TestZone("waiters", size: 64) { $0.mostItems = 5 }
    inThreads(8) { index in
      for _ in 0..<200 {
        let item = zone.take()
        if live.wrappingAdd(1, ordering: .relaxed).newValue > 5 { die("test: more than the limit") }
        item.word = UInt(index)
        if index % 2 == 0 { sched_yield() }
        if item.word != UInt(index) { die("test: given twice") }
        live.wrappingSubtract(1, ordering: .relaxed)
        zone.give(item)
      }
    }
    #expect(zone.figures.sleepers == 0)
    zone.end()
  }

  @Test("limits come, change and go, set by two threads, while others use the zone (M06)")
  func changes() {
    let zone = TestZone("changes", size: 64)
    let setters = Shared(UnsafeMutablePointer<Atomic<Int>>.allocate(capacity: 1))
    setters.pointer.initialize(to: Atomic(2))
    inThreads(5) { index in
      if index < 2 {
        for round in 0..<300 {
          _ = keg_zone_set_max(zone.pointer, [0, 8, 100, 3][(round + index) % 4])
          usleep(100)
        }
        _ = keg_zone_set_max(zone.pointer, 0)
        setters.pointer.pointee.subtract(1, ordering: .relaxed)
      } else {
        while setters.pointer.pointee.load(ordering: .relaxed) > 0 {
          // One at a time: who sleeps at the limit holds nothing.
          useItems(of: zone, 1, mark: UInt(index))
        }
      }
    }
    setters.pointer.deallocate()
    zone.end()
  }

  @Test("U36: buckets and depot of a limited zone, by UMA's arithmetic", arguments: [1, 3, 10, 100, 2000, 100_000])
  func buckets(most: Int) {
    let zone = TestZone("buckets", size: 64)
    #expect(keg_zone_set_max(zone.pointer, UInt(most)) == UInt(most))
    // All CPUs' two buckets each hold half of the limit together; the depot has the rest.
    let count = 2 * Int(zoneTable.pointee.cpuCount)
    let share = most / count
    let entries = share == 0 ? 0 : min(max(share / 2, 1), 254)
    #expect(zone.handle.pointee.zone.pointee.bucketEntries == entries)
    #expect(zone.handle.pointee.zone.pointee.mostItems == max(most - count * entries, 0))
    zone.end()
  }

  @Test("U38: the warning comes again after 300 seconds, and not before")
  func warning() {
    let zone = TestZone("warned", size: 64) { $0.mostItems = 1 }
    let text = ("this line belongs to a test" as StaticString).utf8Start
    keg_zone_set_warning(zone.pointer, UnsafeRawPointer(text).assumingMemoryBound(to: CChar.self))
    let item = zone.take()
    func refused() -> UInt64 {
      #expect(zone.tryToTake() == 0)
      return zone.handle.pointee.warned.load(ordering: .relaxed)
    }
    let first = refused()
    #expect(first != 0)
    zone.handle.pointee.warned.store(first &- 200_000_000_000, ordering: .relaxed)
    #expect(refused() == first &- 200_000_000_000)
    zone.handle.pointee.warned.store(first &- 300_000_000_000, ordering: .relaxed)
    #expect(refused() >= first)
    zone.give(item)
    zone.end()
  }
}
