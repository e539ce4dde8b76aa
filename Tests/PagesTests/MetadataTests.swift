import Base
import Pages
import Testing
import TestSupport

/// Metadata of `size` bytes over fake pages.
private func makeMetadata(_ size: UInt) -> UnsafeMutablePointer<Metadata> {
  let source = FakePages.source()
  let start = source.reserve(size)
  let metadata = UnsafeMutablePointer<Metadata>.allocate(capacity: 1)
  metadata.initialize(to: Metadata(start: start, end: start + size, source: source))
  return metadata
}

extension UnsafeMutablePointer where Pointee == Metadata {
  fileprivate var usedBytes: UInt { pointee.usedBytes }
  fileprivate func cut(_ size: UInt, alignment: UInt) -> UInt {
    pointee.lock.lock()
    defer { pointee.lock.unlock() }
    return pointee.cut(size, alignment: alignment)
  }
}

@Suite struct MetadataTests {
  @Test("cuts are consecutive, aligned and zero, committed in steps of 128 KiB")
  func cuts() {
    Rig.use(wanted: 0) { rig in
      let metadata = makeMetadata(1 << 20)
      var last: UInt = 0
      for size in [64, 16, 4096, 128, 65536, 200_000 / 16 * 16] as [UInt] {
        let alignment: UInt = size == 128 ? 128 : 16
        let address = metadata.cut(size, alignment: alignment)
        #expect(address != 0 && address.isMultiple(ofPowerOfTwo: alignment))
        #expect(address >= last)
        #expect(address.word == 0 && (address + size - 8).word == 0)
        (address + size - 8).word = .max
        last = address + size
        let committed = rig.pages.counts.committedBytes
        #expect(committed % (1 << 17) == 0 && committed >= metadata.usedBytes)
      }
      #expect(rig.pages.counts.commit == 2)
      #expect(rig.pages.violations == [])
    }
  }

  @Test("the last byte of the region can be cut, and a further region follows it")
  func end() {
    Rig.use(wanted: 0) { rig in
      let metadata = makeMetadata(3 * 4096)
      #expect(metadata.cut(2 << 20, alignment: 16) == 0)
      #expect(metadata.usedBytes == 0)
      let first = metadata.cut(3 * 4096 - 16, alignment: 16)
      #expect(metadata.cut(16, alignment: 16) == first + 3 * 4096 - 16)
      #expect(rig.pages.counts.committedBytes == 3 * 4096)
      rig.pages.allowReserves(0)
      #expect(metadata.cut(16, alignment: 16) == 0)
      rig.pages.allowReserves(1)
      let second = metadata.cut(32, alignment: 16)
      #expect(second != 0 && second.word == 0)
      // The first page of a further region holds the link.
      let rest: UInt = (1 << 20) - 4096
      #expect(metadata.cut(rest - 32, alignment: 16) == second + 32)
      #expect(metadata.cut(16, alignment: 16) == 0)
      #expect(metadata.usedBytes == 3 * 4096 + rest)
      #expect(rig.pages.violations == [])
    }
  }

  @Test("what was committed ahead is cut without another commit")
  func ahead() {
    Rig.use(wanted: 0) { rig in
      let metadata = makeMetadata(1 << 20)
      metadata.pointee.commitAhead(300_000)
      #expect(rig.pages.counts.committedBytes == 3 << 17)
      metadata.pointee.commitAhead(200_000)
      rig.pages.allowCommits(0)
      #expect(metadata.cut(300_000 / 16 * 16, alignment: 16) != 0)
      // Neither failure nor a wish beyond the end does harm.
      metadata.pointee.commitAhead(2 << 20)
      rig.pages.allowCommits(1)
      metadata.pointee.commitAhead(2 << 20)
      #expect(rig.pages.counts.committedBytes == 1 << 20)
      #expect(rig.pages.violations == [])
    }
  }

  @Test("the reserved rest can be given back; then a further region follows")
  func tail() {
    Rig.use(wanted: 0) { rig in
      let metadata = makeMetadata(1 << 20)
      let first = metadata.cut(64, alignment: 64)
      metadata.pointee.releaseTail()
      #expect(rig.pages.reservedBytes == 1 << 17)
      #expect(first.word == 0)
      #expect(metadata.cut((1 << 17) - 64, alignment: 64) == first + 64)
      #expect(metadata.cut(64, alignment: 64) != 0)
      #expect(rig.pages.reservedBytes == (1 << 17) + (1 << 20))
      #expect(rig.pages.violations == [])
    }
  }

