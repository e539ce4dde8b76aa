import Base
import Keg
import Testing
import TestSupport
import Vmem

/// A slab without a keg: 64-byte items at base 0x1_0000.
private struct TestSlab {
  let slab: UnsafeMutablePointer<Slab>
  let itemCount: UInt
  static let base: UInt = 0x1_0000
  static let stride: UInt = 64

  init(itemCount: UInt) {
    let bytes = Int(Slab.headerBytes + (itemCount + 63) / 64 * 8)
    let memory = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 64)
    let nowhere = UInt(0x1000)
    slab = UInt(bitPattern: memory).pointer(to: Slab.self)
    slab.initialize(
      to: Slab(
        base: Self.base, keg: nowhere.pointer(to: Keg.self),
        span: nowhere.pointer(to: BoundaryTag.self), itemCount: itemCount))
    slab.markAllFree(itemCount: itemCount)
    self.itemCount = itemCount
  }

  /// Indices taken.
  func take(_ count: Int) -> [UInt] {
    var out = [UInt](repeating: 0, count: count + 1)
    let taken = out.withUnsafeMutableBufferPointer {
      slab.take(count, stride: Self.stride, below: $0.baseAddress! + count)
    }
    return out.prefix(count).suffix(taken).reversed().map { ($0 - Self.base) / Self.stride }
  }
  /// The index that was free already, or nil.
  func giveRun(_ index: UInt, _ count: UInt) -> UInt? {
    let freed = slab.give(index, count)
    if freed == nil { slab.pointee.freeCount += UInt32(count) }
    return freed
  }
  func give(_ index: UInt) -> Bool { giveRun(index, 1) == nil }
  var freeCount: UInt32 { slab.pointee.freeCount }
  func check() { slab.checkInvariants(itemCount: itemCount) }
}

@Suite struct SlabTests {
  @Test("the header fits in front of the bitmap")
  func header() {
    #expect(MemoryLayout<Slab>.size <= Int(Slab.headerBytes))
  }

  @Test("a new slab gives all its items, ascending, and then none", arguments: [1, 63, 64, 65, 200, 4096] as [UInt])
  func all(itemCount: UInt) {
    let slab = TestSlab(itemCount: itemCount)
    slab.check()
    #expect(slab.take(Int(itemCount) + 10) == (0..<itemCount).map { $0 })
    #expect(slab.freeCount == 0)
    #expect(slab.take(1) == [])
    slab.check()
  }

  @Test("U17: after freeing items 3, 1, 7 of a full slab the next three are 1, 3, 7")
  func lowestFirst() {
    let slab = TestSlab(itemCount: 128)
    _ = slab.take(128)
    for index in [3, 1, 7] as [UInt] { #expect(slab.give(index)) }
    #expect(slab.take(1) == [1])
    #expect(slab.take(1) == [3])
    #expect(slab.take(1) == [7])
    #expect(slab.take(1) == [])
  }

  @Test("a run of items is given a word at a time, and stops at one that is free")
  func runs() {
    let slab = TestSlab(itemCount: 300)
    _ = slab.take(300)
    #expect(slab.giveRun(60, 140) == nil)
    #expect(slab.freeCount == 140)
    #expect(slab.slab.isFree(60) && slab.slab.isFree(199) && !slab.slab.isFree(200))
    #expect(slab.giveRun(10, 100) == 60)
    slab.check()
    #expect(slab.take(140) == (60..<200).map { $0 })
  }

  @Test("an item that is free already is refused and changes nothing")
  func doubleGive() {
    let slab = TestSlab(itemCount: 70)
    #expect(!slab.give(69))
    #expect(slab.take(70).count == 70)
    #expect(slab.give(66))
    #expect(!slab.give(66))
    #expect(slab.freeCount == 1)
    slab.check()
    #expect(slab.take(70) == [66])
  }

  @Test("a random walk agrees with a sorted set", arguments: [1, 2, 3, 4] as [UInt64])
  func walk(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    let itemCount = UInt([8, 64, 100, 1000][Int(seed - 1)])
    let slab = TestSlab(itemCount: itemCount)
    var free = Set(0..<itemCount)
    for _ in 0..<4000 {
      let step = random.below(5)
      if step < 2 {
        let count = random.below(step == 0 ? 9 : 100)
        let expected = Array(free.sorted().prefix(count))
        let got = slab.take(count)
        if got != expected {
          Issue.record("seed \(seed): took \(got), expected \(expected)")
          return
        }
        free.subtract(expected)
      } else if step == 2 {
        let first = UInt(random.below(Int(itemCount)))
        let run = (first..<itemCount).prefix(1 + random.below(100)).prefix { !free.contains($0) }
        if slab.giveRun(first, UInt(run.count)) != nil {
          Issue.record("seed \(seed): give \(run)")
          return
        }
        free.formUnion(run)
      } else {
        let index = UInt(random.below(Int(itemCount)))
        let wasUsed = !free.contains(index)
        if slab.give(index) != wasUsed {
          Issue.record("seed \(seed): give \(index)")
          return
        }
        free.insert(index)
      }
      slab.check()
      if Int(slab.freeCount) != free.count {
        Issue.record("seed \(seed): \(slab.freeCount) free, expected \(free.count)")
        return
      }
    }
  }
}
