// Keg+Slabs.swift: where a keg's slabs come from, which list each is on, and where
// they go. The lists are pictured in Keg.swift.
//
// Lock: the keg's, held by the caller for the lists and not held for making and
// returning slabs, which may call the kernel.

import Base
import Pages
import Platform
import Vmem

// MARK: - Lists

extension UnsafeMutablePointer where Pointee == Keg {
  /// A slab with a free item, the fullest there is, or nil.
  @inline(__always)
  func fullestSlab() -> UnsafeMutablePointer<Slab>? {
    let mask = pointee.partialMask
    if mask == 0 { return pointee.free.head }
    return pointee.partial[7 &- mask.leadingZeroBitCount].head
  }

  /// The list a slab belongs on by its count of free items.
  @inline(__always)
  func list(for slab: UnsafeMutablePointer<Slab>) -> UInt8 {
    let free = UInt(slab.pointee.freeCount)
    let all = pointee.layout.itemCount
    if free == 0 { return Keg.fullList }
    if free == all { return Keg.freeList }
    return UInt8(truncatingIfNeeded: ((all &- free) &* pointee.eighths) &>> 32)
  }

  @inline(__always)
  func relist(_ slab: UnsafeMutablePointer<Slab>) {
    let list = list(for: slab)
    if list == slab.pointee.list { return }
    detach(slab)
    attach(slab, to: list)
  }

  func insert(_ slab: UnsafeMutablePointer<Slab>) {
    attach(slab, to: Keg.freeList)
    pointee.slabCount &+= 1
    pointee.slabsMade &+= 1
    pointee.freeCount &+= pointee.layout.itemCount
  }

  func attach(_ slab: UnsafeMutablePointer<Slab>, to list: UInt8) {
    slab.pointee.list = list
    if list == Keg.fullList {
      pointee.full.prepend(slab)
    } else if list == Keg.freeList {
      pointee.free.prepend(slab)
    } else {
      pointee.partial[Int(list)].prepend(slab)
      pointee.partialMask |= 1 &<< list
    }
  }

  func detach(_ slab: UnsafeMutablePointer<Slab>) {
    let list = slab.pointee.list
    if list == Keg.fullList {
      pointee.full.remove(slab)
    } else if list == Keg.freeList {
      pointee.free.remove(slab)
    } else {
      pointee.partial[Int(list)].remove(slab)
      if pointee.partial[Int(list)].isEmpty { pointee.partialMask &= ~(1 &<< list) }
    }
  }
}

// MARK: - Slabs

/// Where the span of a slab may come from; each includes those before.
enum SpanSource: UInt8 {
  /// Spans of its size that were freed last.
  case recent
  /// Those that wait for this thread, or for others.
  case freed
  /// Any, of new memory too.
  case any
}

extension UnsafeMutablePointer where Pointee == Keg {
  /// Takes chunks and a header and makes a slab of free items of them.
  ///
  /// Called without the keg lock; may call the kernel.
  /// - Returns: nil when there is no memory or an item's init failed; nothing is lost.
  func makeSlab(of source: SpanSource = .any) -> UnsafeMutablePointer<Slab>? {
    let layout = pointee.layout
    let heap = pointee.heap
    guard let span = heap.takeSlabSpan(
      layout.byteCount, alignment: layout.alignment, from: source)
    else { return nil }
    let header = pointee.headers.take()
    guard header != 0 else {
      heap.freeSpan(span)
      return nil
    }
    let start = span.pointee.start
    let slab = header.pointer(to: Slab.self)
    slab.initialize(
      to: Slab(base: start &+ layout.margin, keg: self, span: span, itemCount: layout.itemCount))
    slab.markAllFree(itemCount: layout.itemCount)
    prepare(slab)
    guard initItems(of: slab) else {
      undoPrepare(slab)
      pointee.headers.give(header)
      heap.freeSpan(span)
      return nil
    }
    heap.pageMap(ofOwn: start).enter(
      slab, bin: pointee.bin, at: start, chunkCount: layout.chunkCount)
    return slab
  }

  /// Calls init for every item; on failure fini for those done, in reverse (U03).
  private func initItems(of slab: UnsafeMutablePointer<Slab>) -> Bool {
    guard let itemInit = pointee.itemInit else { return true }
    let size = Int(bitPattern: pointee.itemSize)
    let section = keg_step_outside()
    defer { keg_step_inside(section) }
    var i: UInt = 0
    while i < pointee.layout.itemCount {
      if itemInit(item(i, of: slab), size, 2 /* KEG_NOWAIT */) != 0 {
        while i > 0 {
          i &-= 1
          pointee.itemFini?(item(i, of: slab), size)
        }
        return false
      }
      i &+= 1
    }
    return true
  }

