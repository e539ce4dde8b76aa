import Base
import Keg
import Pages
import Testing
import TestSupport

@Suite struct KegTests {
  @Test("items are distinct, a stride apart, aligned, and ascend within a slab")
  func items() {
    Rig.use { rig in
      let keg = rig.keg(size: 100, alignment: 32)
      let layout = keg.layout
      let items = keg.takeAll(Int(layout.itemCount) * 2)
      #expect(layout.stride == 128)
      #expect(items.count == Int(layout.itemCount) * 2)
      #expect(Set(items).count == items.count)
      #expect(items.allSatisfy { $0 % 32 == 0 })
      for half in [items.prefix(items.count / 2), items.suffix(items.count / 2)] {
        #expect(zip(half, half.dropFirst()).allSatisfy { $1 == $0 + 128 })
      }
      #expect(keg.slabCount == 2 && keg.freeCount == 0)
      keg.checkInvariants()
    }
  }

  @Test("U17: of the items 3, 1, 7 of a full slab the next three are 1, 3, 7")
  func lowestFirst() {
    Rig.use { rig in
      let keg = rig.keg(size: 64)
      let items = keg.takeAll(Int(keg.layout.itemCount))
      for index in [3, 1, 7] { keg.give(items[index]) }
      #expect((0..<3).map { _ in keg.takeAll(1)[0] } == [items[1], items[3], items[7]])
    }
  }

  @Test("neighbours given in a row, up or down, across the borders of slabs, are all free again")
  func runs() {
    let seed: UInt64 = 5
    Rig.use { rig in
      var random = SeededGenerator(seed: seed)
      let keg = rig.keg(size: 64)
      let items = keg.takeAll(Int(keg.layout.itemCount) * 5).sorted()
      for round in 0..<40 {
        let runs = stride(from: 0, to: items.count, by: 1 + random.below(600)).map { $0 }
        for (first, next) in zip(runs, runs.dropFirst() + [items.count]) {
          var run = Array(items[first..<next])
          if random.below(2) == 0 { run.reverse() }
          keg.giveAll(run)
          keg.checkInvariants()
        }
        #expect(keg.usedCount == 0, "seed \(seed), round \(round)")
        #expect(keg.takeAll(items.count).sorted() == items)
      }
    }
  }

  @Test("a call that may not grow takes what is there and nothing more (U39)")
  func noGrowth() {
    Rig.use { rig in
      let keg = rig.keg(size: 64)
      var out: UInt = 0
      #expect(withUnsafeMutablePointer(to: &out) { keg.take(1, into: $0, mayGrow: false) } == 0)
      #expect(keg.slabsMade == 0)
      let item = keg.takeAll(1)[0]
      keg.give(item)
      #expect(withUnsafeMutablePointer(to: &out) { keg.take(1, into: $0, mayGrow: false) } == 1)
      #expect(out == item)
    }
  }

  @Test("S19: after 90 % of the items went at random, churn needs fewer slabs than LIFO order")
  func fullestFirst() {
    let seed: UInt64 = 19
    Rig.use { rig in
      var random = SeededGenerator(seed: seed)
      let keg = rig.keg(size: 4096)
      let perSlab = Int(keg.layout.itemCount)
      var live = keg.takeAll(200 * perSlab)
      var lifo = LIFOModel(slabs: 200, perSlab: perSlab)
      var modelLive = (0..<200 * perSlab).map { $0 / perSlab }
      func freeOne() {
        let place = random.below(live.count)
        keg.give(live.remove(at: place))
        lifo.free(modelLive.remove(at: place))
      }
      for _ in 0..<live.count * 9 / 10 { freeOne() }
      for _ in 0..<4000 {
        live.append(keg.takeAll(1)[0])
        modelLive.append(lifo.allocate())
        freeOne()
      }
      keg.checkInvariants()
      let slabs = Int(keg.slabCount)
      #expect(slabs < lifo.slabsInUse * 3 / 4, "seed \(seed)")
      #expect(slabs <= live.count / perSlab * 2, "seed \(seed)")
    }
  }

