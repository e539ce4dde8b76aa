import Base
import Keg
import Pages
import Testing
import TestSupport

/// Making and returning slabs: hooks, NOFREE, drain, memory that runs out.
@Suite struct KegSlabsTests {
  @Test("U03: init is called for every item when its slab is made, fini when it goes")
  func hooks() {
    Rig.use { rig in
      let keg = rig.keg(size: 4096, itemInit: HookLog.itemInit, itemFini: HookLog.itemFini)
      let perSlab = Int(keg.layout.itemCount)
      let items = keg.takeAll(perSlab + 1)
      #expect(rig.hooks.inits.count == 2 * perSlab)
      #expect(rig.hooks.inits.prefix(perSlab) == items.prefix(perSlab))
      // Use and reuse call nothing.
      for item in items { keg.give(item) }
      #expect(keg.slabCount == 1)
      #expect(rig.hooks.finis.count == perSlab)
      _ = keg.takeAll(perSlab).map { keg.give($0) }
      #expect(rig.hooks.inits.count == 2 * perSlab)
      keg.drain()
      #expect(Set(rig.hooks.finis) == Set(rig.hooks.inits))
      #expect(rig.hooks.finis.count == 2 * perSlab)
    }
  }

  @Test("U03: when the fifth init fails the four before are undone in reverse, and no slab remains")
  func initFailure() {
    Rig.use { rig in
      let keg = rig.keg(size: 1024, itemInit: HookLog.itemInit, itemFini: HookLog.itemFini)
      rig.hooks.allowInits(4)
      #expect(keg.takeAll(1) == [])
      #expect(rig.hooks.inits.count == 4)
      #expect(rig.hooks.finis == rig.hooks.inits.reversed())
      #expect(keg.slabCount == 0 && keg.itemCount == 0)
      #expect(rig.heap.inUseBytes == 0 && rig.heap.headersInUse == 0)
      #expect(rig.heap.owner(of: rig.hooks.inits[0]) == .nobody)
      rig.hooks.allowInits(.max)
      #expect(keg.takeAll(1).count == 1)
      keg.checkInvariants()
    }
  }

  @Test("one of many kegs keeps its free slab while that came clean and has few pages")
  func littleTouched() {
    Rig.use { rig in
      // Three a slab, the first of them within what counts as few.
      let keg = rig.keg(size: 20480)
      keg.pointee.policy.smallSlabs = 16
      let few = Int(Slab.fewBytes) / 20480
      keg.giveAll(keg.takeAll(few))
      #expect(keg.slabCount == 1 && keg.slabsReturned == 0)
      // The lowest addresses go first: no further page.
      for _ in 0..<100 { keg.giveAll(keg.takeAll(few)) }
      #expect(keg.slabsMade == 1)
      keg.checkInvariants()
      keg.giveAll(keg.takeAll(few + 1))
      #expect(keg.slabCount == 0)
      // Its memory comes back dirty: all of it may be resident.
      keg.giveAll(keg.takeAll(1))
      #expect(keg.slabCount == 0 && keg.slabsReturned == 2)
      keg.checkInvariants()
    }
  }

  @Test("a refill for which less than half is there makes a slab of a span at hand, not of another")
  func secondSlab() {
    Rig.use { rig in
      let keg = rig.keg(size: 1024)
      let perSlab = Int(keg.layout.itemCount)
      _ = keg.takeAll(perSlab - 2)
      var items = [UInt](repeating: 0, count: perSlab)
      items.withUnsafeMutableBufferPointer { buffer in
        let out = buffer.baseAddress!
        #expect(keg.take(perSlab, into: out) == 2)
        keg.give(out, 2)
        let other = rig.keg(size: 512)
        other.giveAll(other.takeAll(1))
        other.drain()
        #expect(rig.heap.recentBytes == Chunk.size)
        #expect(keg.take(perSlab, into: out, mayGrow: false) == 2)
        keg.give(out, 2)
        #expect(keg.take(perSlab, into: out) == perSlab)
      }
      #expect(keg.slabCount == 2 && rig.heap.recentBytes == 0)
      keg.checkInvariants()
    }
  }

