import Base
import Pages
import Synchronization
import TestSupport
import Testing

@testable import Debug

/// A depot over the kernel's pages, or over pages that run out.
private final class TestDepot: @unchecked Sendable {
  let depot: UnsafeMutablePointer<StackDepot>
  private let chunks: UnsafeMutablePointer<Atomic<UInt>>

  init(source: PageSource = PageSource.kernel()) {
    let count = Int(StackDepot.chunkLimit)
    chunks = .allocate(capacity: count)
    for i in 0..<count { (chunks + i).initialize(to: Atomic(0)) }
    depot = .allocate(capacity: 1)
    depot.initialize(to: StackDepot(chunks: chunks, source: source))
  }

  func store(_ frames: [UInt]) -> StackID {
    frames.withUnsafeBufferPointer { buffer in
      let hash = StackHash.of(buffer.baseAddress!, count: buffer.count)
      let id = depot.pointee.find(hash)
      return id != 0 ? id : depot.pointee.store(hash, buffer.baseAddress!, count: buffer.count)
    }
  }

  func frames(_ id: StackID) -> [UInt] {
    var found: [UInt] = []
    depot.pointee.forEachFrame(id) { found.append($0) }
    return found
  }
}

private func stack(_ number: UInt) -> [UInt] {
  var random = SeededGenerator(seed: UInt64(number))
  return (0..<(1 + Int(random.next() % 24))).map { _ in UInt(random.next() & 0x7FFF_FFFF_FFFF) }
}

@Suite("Stack depot")
struct StackDepotTests {
  @Test("a stack comes back as it was stored, whatever its addresses")
  func roundTrip() {
    let depot = TestDepot()
    let stacks: [[UInt]] = [
      [0x55_5555_1234], [0, .max, 1, .max - 1], [1 << 63, 0, 1 << 63],
      Array(repeating: 0x7FFF_1234_5678, count: 24), [64, 0, 63, 127, 0],
    ]
    let ids = stacks.map(depot.store)
    #expect(Set(ids).count == stacks.count && !ids.contains(0))
    for (id, stack) in zip(ids, stacks) { #expect(depot.frames(id) == stack) }
  }

  @Test("every stack is stored once, also when the table grows")
  func once() {
    let depot = TestDepot()
    let ids = (0..<40_000).map { depot.store(stack($0)) }
    #expect(Set(ids).count == ids.count)
    #expect(depot.depot.pointee.count == 40_000)
    for i in stride(from: 0, to: 40_000, by: 7) {
      #expect(depot.store(stack(UInt(i))) == ids[i])
      #expect(depot.frames(ids[i]) == stack(UInt(i)))
    }
    #expect(depot.depot.pointee.count == 40_000)
  }

  @Test("stacks that go on with another's frames come back whole, over many others and to the limit")
  func rests() {
    let depot = TestDepot()
    func store(_ frames: [UInt], _ hash: UInt64, _ rest: StackRest) -> StackID {
      frames.withUnsafeBufferPointer {
        depot.depot.pointee.store(hash, $0.baseAddress!, count: $0.count, rest: rest)
      }
    }
    var last = (0..<48).map { UInt(0x5555_0000_0000) + UInt($0) * 977 }
    var id = store(last, 1 << 40, StackRest())
    var expected: [(StackID, [UInt])] = [(id, last)]
    var random = SeededGenerator(seed: 11)
    for number in 0..<5_000 {
      // At the least one of its own, and 24 in all, as stacks have them.
      let skip = Int(random.next() % UInt64(last.count - 23))
      let own = (0...Int(random.next() % 3)).map { _ in UInt(random.next() & 0x7FFF_FFFF_FFFF) }
      id = store(own, UInt64(number + 2) &* 0x9E37_79B9_7F4A_7C15, StackRest(id: id, skip: skip))
      last = Array((own + last[skip...]).prefix(60))
      expected.append((id, last))
      #expect(depot.depot.pointee.find(UInt64(number + 2) &* 0x9E37_79B9_7F4A_7C15) == id)
    }
    for (id, stack) in expected {
      for limit in [1, 2, 24] {
        var found: [UInt] = []
        depot.depot.pointee.forEachFrame(id, limit: limit) { found.append($0) }
        #expect(found == Array(stack.prefix(limit)))
      }
    }
    // Two frames of seven bytes at the most, and ten besides.
    #expect(depot.depot.pointee.textBytes < 5_000 * 40 + 1_000)
  }

  @Test("id 0 has no frames")
  func none() { #expect(TestDepot().frames(0).isEmpty) }

  @Test("threads that store the same stacks read back what they stored")
  func threads() async {
    let depot = TestDepot()
    await withTaskGroup(of: Int.self) { group in
      for thread in 0..<4 {
        group.addTask {
          var wrong = 0
          for i in 0..<8_000 {
            let number = UInt((i * 7 + thread * 13) % 3_000)
            if depot.frames(depot.store(stack(number))) != stack(number) { wrong += 1 }
          }
          return wrong
        }
      }
      for await wrong in group { #expect(wrong == 0) }
    }
    // A few may be there twice: one stored them while another grew the table.
    #expect(depot.depot.pointee.count >= 3_000 && depot.depot.pointee.count < 6_000)
  }

  @Test("without memory there are no ids, and later there are")
  func exhausted() throws {
    try Rig.use { rig in
      rig.pages.allowCommits(0)
      let depot = TestDepot(source: FakePages.source())
      #expect(depot.store([1, 2, 3]) == 0)
      rig.pages.allowCommits(.max)
      let id = depot.store([1, 2, 3])
      #expect(id != 0 && depot.frames(id) == [1, 2, 3])
    }
  }
}

@Suite("Stack hash")
struct StackHashTests {
  @Test("the innermost frames alone, from sums over all, hash as they do alone")
  func windows() {
    var random = SeededGenerator(seed: 4)
    for _ in 0..<200 {
      let frames = (0..<60).map { _ in UInt(random.next()) }
      var sums = [UInt](repeating: 0, count: 61)
      for i in (0..<60).reversed() { sums[i] = StackHash.adding(frames[i], to: sums[i + 1]) }
      let (first, count) = (Int(random.next() % 30), 1 + Int(random.next() % 29))
      let window = StackHash.finish(
        sums[first] &- StackHash.power(count) &* sums[first + count])
      #expect(window == Array(frames[first..<first + count]).withUnsafeBufferPointer {
        StackHash.of($0.baseAddress!, count: count)
      })
    }
  }
}
