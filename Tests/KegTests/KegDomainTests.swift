// KegDomainTests.swift: a keg whose slabs are divided among processors.

import Base
import Pages
import Platform
import TestSupport
import Testing

@testable import Keg

extension UnsafeMutablePointer where Pointee == Keg {
  fileprivate var domains: [KegPointer] {
    Array(sequence(first: self) { self.domain(after: $0) })
  }

  /// `count` items of this domain alone.
  fileprivate func takeOwn(_ count: Int) -> [UInt] {
    var items: [UInt] = []
    while items.count < count {
      let room = count - items.count
      let more = [UInt](unsafeUninitializedCapacity: room) {
        $1 = takeOwn(room, into: $0.baseAddress!, true, false)
      }
      if more.isEmpty { break }
      items += more
    }
    return items
  }

  fileprivate func owner(of item: UInt) -> KegPointer? { slab(holding: item)?.pointee.keg }
}

@Suite struct KegDomainTests {
  @Test("waits at the lock divide a keg that may be, once, into a power of two of domains")
  func divided() {
    Rig.use { rig in
      let keg = rig.keg(size: 64)
      keg.pointee.waits = 1000
      keg.giveAll(keg.takeAll(1))
      #expect(keg.domains.count == 1)
      keg.pointee.policy.mostWaits = 32
      keg.giveAll(keg.takeAll(1))
      let processors = UInt(keg_cpu_count())
      #expect(keg.isDivided == (processors > 1))
      #expect(keg.domains.count == (processors > 1 ? min(16, 1 << (UInt.bitWidth - processors.leadingZeroBitCount)) : 1))
      keg.divide(for: 64)
      #expect(keg.domains.count == (processors > 1 ? keg.domains.count : 16))
      let other = rig.keg(size: 64)
      other.divide(for: 3)
      #expect(other.domains.count == 4 && Set(other.domains).count == 4)
      let alone = rig.keg(size: 64)
      alone.divide(for: 1)
      #expect(alone.domains.count == 1)
    }
  }

  @Test("without metadata for domains a keg goes on as it is")
  func noMemory() {
    Rig.use { rig in
      let keg = rig.keg(size: 64)
      keg.pointee.policy.mostWaits = 32
      let items = keg.takeAll(10)
      rig.exhaustMetadata()
      keg.divide(for: 4)
      #expect(!keg.isDivided)
      keg.giveAll(items)
      keg.checkInvariants()
    }
  }

  @Test("a domain takes of its own slabs; what is freed goes to the domain that has the slab")
  func own() {
    Rig.use { rig in
      let keg = rig.keg(size: 64)
      let before = keg.takeAll(100)
      keg.divide(for: 4)
      // More than half of a slab each, so that none is taken over.
      let taken = keg.domains.map { $0.takeOwn(150) }
      for (domain, items) in zip(keg.domains, taken) {
        #expect(items.count == 150 && items.allSatisfy { keg.owner(of: $0) == domain })
        #expect(domain.usedCount == (domain == keg ? 250 : 150))
      }
      #expect(Set(taken.joined()).union(before).count == 700)
      // One call with items of all domains by turns, from whichever domain it is made.
      var mixed = (0..<150).flatMap { index in taken.map { $0[index] } }
      mixed.insert(contentsOf: before, at: 300)
      keg.domains[2].giveAll(Array(mixed.prefix(400)))
      keg.giveAll(Array(mixed.suffix(from: 400)))
      keg.checkInvariants()
      #expect(keg.domains.allSatisfy { $0.usedCount == 0 })
      keg.drain()
      #expect(keg.totals().slabs == 0 && rig.heap.inUseBytes == 0)
    }
  }

  @Test("a slab that is half free serves another domain before a new one is made; a fuller one does not")
  func adopted() {
    Rig.use { rig in
      let keg = rig.keg(size: 64)
      let perSlab = Int(keg.layout.itemCount)
      keg.divide(for: 2)
      let (first, second) = (keg.domains[0], keg.domains[1])
      let held = first.takeOwn(perSlab * 3 / 4)
      #expect(second.takeOwn(1).count == 1)
      #expect(first.slabCount == 1 && second.slabCount == 1)
      let kept = held.prefix(perSlab / 4)
      first.giveAll(Array(held.dropFirst(perSlab / 4)))
      // The rest of its own slab, and then of the other's.
      let more = second.takeOwn(perSlab - 1) + second.takeOwn(10)
      #expect(more.count == perSlab + 9)
      #expect(first.slabCount == 0 && first.freeCount == 0 && second.slabCount == 2)
      #expect(kept.allSatisfy { keg.owner(of: $0) == second })
      keg.checkInvariants()
      first.giveAll(Array(kept))
      #expect(second.usedCount == UInt(perSlab + 10))
      #expect(keg.totals().slabs == 2)
    }
  }

