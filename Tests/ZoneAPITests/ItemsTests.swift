import Base
import Glibc
import Synchronization
import TestSupport
import Testing

@testable import ZoneAPI

private let constructed = Atomic<Int>(0)
private let destroyed = Atomic<Int>(0)
private let initialised = Atomic<Int>(0)
private let finished = Atomic<Int>(0)

@Suite struct ItemsTests {
  @Test("U05–U07: four threads on one zone, items of all kinds of slabs", arguments: [24, 512, 8192, 100_000] as [UInt])
  func threads(size: UInt) {
    let zone = TestZone("threads", size: size)
    inThreads(4) { index in
      for round in 0..<(size > 1000 ? 40 : 200) {
        useItems(of: zone, 1 + round * 7 % 90, mark: UInt(index * 1000 + round))
      }
    }
    #expect(zone.figures.inArrays == 0, "the threads have ended")
    zone.end()
  }

  @Test("an item that one thread frees is whole when another gets it")
  func handedOn() {
    let zone = TestZone("handed", size: 64)
    let handed = Collected<UInt>()
    inThreads(4) { index in
      for round in 0..<300 {
        for _ in 0..<10 {
          let item = zone.take()
          item.word = UInt(round)
          handed.append(item)
        }
        for item in handed.removeAll() {
          if item.word >= 300 { die("test: an item of nobody's") }
          item.word = 300
          zone.give(item)
        }
      }
    }
    for item in handed.removeAll() { zone.give(item) }
    zone.end()
  }

  @Test("U03: constructor and destructor for each, init and fini once an item, on four threads")
  func functions() {
    let zone = TestZone("functions", size: 40) {
      $0.constructor = { item, size, _, _ in
        constructed.wrappingAdd(1, ordering: .relaxed)
        return UInt(bitPattern: item).word == 7 && size == 40 ? 0 : 1
      }
      $0.destructor = { item, _, _ in
        destroyed.wrappingAdd(1, ordering: .relaxed)
        UInt(bitPattern: item).word = 7
      }
      $0.itemInit = { item, _, _ in
        initialised.wrappingAdd(1, ordering: .relaxed)
        UInt(bitPattern: item).word = 7
        return 0
      }
      $0.itemFini = { item, _ in
        if UInt(bitPattern: item).word != 7 { die("test: fini of a live item") }
        finished.wrappingAdd(1, ordering: .relaxed)
      }
    }
    inThreads(4) { index in
      for _ in 0..<100 { useItems(of: zone, 60, mark: UInt(index)) }
    }
    #expect(constructed.load(ordering: .relaxed) == 24_000)
    #expect(destroyed.load(ordering: .relaxed) == 24_000)
    zone.end()
    #expect(initialised.load(ordering: .relaxed) > 0)
    #expect(initialised.load(ordering: .relaxed) == finished.load(ordering: .relaxed))
  }

  @Test("S08, S09, S12: bulk calls, prefilled arrays and sheaves of four threads")
  func guarantees() {
    let zone = TestZone("guarantees", size: 128)
    inThreads(4) { index in
      var items = [UInt](repeating: 0, count: 100)
      for round in 0..<100 {
        items.withUnsafeMutableBufferPointer { buffer in
          let got = keg_zone_alloc_bulk(zone.pointer, buffer.baseAddress, 100, AllocFlags.noWait)
          if got != 100 { die("test: no items") }
          for item in buffer { item.word = UInt(index) }
          for item in buffer where item.word != UInt(index) { die("test: given twice") }
          keg_zone_free_bulk(zone.pointer, buffer.baseAddress, 100)
        }
        if keg_prefill(zone.pointer, UInt(1 + round % 254)) != 0 { die("test: no prefill") }
        guard let sheaf = keg_sheaf_alloc(zone.pointer, 20, AllocFlags.noWait) else {
          die("test: no sheaf")
        }
        for _ in 0..<10 {
          let item = UInt(bitPattern: keg_sheaf_take(sheaf))
          item.word = UInt(index)
          zone.give(item)
        }
        if keg_sheaf_refill(sheaf, 15, AllocFlags.noWait) != 0 { die("test: no refill") }
        keg_sheaf_return(sheaf)
      }
    }
    zone.end()
  }

  @Test("U27: of two threads one sees the last reference, and the counter outlives the item")
  func counters() {
    let zone = TestZone("counted", size: 256) { $0.flags = HandleFlags.counted.rawValue }
    let barrier = Barrier(2)
    let last = Collected<Int>()
    let item = Collected<UInt>()
    inThreads(2) { index in
      for _ in 0..<1000 {
        if index == 0 {
          let fresh = zone.take()
          counter(of: fresh, zone).pointee.store(2, ordering: .relaxed)
          item.append(fresh)
        }
        barrier.wait()
        let mine = item.values[0]
        let counter = counter(of: mine, zone)
        if counter.pointee.wrappingSubtract(1, ordering: .acquiringAndReleasing).newValue == 0 {
          last.append(index)
          zone.give(mine)
        }
        barrier.wait()
        if counter.pointee.load(ordering: .relaxed) != 0 { die("test: a counter went with its item") }
        if index == 0 { _ = item.removeAll() }
        barrier.wait()
      }
    }
    #expect(last.values.count == 1000)
    zone.end()
  }

  private func counter(of item: UInt, _ zone: TestZone) -> UnsafeMutablePointer<Atomic<UInt32>> {
    let place = keg_refcnt(zone.pointer, UnsafeMutableRawPointer(bitPattern: item))
    return UInt(bitPattern: place).pointer(to: Atomic<UInt32>.self)
  }
}
