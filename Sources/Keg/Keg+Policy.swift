// Keg+Policy.swift: what the program asks of a keg beyond items: reserves, slabs made
// in advance, counters beside the slab, memory that core files leave out.
//
//   slab header |Slab 64|bitmap 8 × words|counters 4 × items|       counted kegs
//
// Lock: the keg's, for the policy; it is dropped for making slabs.

import Base
import Pages
import Platform
import Vmem

/// How many free items and slabs a keg keeps.
package struct KegPolicy {
  /// Items that only `useReserve` may take (U34).
  package var reserve: UInt = 0
  /// Free slabs that a drain leaves (P01: low water).
  package var lowSlabs: Int = 0
  /// Free slabs that a free leaves (P01: high water).
  package var highSlabs: Int = 1
  /// The same and those made in advance, until the next drain.
  package var idleSlabs: Int = 1
  /// A keg of fewer slabs keeps none that is free unless it was told to: for one of many
  /// kegs that the program did not choose, a slab is much.
  package var smallSlabs: UInt = 0
  /// How often threads may wait for the lock before the keg is divided into domains.
  package var mostWaits: UInt32 = .max
  package init() {}
}

extension UnsafeMutablePointer where Pointee == Keg {
  /// Free items that a caller may have. Called with the lock held.
  @inline(__always)
  func available(_ useReserve: Bool) -> Int {
    let reserve = useReserve ? 0 : pointee.policy.reserve
    let free = pointee.freeCount
    return Int(bitPattern: free > reserve ? free &- reserve : 0)
  }

  /// Free slabs that a drain must leave: U34's reserve, less what partial slabs have.
  /// Called with the lock held.
  var slabsToKeep: Int {
    let items = pointee.layout.itemCount
    let inPartial = pointee.freeCount &- UInt(bitPattern: pointee.free.count) &* items
    let reserve = pointee.policy.reserve
    let wanted = reserve > inPartial ? (reserve &- inPartial &+ items &- 1) / items : 0
    return max(Int(bitPattern: wanted), pointee.policy.lowSlabs)
  }

  /// Makes slabs until `count` items are free, and keeps them until the next drain.
  /// - Parameter populate: whether their pages shall be resident.
  /// - Returns: false when there is no memory; what was made stays.
  package func preallocate(_ count: UInt, populate: Bool) -> Bool {
    let items = pointee.layout.itemCount
    pointee.lock.lock()
    while pointee.freeCount < count {
      pointee.lock.unlock()
      guard let slab = makeSlab() else { return false }
      if populate { _ = populatePages(slab.start, pointee.layout.byteCount) }
      pointee.lock.lock()
      insert(slab)
      // Others free meanwhile: what is made here must not go at once.
      pointee.policy.idleSlabs = max(pointee.policy.idleSlabs, pointee.free.count)
    }
    let slabs = Int(bitPattern: (count &+ items &- 1) / items)
    pointee.policy.idleSlabs = max(pointee.policy.idleSlabs, slabs)
    pointee.lock.unlock()
    return true
  }

  /// Wholly free slabs. Called with the lock held.
  var freeSlabCount: UInt { UInt(bitPattern: pointee.free.count) }

  package var reserve: UInt { pointee.lock.withLock { pointee.policy.reserve } }

  package func setReserve(_ count: UInt) {
    var next = Optional(self)
    while let keg = next {
      keg.pointee.lock.withLock { keg.pointee.policy.reserve = count }
      next = domain(after: keg)
    }
  }

  /// P01: low and high water in items; a drain leaves `low`, a free `high`.
  package func setWatermarks(low: UInt, high: UInt) {
    let items = pointee.layout.itemCount
    let lowSlabs = Int(bitPattern: (low &+ items &- 1) / items)
    let highSlabs = max(
      high == 0 ? 1 : Int(bitPattern: (high &+ items &- 1) / items), lowSlabs)
    var next = Optional(self)
    while let keg = next {
      keg.pointee.lock.lock()
      keg.pointee.policy.lowSlabs = lowSlabs
      keg.pointee.policy.highSlabs = highSlabs
      keg.pointee.policy.idleSlabs = highSlabs
      let surplus = keg.detachSurplus()
      keg.pointee.lock.unlock()
      keg.returnSlabs(surplus)
      next = domain(after: keg)
    }
  }

