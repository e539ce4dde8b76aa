// LeakScanTests.swift: the leak scan over memory made by the tests: which items are
// found, reached, and what the lost ones are to each other; and the same against a
// plain model with random graphs.

import Base
import Pages
import Testing

@testable import Leaks

/// Items in one piece of memory; `words(i)` are the contents of item i.
final class LeakWorld {
  let memory: UnsafeMutablePointer<UInt>
  private var next = 0
  private(set) var items: [LeakItem] = []
  private var scratch = LeakScratch(source: .kernel())
  private var blocks = LeakBlocks(source: .kernel())

  init(words: Int = 1 << 16) {
    memory = .allocate(capacity: words)
    memory.initialize(repeating: 0, count: words)
  }

  // Nothing is given back: a scan may outlive the last use of its world.

  /// An item of `size` bytes, `gap` words after the one before.
  func make(_ size: Int, gap: Int = 2) -> Int {
    next += gap
    items.append(LeakItem(start: (memory + next).address, size: UInt(size)))
    next += (size + 7) / 8
    return items.count - 1
  }

  func words(_ item: Int) -> UnsafeMutablePointer<UInt> { items[item].start.pointer(to: UInt.self) }

  func link(_ from: Int, _ word: Int, to target: Int, offset: UInt = 0) {
    words(from)[word] = items[target].start + offset
  }

  static let plainReader: LeakReader = { to, from, count in
    to.update(from: from.pointer(to: UInt.self), count: count)
    return count
  }

  /// A scan over the items, which come in the order that `order` says.
  func scan(order: [Int]? = nil, read: @escaping LeakReader = plainReader) -> LeakScan {
    var table = LeakItems(scratch: &scratch)!
    let order = order ?? Array(items.indices)
    for i in order { table.announce(items[i].start, items[i].size, blocks: &blocks) }
    let hasRoom = table.makeRoom(scratch: &scratch)
    #expect(hasRoom)
    for i in order { table.place(items[i].start, items[i].size) }
    return LeakScan(items: table, read: read, scratch: &scratch)!
  }

  func classify(_ scan: inout LeakScan) { scan.classify(scratch: &scratch) }

  /// The kind of each item, in the order they were made.
  func kinds(_ scan: borrowing LeakScan) -> [LeakKind] {
    items.map { scan.kind(scan.items.find($0.start)) }
  }
}