  @Test("many holes are more than one item in 16, and more than 16 chunks")
  func manyHoles() {
    Rig.use { rig in
      let keg = rig.keg(size: 1024)
      let perChunk = Int(Chunk.size) / 1024
      var items = keg.takeAll(600 * perChunk)
      #expect(!keg.hasManyHoles)
      // One of each slab, so that none becomes free.
      func giveOne(of slabs: Range<Int>) {
        keg.giveAll(slabs.map { items[$0 * perChunk] })
        for slab in slabs { items[slab * perChunk] = 0 }
      }
      giveOne(of: 0..<200)
      #expect(!keg.hasManyHoles)
      giveOne(of: 200..<600)
      keg.giveAll([items[1]])
      #expect(keg.hasManyHoles)
      // As great a share, but little.
      let small = rig.keg(size: 512)
      let half = small.takeAll(1024)
      small.giveAll(stride(from: 0, to: 1024, by: 2).map { half[$0] })
      #expect(small.freeCount == 512 && !small.hasManyHoles)
    }
  }

  @Test("a drain takes the little touched slab, too")
  func drainsLittleTouched() {
    Rig.use { rig in
      let keg = rig.keg(size: 64)
      keg.pointee.policy.smallSlabs = 16
      keg.giveAll(keg.takeAll(1))
      #expect(keg.slabCount == 1)
      keg.drain()
      #expect(keg.slabCount == 0 && keg.freeCount == 0)
    }
  }

  @Test("give keeps one free slab, drain none")
  func drain() {
    Rig.use { rig in
      let keg = rig.keg(size: 4096)
      let perSlab = Int(keg.layout.itemCount)
      let items = keg.takeAll(5 * perSlab)
      keg.giveAll(Array(items.prefix(3 * perSlab)))
      #expect(keg.slabCount == 3)
      #expect(keg.slabsReturned == 2)
      keg.checkInvariants()
      keg.drain()
      #expect(keg.slabCount == 2)
      keg.giveAll(Array(items.suffix(2 * perSlab)))
      keg.drain()
      #expect(keg.slabCount == 0 && keg.freeCount == 0)
      #expect(keg.slabsMade == 5 && keg.slabsReturned == 5)
      #expect(rig.heap.inUseBytes == 0 && rig.heap.headersInUse == 0)
      keg.checkInvariants()
    }
  }

  @Test("U30: a NOFREE keg keeps its slabs, and a freed item stays readable where it was")
  func noFree() {
    Rig.use { rig in
      let keg = rig.keg(size: 4096, flags: .noFree)
      let perSlab = Int(keg.layout.itemCount)
      let items = keg.takeAll(3 * perSlab)
      items[0].word = 77
      keg.giveAll(items)
      keg.drain()
      #expect(keg.slabCount == 3 && keg.slabsReturned == 0)
      #expect(items[0].word == 77)
      #expect(keg.takeAll(3 * perSlab).sorted() == items.sorted())
      keg.checkInvariants()
    }
  }

  @Test("without memory for span, tag, header or commit take gives 0 and nothing leaks")
  func failures() {
    // The number of commits that succeed before the first failure.
    for allowed in 0..<6 {
      Rig.use(wanted: 1 << 26) { rig in
        let keg = rig.keg(size: 4096)
        let headers = rig.heap.headersInUse
        rig.pages.allowReserves(0)
        rig.pages.allowCommits(allowed)
        var items: [UInt] = []
        // Memory ends sooner or later.
        while let item = keg.takeAll(1).first { items.append(item) }
        #expect(keg.usedCount == UInt(items.count))
        #expect(keg.freeCount == 0)
        #expect(rig.heap.inUseBytes == keg.slabCount * keg.layout.byteCount)
        #expect(rig.heap.headersInUse - headers == keg.slabCount)
        keg.checkInvariants()
        rig.heap.checkInvariants()
        rig.pages.allowCommits(.max)
        #expect(keg.takeAll(1).count == 1)
        #expect(rig.pages.violations == [])
      }
    }
  }

  @Test("without metadata for a header the span goes back")
  func noHeader() {
    Rig.use { rig in
      // Tags and free chunks are at hand, headers of this size are not.
      let other = rig.keg(size: 64)
      other.giveAll(other.takeAll(1))
      let keg = rig.keg(size: 8, alignment: 8)
      let inUse = rig.heap.inUseBytes
      rig.exhaustMetadata()
      #expect(keg.takeAll(1) == [])
      #expect(keg.slabCount == 0)
      #expect(rig.heap.inUseBytes == inUse)
      #expect(other.takeAll(1).count == 1)
      keg.checkInvariants()
      rig.heap.checkInvariants()
    }
  }