  /// From now on no slab is given back.
  package func keepSlabs() {
    pointee.lock.withLock { pointee.flags = pointee.flags.union(.noFree) }
  }

  /// What a slab needs before its items are initialised.
  func prepare(_ slab: UnsafeMutablePointer<Slab>) {
    let flags = pointee.flags
    if flags.rawValue == 0 { return }
    let bytes = Int(bitPattern: pointee.layout.byteCount)
    if flags.contains(.zeroed), slab.pointee.span.pointee.isDirty {
      UnsafeMutableRawPointer(bitPattern: slab.start).unsafelyUnwrapped  // a mapping's
        .initializeMemory(as: UInt8.self, repeating: 0, count: bytes)
    }
    if flags.contains(.counted) {
      counters(of: slab).initialize(repeating: 0, count: Int(bitPattern: pointee.layout.itemCount))
    }
    if flags.contains(.noDump) { adviseDump(slab.start, pointee.layout.byteCount, false) }
  }

  /// Undoes `prepare`.
  func undoPrepare(_ slab: UnsafeMutablePointer<Slab>) {
    if pointee.flags.contains(.noDump) {
      adviseDump(slab.start, pointee.layout.byteCount, true)
    }
  }

  private func counters(of slab: UnsafeMutablePointer<Slab>) -> UnsafeMutablePointer<UInt32> {
    (slab.address &+ Slab.headerBytes &+ pointee.layout.bitmapWords &* 8).pointer(to: UInt32.self)
  }

  /// The counter of an item of a counted keg; nil when `item` is none of this keg's.
  package func counter(of item: UInt) -> UnsafeMutablePointer<UInt32>? {
    guard pointee.flags.contains(.counted), let slab = slab(holding: item) else { return nil }
    let offset = item &- slab.pointee.base
    let index = offset / pointee.layout.stride
    guard index < pointee.layout.itemCount, index &* pointee.layout.stride == offset else {
      return nil
    }
    return counters(of: slab) + Int(bitPattern: index)
  }

  /// This keg's slab that `address` lies in, or nil.
  package func slab(holding address: UInt) -> UnsafeMutablePointer<Slab>? {
    guard let map = pointee.heap.pageMap(for: address),
      case .slab(let slab) = map.owner(at: map.index(of: address)), owns(slab)
    else { return nil }
    return slab
  }
}

extension Keg {
  /// Bytes of a slab header with counters.
  package static func countedHeaderBytes(
    itemSize: UInt, alignment: UInt, leastItems: UInt = 1
  ) -> UInt {
    let layout = SlabLayout(size: itemSize, alignment: alignment, leastItems: leastItems)
    return Slab.headerBytes &+ layout.bitmapWords &* 8 &+ layout.itemCount &* 4
  }
}

// MARK: - The end of a keg

extension UnsafeMutablePointer where Pointee == Keg {
  /// Gives all slabs up; the caller makes no further use of the keg.
  ///
  /// Wholly free slabs go back to the heap. Slabs with items in use stay mapped and are
  /// never used again; fini is called for their free items.
  /// - Parameter callsFini: whether fini is called at all.
  package func destroy(callsFini: Bool) {
    pointee.lock.lock()
    pointee.flags = KegFlags(rawValue: pointee.flags.rawValue & ~KegFlags.noFree.rawValue)
    pointee.policy = KegPolicy()
    let chain = detachFree(keeping: 0)
    pointee.lock.unlock()
    returnSlabs(chain, callsFini: callsFini)
    // Nobody else is here any more.
    forEachSlab { slab in
      let layout = pointee.layout
      if callsFini, let itemFini = pointee.itemFini {
        let section = keg_step_outside()
        var i: UInt = 0
        while i < layout.itemCount {
          if slab.isFree(i) { itemFini(item(i, of: slab), Int(bitPattern: pointee.itemSize)) }
          i &+= 1
        }
        keg_step_inside(section)
      }
      let base = slab.pointee.base
      pointee.heap.pageMap(ofOwn: base).clear(at: base, chunkCount: layout.chunkCount)
      pointee.headers.give(slab.address)
    }
  }
}
