// KegDomains.swift: a keg's slabs divided among threads, once they wait for each other at
// its lock (UMA's domains of a keg, by contention instead of by node), or take turns at
// items so small that several share a line.
//
//   first keg ── others ──▶ | keg | keg | …       as many as processors, or a few more
//    lists     slab.keg      lists lists          each with a lock and lists of its own
//
// The first threads of a process have a domain each, the others that of the processor
// they run on: so two processors write neither to one lock, nor to one slab's header, nor
// to neighbouring items. What is freed goes to the domain that has the slab. A domain
// without a free item makes a slab of a span that its thread freed (HomeSpans.swift), or
// takes over a slab of which half is free before the heap grows for it.
//
// - Invariant: a slab is on a list of the keg that `slab.keg` names.
// Lock: each domain has its own, of rank `keg`, taken one at a time; a second one only if
// it is free at that moment.

import Base
import Pages
import Platform
import Synchronization

extension Keg {
  /// Domains lie in metadata, each on cache lines of its own.
  static var domainBytes: UInt { UInt(MemoryLayout<Keg>.stride).roundedUp(to: 128) }
  static var mostDomains: UInt { 16 }
  /// Kegs of items up to so many bytes are divided when threads take turns. Domains of
  /// larger ones, few in a slab, would cost more memory than shared lines and headers time.
  package static var mostByTurns: UInt { 512 }
}

/// What all domains of a keg have.
package struct KegTotals {
  package var slabs: UInt = 0
  package var freeItems: UInt = 0
  package var freeSlabs: UInt = 0
}

extension UnsafeMutablePointer where Pointee == Keg {
  @inline(__always)
  var isDivided: Bool { pointee.others.load(ordering: .relaxed) != 0 }
  /// Whether it neither is a domain nor has any.
  @inline(__always)
  var isWhole: Bool { pointee.first == nil && !isDivided }

  /// The domain that serves the calling thread.
  @inline(__always)
  var domainHere: UnsafeMutablePointer<Keg> {
    let others = pointee.others.load(ordering: .acquiring)
    if others == 0 { return self }
    let index = keg_home(pointee.domainMask)
    return index == 0 ? self : (others &+ (index &- 1) &* Keg.domainBytes).pointer(to: Keg.self)
  }

  /// The domain after `keg`, with which who goes through them begins at the first; nil
  /// after the last.
  @inline(never)
  package func domain(after keg: UnsafeMutablePointer<Keg>) -> UnsafeMutablePointer<Keg>? {
    let others = pointee.others.load(ordering: .acquiring)
    if others == 0 { return nil }
    let next = keg == self ? others : keg.address &+ Keg.domainBytes
    let end = others &+ pointee.domainMask &* Keg.domainBytes
    return next == end ? nil : next.pointer(to: Keg.self)
  }

  /// Whether a slab is this keg's or that of another of its domains.
  @inline(__always)
  func owns(_ slab: UnsafeMutablePointer<Slab>) -> Bool {
    let keg = slab.pointee.keg
    return keg == self || (keg.pointee.first ?? keg) == (pointee.first ?? self)
  }

  /// Whether more than one in 16 of the items of this thread's domain lie free in slabs,
  /// 16 chunks of them at least. Takes no lock.
  package var hasManyHoles: Bool {
    let keg = domainHere
    let free = keg.pointee.freeCount
    return free > keg.pointee.itemCount / 16
      && free &* keg.pointee.layout.stride > 16 &* Chunk.size
  }

  /// Takes the locks.
  package func totals() -> KegTotals {
    var all = KegTotals()
    var next = Optional(self)
    while let keg = next {
      keg.pointee.lock.lock()
      all.slabs &+= keg.pointee.slabCount
      all.freeItems &+= keg.pointee.freeCount
      all.freeSlabs &+= keg.freeSlabCount
      keg.pointee.lock.unlock()
      next = domain(after: keg)
    }
    return all
  }

  @inline(__always)
  func lockCountingWaits() {
    if pointee.lock.lockReportingContention() { pointee.waits &+= 1 }
  }

  /// Counts a turn of another thread, where items of both would share lines or the header
  /// of their slab.
  @inline(__always)
  func countTurn() {
    let taker = UInt32(truncatingIfNeeded: keg_thread_number())
    if taker == pointee.lastTaker || pointee.itemSize > Keg.mostByTurns { return }
    pointee.lastTaker = taker
    pointee.waits &+= 1
  }