  @Test("where no slab can be made, the last items of any domain are found")
  func lastItems() {
    Rig.use { rig in
      let keg = rig.keg(size: 4096)
      keg.divide(for: 4)
      let perSlab = Int(keg.layout.itemCount)
      let held = keg.domains.map { $0.takeOwn(perSlab - 1) }
      rig.exhaustMetadata()
      var last: Set<UInt> = []
      while let item = keg.takeAll(1).first { last.insert(item) }
      #expect(last.count >= 4 && keg.domains.allSatisfy { $0.freeCount == 0 })
      keg.giveAll(held.flatMap { $0 } + last)
      keg.checkInvariants()
      #expect(keg.domains.allSatisfy { $0.usedCount == 0 })
    }
  }

  @Test("double frees and strangers are found in other domains, too")
  func states() {
    Rig.use { rig in
      let (keg, stranger) = (rig.keg(size: 64), rig.keg(size: 64))
      keg.divide(for: 2)
      stranger.divide(for: 2)
      let item = keg.domains[1].takeOwn(1)[0]
      let slab = keg.slab(holding: item)!
      #expect(keg.state(of: item, in: slab) == .used && stranger.slab(holding: item) == nil)
      keg.give(item)
      #expect(keg.state(of: item, in: slab) == .free)
    }
  }

  @Test("threads by turns divide a keg of small items, which one thread does not, nor of large ones")
  func turns() {
    Rig.use { rig in
      for (size, isSmall) in [(512, true), (576, false)] as [(UInt, Bool)] {
        let keg = rig.keg(size: size)
        keg.pointee.policy.mostWaits = 4
        keg_set_thread_number(1)
        defer { keg_set_thread_number(0) }
        for _ in 0..<20 { keg.giveAll(keg.takeAll(3)) }
        #expect(keg.pointee.waits == (isSmall ? 1 : 0) && !keg.isDivided)
        for turn in 0..<10 {
          keg_set_thread_number(UInt32(1 + turn % 2))
          keg.giveAll(keg.takeAll(3))
        }
        #expect(keg.isDivided == (isSmall && keg_cpu_count() > 1))
        #expect(isSmall || keg.pointee.waits == 0)
      }
    }
  }

  @Test("the first threads have a domain each")
  func numbered() {
    Rig.use { rig in
      let keg = rig.keg(size: 64)
      keg.divide(for: 4)
      defer { keg_set_thread_number(0) }
      for (index, domain) in keg.domains.enumerated() {
        keg_set_thread_number(UInt32(index + 1))
        #expect(keg.owner(of: keg.takeAll(1)[0]) == domain)
      }
    }
  }

  @Test("a domain keeps one free slab, a drain none; reserves hold in each")
  func policy() {
    Rig.use { rig in
      let keg = rig.keg(size: 1024)
      keg.divide(for: 2)
      let perSlab = Int(keg.layout.itemCount)
      let items = keg.domains[1].takeOwn(perSlab * 20)
      keg.giveAll(Array(items.suffix(perSlab * 10)))
      #expect(keg.totals().freeSlabs == 1)
      keg.drain()
      #expect(keg.totals().freeSlabs == 0)
      keg.setReserve(5)
      #expect(keg.domains.allSatisfy { $0.reserve == 5 })
      keg.setWatermarks(low: UInt(perSlab), high: UInt(2 * perSlab))
      #expect(keg.domains.allSatisfy { $0.pointee.policy.highSlabs == 2 })
    }
  }

  @Test("threads over a keg that is divided meanwhile, who free each other's items, lose none")
  func walk() {
    Rig.use { rig in
      let keg = Shared(rig.keg(size: 64))
      let exchange = Collected<[UInt]>()
      rig.inParallel(4) { index in
        var random = SeededGenerator(seed: UInt64(index))
        var held: [UInt] = []
        for step in 0..<400 {
          if step == 50, index == 0 { keg.pointer.divide(for: 4) }
          let fresh = keg.pointer.takeAll(random.below(200))
          for item in fresh { item.word = UInt(index) }
          if fresh.contains(where: { $0.word != UInt(index) }) { die("test: one item for two threads") }
          // What other threads have left there is for this one.
          held += exchange.removeAll().joined()
          exchange.append(fresh)
          held.shuffle(using: &random)
          let gone = Array(held.suffix(random.below(held.count + 1)))
          held.removeLast(gone.count)
          keg.pointer.giveAll(gone)
          if step % 100 == 99 { keg.pointer.drain() }
        }
        keg.pointer.giveAll(held)
      }
      let left = Array(exchange.removeAll().joined())
      let used = keg.pointer.domains.reduce(0) { $0 + $1.usedCount }
      #expect(keg.pointer.isDivided && used == UInt(left.count))
      keg.pointer.checkInvariants()
      keg.pointer.giveAll(left)
      keg.pointer.drain()
      #expect(keg.pointer.totals().slabs == 0 && rig.heap.inUseBytes == 0)
      rig.heap.checkInvariants()
    }
  }
}