  @Test("a commit that fails is 0 and changes nothing")
  func failure() {
    Rig.use(wanted: 0) { rig in
      let metadata = makeMetadata(1 << 20)
      rig.pages.allowCommits(0)
      #expect(metadata.cut(64, alignment: 64) == 0)
      #expect(metadata.room(for: UInt.self) == nil)
      #expect(metadata.usedBytes == 0)
      rig.pages.allowCommits(1)
      #expect(metadata.cut(64, alignment: 64) != 0)
    }
  }

  @Test("room is aligned to a cache line")
  func room() {
    Rig.use(wanted: 0) { rig in
      let metadata = makeMetadata(1 << 20)
      let first = metadata.room(for: UInt.self)!
      let second = metadata.room(for: UInt.self, count: 9)!
      let third = metadata.room(for: UInt.self)!
      #expect(first.address.isMultiple(ofPowerOfTwo: 64))
      #expect(second.address - first.address == 64)
      #expect(third.address - second.address == 128)
    }
  }
}

@Suite struct PoolTests {
  private func makePool(
    _ metadata: UnsafeMutablePointer<Metadata>, itemBytes: UInt, alignment: UInt = 16
  ) -> UnsafeMutablePointer<Pool> {
    let pool = UnsafeMutablePointer<Pool>.allocate(capacity: 1)
    pool.initialize(
      to: Pool(name: "test", itemBytes: itemBytes, alignment: alignment, metadata: metadata))
    return pool
  }

  @Test("what was given last is taken first, and counts say so")
  func lifo() {
    Rig.use(wanted: 0) { _ in
      let pool = makePool(makeMetadata(1 << 20), itemBytes: 48)
      let items = (0..<10).map { _ in pool.takeItem() }
      #expect(Set(items).count == 10)
      #expect(pool.counts == [10, 0])
      for item in items { pool.giveItem(item) }
      #expect(pool.counts == [0, 10])
      #expect((0..<10).map { _ in pool.takeItem() } == items.reversed())
      #expect(pool.counts == [10, 0])
    }
  }

  @Test(
    "structures are aligned and do not overlap, whatever their size",
    arguments: [(8, 8), (24, 16), (64, 64), (65, 64), (1000, 128), (5000, 64)] as [(UInt, UInt)])
  func alignment(itemBytes: UInt, alignment: UInt) {
    Rig.use(wanted: 0) { _ in
      let pool = makePool(makeMetadata(1 << 20), itemBytes: itemBytes, alignment: alignment)
      let size = pool.itemBytes
      #expect(size >= itemBytes && size % alignment == 0)
      let items = (0..<100).map { _ in pool.takeItem() }.sorted()
      #expect(items[0] != 0)
      #expect(items.allSatisfy { $0.isMultiple(ofPowerOfTwo: alignment) })
      #expect(zip(items, items.dropFirst()).allSatisfy { $1 - $0 >= size })
    }
  }

  @Test("without memory take is 0 and counts stay; what is given can be taken still")
  func failure() {
    Rig.use(wanted: 0) { rig in
      let metadata = makeMetadata(1 << 20)
      let pool = makePool(metadata, itemBytes: 4096)
      rig.pages.allowCommits(0)
      #expect(pool.takeItem() == 0)
      #expect(pool.counts == [0, 0])
      rig.pages.allowCommits(1)
      rig.pages.allowReserves(0)
      let item = pool.takeItem()
      while metadata.cut(4096, alignment: 16) != 0 {}
      #expect(pool.takeItem() == 0)
      pool.giveItem(item)
      #expect(pool.takeItem() == item)
      #expect(pool.counts == [1, 0])
    }
  }

  @Test("four threads that take and give never hold one structure twice")
  func threads() {
    Rig.use(wanted: 0) { rig in
      let pool = Shared(pointer: makePool(makeMetadata(1 << 22), itemBytes: 64))
      rig.inParallel(4) { index in
        var random = SeededGenerator(seed: UInt64(index))
        var held: [UInt] = []
        for _ in 0..<5000 {
          if held.isEmpty || random.below(2) == 0 {
            let item = pool.pointer.takeItem()
            (item + 8).word = UInt(index)
            held.append(item)
          } else {
            let item = held.remove(at: random.below(held.count))
            if (item + 8).word != UInt(index) { die("test: one structure for two threads") }
            pool.pointer.giveItem(item)
          }
        }
        for item in held { pool.pointer.giveItem(item) }
      }
      #expect(pool.pointer.counts[0] == 0)
    }
  }
}

private struct Shared: @unchecked Sendable { let pointer: UnsafeMutablePointer<Pool> }

extension UnsafeMutablePointer where Pointee == Pool {
  fileprivate func takeItem() -> UInt { take() }
  fileprivate func giveItem(_ item: UInt) { give(item) }
  fileprivate var itemBytes: UInt { pointee.itemBytes }
  /// Used and free structures.
  fileprivate var counts: [UInt] { [pointee.usedCount, pointee.freeCount] }
}
