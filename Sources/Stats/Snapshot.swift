// Snapshot.swift: figures of one moment, read without stopping anybody (U42).
//
// A row says of one zone where its items are; every item of its slabs is in exactly
// one of four places, so the columns add up:
//
//   slabs × items per slab = used + in arrays + in depot + free in slabs
//
// Arrays belong to running threads, so their share is a moment old; `used` is what
// is left over, clamped at 0 (source of UMA's negative USED counts).

import Base
import Keg
import Vmem
import Zone

package struct ZoneRow {
  package let name: UnsafePointer<CChar>
  /// Bytes of an item.
  package let size: UInt
  package let used: UInt
  /// Items in threads' arrays.
  package let inArrays: UInt
  package let inDepot: UInt
  package let freeInSlabs: UInt
  package let slabCount: UInt
  package let slabBytes: UInt
  /// Items that left the keg or the depot: requests that no array could serve.
  package let requests: UInt
  package let failures: UInt
  /// Items that came through the depot, freed by one thread and used by another,
  /// or by the same one later (XDOMAIN).
  package let exchanged: UInt
  package let bucketEntries: Int
  /// The most items; 0: no limit.
  package let limit: UInt
  /// Allocations that slept at the limit.
  package let sleeps: UInt

  package var items: UInt { used &+ inArrays &+ inDepot &+ freeInSlabs }
  package var free: UInt { items &- used }

  /// - Parameter inArrays: items of `zone` in threads' arrays.
  package init(_ zone: UnsafeMutablePointer<Zone>, inArrays arrays: UInt) {
    zone.pointee.lock.lock()
    let depot = UInt(bitPattern: zone.pointee.depotItems)
    let statistics = zone.pointee.statistics
    bucketEntries = zone.pointee.bucketEntries
    limit = UInt(bitPattern: zone.limitItems)
    sleeps = zone.pointee.limit.sleeps
    zone.pointee.lock.unlock()
    var slabs: UInt = 0
    var bytes: UInt = 0
    var free: UInt = 0
    var taken: UInt = 0
    if let keg = zone.pointee.keg {
      let all = keg.totals()
      slabs = all.slabs
      bytes = slabs &* keg.pointee.layout.byteCount
      free = all.freeItems
      taken = slabs &* keg.pointee.layout.itemCount &- free
    }
    // A keg may serve several zones of the program, and a cache zone has none.
    if zone.pointee.keg == nil || zone.pointee.keg.unsafelyUnwrapped.pointee.bin == 0 {
      taken = statistics.imported &- statistics.released
    }
    name = zone.pointee.name
    size = zone.pointee.itemSize
    inArrays = min(arrays, taken)
    inDepot = min(depot, taken &- inArrays)
    used = taken &- inArrays &- inDepot
    freeInSlabs = free
    slabCount = slabs
    slabBytes = bytes
    requests = statistics.imported &+ statistics.taken
    failures = statistics.failures
    exchanged = statistics.taken
  }
}

/// The whole process. Bytes throughout.
package struct Totals {
  /// Committed for user memory: all of the heap.
  package var heap: UInt = 0
  package var usedSmall: UInt = 0
  package var cachedSmall: UInt = 0
  /// Free items and tails of slabs.
  package var freeInSlabs: UInt = 0
  /// Bytes of all slabs.
  package var slabs: UInt = 0
  /// How many free items they have.
  package var freeItems: UInt = 0
  package var usedLarge: UInt = 0
  /// Free spans that may hold dirty pages, and those known to be zero.
  package var dirty: UInt = 0
  package var clean: UInt = 0
  package var metadata: UInt = 0
  package var purged: UInt = 0
  package var purgeCount: UInt = 0
  package var threads: UInt = 0

  package init() {}

  package mutating func add(_ row: ZoneRow) {
    usedSmall &+= row.used &* row.size
    slabs &+= row.slabBytes
    freeItems &+= row.free
    cachedSmall &+= (row.inArrays &+ row.inDepot) &* row.size
    freeInSlabs &+= row.slabBytes &- row.used &* row.size &- (row.inArrays &+ row.inDepot) &* row.size
  }

  package var used: UInt { usedSmall &+ usedLarge }
}