@Suite("Leak items")
struct LeakItemsTests {
  @Test("a word finds the item it points into, at every byte")
  func find() {
    let world = LeakWorld()
    for i in 0..<200 { _ = world.make(i % 70, gap: 1 + i % 3) }
    let scan = world.scan(order: Array((0..<200).shuffled()))
    for item in world.items {
      let index = scan.items.find(item.start)
      #expect(index >= 0 && scan.items.items[index].start == item.start)
      for offset in 0..<item.size { #expect(scan.items.find(item.start + offset) == index) }
      #expect(scan.items.find(item.end) != index)
      #expect(scan.items.find(item.start - 1) != index)
    }
    #expect(scan.items.find(0) < 0 && scan.items.find(.max) < 0)
  }

  @Test("no items: no word finds any")
  func none() {
    var scan = LeakWorld().scan()
    scan.reach(word: 1 << 40, .reachable)
    #expect(scan.items.find(0) < 0 && scan.items.find(1 << 46) < 0 && scan.items.count == 0)
  }

  @Test("an item across gigabytes is found from any of them")
  func wide() {
    var scratch = LeakScratch(source: .kernel())
    var blocks = LeakBlocks(source: .kernel())
    defer {
      scratch.releaseAll()
      blocks.releaseAll()
    }
    var items = LeakItems(scratch: &scratch)!
    let list: [(UInt, UInt)] = [
      (0x10_0000_0000, 16), (0x10_0000_0100, 5 << 30), (0x20_0000_0000, 1), (0x7F00_0000_0000, 64),
    ]
    for (start, size) in list { items.announce(start, size, blocks: &blocks) }
    let hasRoom = items.makeRoom(scratch: &scratch)
    #expect(hasRoom)
    for (start, size) in list.reversed() { items.place(start, size) }
    #expect(items.find(0x10_0000_000F) == 0 && items.find(0x10_0000_0010) == -1)
    for gib in 0..<5 as Range<UInt> { #expect(items.find(0x10_0000_0200 + gib << 30) == 1) }
    #expect(items.find(0x10_0000_0100 + 5 << 30) == -1)
    #expect(items.find(0x20_0000_0000) == 2 && items.find(0x20_0000_0001) == -1)
    #expect(items.find(0x7F00_0000_003F) == 3 && items.find(0x7F00_0000_0040) == -1)
  }
}

@Suite("Leak scan")
struct LeakScanTests {
  @Test("a chain from a root is reached, by interior pointers too")
  func chain() {
    let world = LeakWorld()
    for _ in 0..<4 { _ = world.make(40) }
    world.link(0, 1, to: 1, offset: 39)
    world.link(1, 4, to: 2, offset: 0)
    var scan = world.scan()
    scan.reach(word: world.items[0].start + 8, .reachable)
    world.classify(&scan)
    #expect(world.kinds(scan) == [.reachable, .reachable, .reachable, .definite])
  }

  @Test("only whole aligned words inside the size count")
  func edges() {
    let world = LeakWorld()
    let holder = world.make(20)
    let odd = world.make(24)
    let beyond = world.make(24)
    // The third word of `holder` is cut by its size.
    world.link(holder, 2, to: beyond)
    (UnsafeMutableRawPointer(world.words(holder)) + 4).storeBytes(
      of: world.items[odd].start, as: UInt.self)
    var scan = world.scan()
    scan.reach(word: world.items[holder].start, .reachable)
    #expect(world.kinds(scan) == [.reachable, .lost, .lost])
  }

  @Test("the strongest kind of root wins, and passes on")
  func kinds() {
    let world = LeakWorld()
    for _ in 0..<4 { _ = world.make(16) }
    world.link(0, 0, to: 1)
    world.link(2, 0, to: 1)
    world.link(2, 1, to: 3)
    var scan = world.scan()
    scan.reach(word: world.items[0].start, .reachable)
    scan.reach(word: world.items[2].start, .stack)
    #expect(world.kinds(scan) == [.reachable, .reachable, .stack, .stack])
  }

  @Test("a list lost by its head; a ring; a ring with a tail; an item that holds itself")
  func lost() {
    let world = LeakWorld()
    let list = (0..<3).map { _ in world.make(32) }
    let ring = (0..<3).map { _ in world.make(32) }
    let tail = (0..<2).map { _ in world.make(32) }
    let own = world.make(8)
    world.link(list[0], 0, to: list[1])
    world.link(list[1], 0, to: list[2])
    for i in 0..<3 { world.link(ring[i], 0, to: ring[(i + 1) % 3]) }
    world.link(ring[1], 2, to: tail[0])
    world.link(tail[0], 0, to: tail[1])
    world.link(own, 0, to: own)
    var scan = world.scan()
    world.classify(&scan)
    #expect(
      world.kinds(scan) == [
        .definite, .indirect, .indirect, .cycle, .cycle, .cycle, .indirect, .indirect, .definite,
      ])
  }

  @Test("a ring under a definite leak is indirect")
  func ringBelow() {
    let world = LeakWorld()
    for _ in 0..<3 { _ = world.make(16) }
    world.link(0, 0, to: 1)
    world.link(1, 0, to: 2)
    world.link(2, 0, to: 1)
    var scan = world.scan()
    world.classify(&scan)
    #expect(world.kinds(scan) == [.definite, .indirect, .indirect])
  }

  @Test("a list of thirty thousand, and a ring of as many, need no deep stack")
  func long() {
    for closes in [false, true] {
      let world = LeakWorld(words: 1 << 18)
      for _ in 0..<30000 { _ = world.make(16) }
      for i in 0..<29999 { world.link(i, 0, to: i + 1) }
      if closes { world.link(29999, 0, to: 0) }
      var scan = world.scan()
      world.classify(&scan)
      let kinds = world.kinds(scan)
      #expect(kinds[0] == (closes ? .cycle : .definite))
      #expect(kinds.dropFirst().allSatisfy { $0 == (closes ? .cycle : .indirect) })
    }
  }

  @Test("what cannot be read holds nothing, the page after it does")
  func unreadable() {
    let world = LeakWorld()
    let big = world.make(3 * 4096)
    let first = world.make(16)
    let second = world.make(16)
    world.link(big, 1, to: first)
    world.link(big, 1500, to: second)
    // A reader that cannot read the page that the first item begins in: it knows it by
    // the first word of the item, which says so.
    world.words(big)[0] = 0xDEAD
    var scan = world.scan(read: { to, from, count in
      if from.word == 0xDEAD { return 0 }
      return LeakWorld.plainReader(to, from, count)
    })
    scan.reach(word: world.items[big].start, .reachable)
    #expect(world.kinds(scan) == [.reachable, .lost, .reachable])
  }

  @Test("random graphs give what a plain search gives", arguments: 0..<40)
  func model(seed: Int) {
    var random = SplitMix(state: UInt64(seed) &* 7919 &+ 1)
    let world = LeakWorld()
    let count = 20 + Int(random.next() % 180)
    for _ in 0..<count { _ = world.make(8 * (1 + Int(random.next() % 6)), gap: 1) }
    var edges = [[Int]](repeating: [], count: count)
    for _ in 0..<(count / 2 + Int(random.next() % UInt64(count))) {
      let from = Int(random.next() % UInt64(count)), to = Int(random.next() % UInt64(count))
      let word = Int(random.next() % (UInt64(world.items[from].size) / 8))
      world.link(from, word, to: to, offset: random.next() % 2 == 0 ? 0 : 3)
    }
    for i in 0..<count {
      edges[i] = (0..<Int(world.items[i].size / 8)).compactMap { word in
        let value = world.words(i)[word]
        return world.items.firstIndex { value >= $0.start && value < $0.end }
      }
    }
    let roots = (0..<(count / 20)).map { _ in Int(random.next() % UInt64(count)) }
    var scan = world.scan()
    for root in roots { scan.reach(word: world.items[root].start, .reachable) }
    world.classify(&scan)

    func reached(from starts: [Int], within allowed: Set<Int>) -> Set<Int> {
      var seen = Set<Int>(), left = starts.flatMap { edges[$0] }
      while let next = left.popLast() {
        if allowed.contains(next), seen.insert(next).inserted { left += edges[next] }
      }
      return seen
    }
    let all = Set(0..<count)
    let held = reached(from: roots, within: all).union(roots)
    let lost = all.subtracting(held)
    let pointedAt = Set(lost.flatMap { from in edges[from].filter { $0 != from } })
    let definite = lost.subtracting(pointedAt)
    let indirect = reached(from: Array(definite), within: lost).subtracting(definite)
    let rest = lost.subtracting(definite).subtracting(indirect)
    let cycle = rest.filter { item in
      edges[item].contains { $0 != item && rest.contains($0)
        && ($0 == item || reached(from: [$0], within: rest).contains(item)) }
    }
    let expected = (0..<count).map { i -> LeakKind in
      held.contains(i) ? .reachable
        : definite.contains(i) ? .definite
        : cycle.contains(i) ? .cycle : .indirect
    }
    #expect(world.kinds(scan) == expected, "seed \(seed)")
  }
}

struct SplitMix {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}