  /// Drops the lock, and divides the keg when it was waited for too often.
  @inline(__always)
  func unlockAndDivide() {
    let isContended = pointee.waits > pointee.policy.mostWaits
    pointee.lock.unlock()
    if _slowPath(isContended) { divide(for: wantedDomains) }
  }

  /// One for each processor; of small items one more, for the first thread, which often
  /// waits while others work.
  private var wantedDomains: UInt {
    let processors = UInt(keg_cpu_count())
    return processors > 1 && pointee.itemSize <= Keg.mostByTurns ? processors &+ 1 : processors
  }

  /// Makes domains, a power of two. Without memory for them the keg stays as it is.
  @_optimize(size)
  @inline(never)
  func divide(for count: UInt) {
    let most = min(count, Keg.mostDomains)
    let mask = most < 2 ? 0 : ~0 &>> UInt((most &- 1).leadingZeroBitCount)
    let memory =
      mask == 0 ? nil : pointee.heap.pointee.metadata.room(
        for: UInt8.self, count: Int(mask &* Keg.domainBytes))
    pointee.lock.lock()
    pointee.waits = 0
    if mask == 0 || memory != nil { pointee.policy.mostWaits = .max }
    if let memory, !isDivided {
      var i: UInt = 0
      while i < mask {
        makeDomain(UnsafeMutableRawPointer(memory) + Int(i &* Keg.domainBytes))
        i &+= 1
      }
      pointee.domainMask = mask
      pointee.others.store(UInt(bitPattern: memory), ordering: .releasing)
    }
    pointee.lock.unlock()
  }

  /// Makes a keg like this one without slabs. Called with the lock held.
  private func makeDomain(_ memory: UnsafeMutableRawPointer) {
    memory.copyMemory(from: self, byteCount: MemoryLayout<Keg>.size)
    let keg = memory.assumingMemoryBound(to: Keg.self)
    keg.pointee.lock.reset()
    keg.pointee.first = self
    keg.pointee.full = List()
    keg.pointee.free = List()
    var i = 0
    while i < 8 {
      keg.pointee.partial[i] = List()
      i &+= 1
    }
    keg.pointee.partialMask = 0
    keg.pointee.freeCount = 0
    keg.pointee.slabCount = 0
    keg.pointee.slabsMade = 0
    keg.pointee.slabsReturned = 0
  }

  /// Takes items of any domain: with less than half a slab free in each, none to be had of
  /// the heap.
  @inline(never)
  func takeAnywhere(
    _ count: Int, into out: UnsafeMutablePointer<UInt>, _ useReserve: Bool
  ) -> Int {
    var next = Optional(self)
    while let keg = next {
      keg.pointee.lock.lock()
      let taken = min(count, keg.available(useReserve))
      keg.takeFromSlabs(taken, into: out)
      keg.pointee.lock.unlock()
      if taken > 0 { return taken }
      next = domain(after: keg)
    }
    return 0
  }

  /// Takes over a slab of another domain of which half is free or more. Called with the
  /// lock held.
  /// - Returns: false when there is none, or their locks are held.
  @inline(never)
  func adoptSlab() -> Bool {
    let first = pointee.first ?? self
    var next = Optional(first)
    while let keg = next {
      if keg != self, keg.pointee.lock.tryLockOutOfOrder() {
        let slab = keg.emptiestSlab()
        if let slab { move(slab, from: keg) }
        keg.pointee.lock.unlockOutOfOrder()
        if slab != nil { return true }
      }
      next = first.domain(after: keg)
    }
    return false
  }

  /// Called with both locks held.
  private func move(_ slab: UnsafeMutablePointer<Slab>, from keg: UnsafeMutablePointer<Keg>) {
    let free = UInt(slab.pointee.freeCount)
    keg.detach(slab)
    keg.pointee.slabCount &-= 1
    keg.pointee.freeCount &-= free
    slab.pointee.keg = self
    attach(slab, to: slab.pointee.list)
    pointee.slabCount &+= 1
    pointee.freeCount &+= free
  }

  /// A slab with at least half of its items free, or nil.
  private func emptiestSlab() -> UnsafeMutablePointer<Slab>? {
    let mask = pointee.partialMask & 0xf
    return pointee.free.head ?? (mask == 0 ? nil : pointee.partial[mask.trailingZeroBitCount].head)
  }
}