  func item(_ index: UInt, of slab: UnsafeMutablePointer<Slab>) -> UnsafeMutableRawPointer? {
    UnsafeMutableRawPointer(bitPattern: slab.pointee.base &+ index &* pointee.layout.stride)
  }

  /// Takes all free slabs but those that may idle off the keg. Called with the lock held.
  func detachSurplus() -> UnsafeMutablePointer<Slab>? {
    pointee.free.isEmpty ? nil : detachFree(keeping: idleSlabs)
  }

  /// How many free slabs may stay.
  private var idleSlabs: Int {
    let policy = pointee.policy
    if pointee.slabCount < policy.smallSlabs, policy.idleSlabs == 1, !isLastLittleTouched { return 0 }
    return policy.idleSlabs
  }

  /// Whether the first free slab came clean and has few pages: as dirty memory it would be
  /// filled by another size, and the next slab of this one would touch pages of its own.
  private var isLastLittleTouched: Bool {
    guard pointee.free.count == 1, let slab = pointee.free.head else { return false }
    return slab.pointee.touchedBytes <= Slab.fewBytes && !slab.pointee.span.pointee.isDirty
  }

  func detachFree(keeping kept: Int) -> UnsafeMutablePointer<Slab>? {
    if pointee.flags.contains(.noFree) { return nil }
    var chain: UnsafeMutablePointer<Slab>? = nil
    while pointee.free.count > kept, let slab = pointee.free.popFirst() {
      slab.pointee.next = chain
      chain = slab
      pointee.slabCount &-= 1
      pointee.slabsReturned &+= 1
      pointee.freeCount &-= pointee.layout.itemCount
    }
    return chain
  }

  /// Returns a chain of free slabs to the heap. Called without the keg lock.
  func returnSlabs(_ chain: UnsafeMutablePointer<Slab>?, callsFini: Bool = true) {
    var next = chain
    while let slab = next {
      next = slab.pointee.next
      if callsFini, let itemFini = pointee.itemFini {
        let section = keg_step_outside()
        defer { keg_step_inside(section) }
        var i: UInt = 0
        while i < pointee.layout.itemCount {
          itemFini(item(i, of: slab), Int(bitPattern: pointee.itemSize))
          i &+= 1
        }
      }
      if slab.pointee.records != 0 { pointee.heap.pointee.forgetRecords?(UnsafeMutableRawPointer(slab)) }
      undoPrepare(slab)
      let start = slab.start
      let span = slab.pointee.span
      pointee.heap.pageMap(ofOwn: start).clear(at: start, chunkCount: pointee.layout.chunkCount)
      pointee.headers.give(slab.address)
      pointee.heap.freeSlabSpan(span)
    }
  }

  /// Returns every free slab of all domains to the heap (U15).
  package func drain() {
    var next = Optional(self)
    while let keg = next {
      keg.pointee.lock.lock()
      keg.pointee.policy.idleSlabs = keg.pointee.policy.highSlabs
      let chain = keg.detachFree(keeping: keg.slabsToKeep)
      keg.pointee.lock.unlock()
      keg.returnSlabs(chain)
      next = domain(after: keg)
    }
  }

  /// Calls `body` with every slab of this domain. Called with the lock held.
  package func forEachSlab(_ body: (UnsafeMutablePointer<Slab>) -> Void) {
    pointee.full.forEach(body)
    pointee.free.forEach(body)
    var i = 0
    while i < 8 {
      pointee.partial[i].forEach(body)
      i &+= 1
    }
  }

  /// Real in the INVARIANTS build: lists, counts and bitmaps of all domains agree.
  package func checkInvariants() {
    #if INVARIANTS
      var next = Optional(self)
      while let keg = next {
        keg.checkOwnInvariants()
        next = domain(after: keg)
      }
    #endif
  }

  private func checkOwnInvariants() {
    #if INVARIANTS
      pointee.lock.lock()
      var slabs: UInt = 0
      var free: UInt = 0
      forEachSlab { slab in
        slabs += 1
        free += UInt(slab.pointee.freeCount)
        invariant(list(for: slab) == slab.pointee.list, "keg: slab on the wrong list")
        invariant(slab.pointee.keg == self, "keg: slab of another domain")
        slab.checkInvariants(itemCount: pointee.layout.itemCount)
      }
      invariant(slabs == pointee.slabCount, "keg: slabCount differs from the lists")
      invariant(free == pointee.freeCount, "keg: freeCount differs from the slabs")
      pointee.lock.unlock()
    #endif
  }
}