  @Test(
    "a random walk never hands out an item twice, and every step keeps the invariants",
    arguments: [(1, 16), (2, 64), (3, 1000), (4, 4096), (5, 40_000), (6, 65_536)]
      as [(UInt64, UInt)])
  func walk(seed: UInt64, size: UInt) {
    Rig.use { rig in
      var random = SeededGenerator(seed: seed)
      let keg = rig.keg(size: size)
      // Item to what was stored in it.
      var live: [UInt: UInt] = [:]
      var order: [UInt] = []
      for step in 0..<400 {
        switch random.below(10) {
        case 0..<5:
          for item in keg.takeAll(random.below(size > 5000 ? 20 : 200)) {
            if live.updateValue(UInt(step), forKey: item) != nil {
              Issue.record("seed \(seed), step \(step): \(item) handed out twice")
              return
            }
            item.word = UInt(step)
            order.append(item)
          }
        case 5..<9:
          var gone: [UInt] = []
          for _ in 0..<min(order.count, random.below(200)) {
            let place = random.below(order.count)
            order.swapAt(place, order.count - 1)
            let item = order.removeLast()
            if item.word != live.removeValue(forKey: item) {
              Issue.record("seed \(seed), step \(step): \(item) was written to")
              return
            }
            gone.append(item)
          }
          keg.giveAll(gone)
        default:
          keg.drain()
        }
        keg.checkInvariants()
        rig.heap.checkInvariants()
        if keg.usedCount != UInt(live.count) || keg.itemCount != keg.usedCount + keg.freeCount {
          Issue.record("seed \(seed), step \(step): \(keg.usedCount) used, \(live.count) live")
          return
        }
      }
      keg.giveAll(order)
      keg.drain()
      #expect(keg.slabCount == 0)
      #expect(rig.heap.inUseBytes == 0)
      #expect(rig.heap.headersInUse == 0)
      #expect(rig.pages.violations == [])
    }
  }

  @Test("state says of any address in a slab whether it is a used item, a free one, or neither")
  func states() {
    Rig.use { rig in
      let keg = rig.keg(size: 100, alignment: 16)
      let items = keg.takeAll(5)
      keg.give(items[2])
      let map = rig.heap.pageMap(for: items[0])!
      guard case .slab(let slab) = map.owner(at: map.index(of: items[0])) else {
        Issue.record("no slab")
        return
      }
      let tail = items[0] + keg.layout.itemCount * keg.layout.stride
      #expect(keg.state(of: items[1], in: slab) == .used)
      #expect(keg.state(of: items[2], in: slab) == .free)
      #expect(keg.state(of: items[4] + keg.layout.stride, in: slab) == .free)
      #expect(keg.state(of: items[1] + 1, in: slab) == .interior)
      #expect(keg.state(of: items[2] + 16, in: slab) == .interior)
      #expect(keg.state(of: tail, in: slab) == .interior)
    }
  }
}

/// Slabs of a keg that takes from the slab an item was last freed to.
private struct LIFOModel {
  private var used: [Int]
  private let perSlab: Int
  /// Slabs with free items, the latest last.
  private var partial: [Int] = []

  init(slabs: Int, perSlab: Int) {
    used = [Int](repeating: perSlab, count: slabs)
    self.perSlab = perSlab
  }

  var slabsInUse: Int { used.count { $0 > 0 } }

  mutating func free(_ slab: Int) {
    used[slab] -= 1
    if let place = partial.firstIndex(of: slab) { partial.remove(at: place) }
    partial.append(slab)
  }

  mutating func allocate() -> Int {
    let slab = partial.last!
    used[slab] += 1
    if used[slab] == perSlab { partial.removeLast() }
    return slab
  }
}