  @Test("a heap with a tiny reservation grows outside and finds its items there")
  func outside() {
    Rig.use(wanted: 1 << 22) { rig in
      let keg = rig.keg(size: 4096)
      let items = keg.takeAll(10_000)
      #expect(items.count == 10_000)
      #expect(rig.heap.outsideCount >= 10)
      for (index, item) in items.enumerated() { item.word = UInt(index) }
      var missing = 0
      for item in items where rig.heap.bin(of: item) != 32 { missing += 1 }
      #expect(missing == 0)
      #expect(items.enumerated().allSatisfy { $1.word == UInt($0) })
      #expect(rig.heap.owner(of: 0x1000) == nil)
      keg.checkInvariants()
      rig.heap.checkInvariants()
      keg.giveAll(items)
      keg.drain()
      #expect(keg.slabCount == 0 && rig.heap.inUseBytes == 0)
      // Regions that are wholly free go back to the kernel with what is dirty.
      #expect(rig.heap.dirtyBytes >= 32 << 20)
      _ = rig.heap.purge(notAfter: .max)
      #expect(rig.heap.outsideCount == 0 && rig.heap.dirtyBytes == 0)
      // The reservation, and what metadata took besides.
      #expect(rig.pages.reservedBytes == 1 << 22 + 1 << 20)
      #expect(rig.heap.owner(of: items[9999]) == nil)
      #expect(keg.takeAll(10_000).count == 10_000)
      #expect(rig.pages.violations == [])
      keg.checkInvariants()
      rig.heap.checkInvariants()
    }
  }

  @Test("outside regions that cannot be mapped, committed or noted are no memory, and no leak")
  func outsideFailure() {
    Rig.use(wanted: 1 << 22) { rig in
      let keg = rig.keg(size: 65536)
      rig.pages.allowReserves(0)
      _ = keg.takeAll(1000)
      let count = rig.heap.outsideCount
      let reserved = rig.pages.reservedBytes
      #expect(count == 0)
      rig.pages.allowReserves(.max)
      rig.pages.allowCommits(0)
      #expect(keg.takeAll(1) == [])
      #expect(rig.pages.reservedBytes == reserved)
      rig.pages.allowCommits(.max)
      #expect(keg.takeAll(1).count == 1)
      #expect(rig.heap.outsideCount == 1)
      #expect(rig.pages.violations == [])
    }
  }

  @Test("before the heap grows the layers above are asked once for what they cache")
  func relief() {
    Rig.use { rig in
      let keg = rig.keg(size: 4096)
      // True for as long as the log allows inits.
      rig.heap.pointee.relieve = { bytes in Rig.current.hooks.initialise(bytes) == 0 }
      rig.hooks.allowInits(1)
      #expect(keg.takeAll(1).count == 1)
      #expect(rig.hooks.inits == [0])
      #expect(rig.heap.outsideCount == 0 && keg.slabCount == 1)
      // Asked again only when the heap grows again.
      rig.hooks.allowInits(.max)
      _ = keg.takeAll(16)
      #expect(rig.hooks.inits == [0])
    }
  }

  @Test("purge returns the pages of free slabs after their time, and they are zero then")
  func purge() {
    Rig.use { rig in
      let keg = rig.keg(size: 4096)
      rig.heap.pointee.now = 100
      let items = keg.takeAll(64)
      for item in items { item.word = 1 }
      keg.giveAll(items)
      keg.drain()
      #expect(rig.heap.purge(notAfter: 99) == 0)
      #expect(rig.heap.bytesToPurge > 0)
      #expect(rig.heap.purge(notAfter: 100) == 64 * 4096)
      #expect(rig.heap.bytesToPurge == 0)
      #expect(items.allSatisfy { $0.word == 0 })
      rig.heap.checkInvariants()
    }
  }

  @Test("pages that could not be purged stay dirty")
  func purgeFailure() {
    Rig.use { rig in
      let keg = rig.keg(size: 4096)
      keg.giveAll(keg.takeAll(64))
      keg.drain()
      let dirty = rig.heap.bytesToPurge
      rig.pages.failPurges(true)
      #expect(rig.heap.purge(notAfter: .max) == 0)
      #expect(rig.heap.bytesToPurge == dirty)
      rig.pages.failPurges(false)
      #expect(rig.heap.purge(notAfter: .max) == dirty)
      rig.heap.checkInvariants()
    }
  }
}
