// Zone+Reclaim.swift: giving back what a zone caches (U10, U13–U15).
//
// Takes the zone lock to pick buckets, and drains them without it.

import Base
import Keg
import Synchronization

// MARK: - Reclaim

/// How much a reclaim takes back (U15).
package enum ReclaimLevel {
  /// The depot down to the working set.
  case trim
  /// The whole depot.
  case drain
  /// The depot, and bucket sizes shrink faster; the caller empties the threads' arrays.
  case drainCPU
}

extension UnsafeMutablePointer where Pointee == Zone {
  /// Gives cached items back to the keg, and the keg's free slabs to the heap.
  @_optimize(size)
  package func reclaim(_ level: ReclaimLevel) {
    pointee.lock.lock()
    shrinkBuckets(level)
    let target = level == .trim ? pointee.workingSet.size : 0
    var chain: UnsafeMutablePointer<Bucket>? = nil
    while pointee.workingSet.items > target, let bucket = popFull() {
      let count = Int(bucket.pointee.count)
      pointee.workingSet.reclaim(count)
      pointee.reclaimed &+= count
      bucket.pointee.next = chain
      chain = bucket
    }
    pointee.lock.unlock()
    while let bucket = chain {
      chain = bucket.pointee.next
      drain(bucket, reclaimed: true)
      pointee.pools.pointee.give(bucket)
    }
    pointee.keg?.drain()
  }

  /// Whether the depot holds anything; a moment later it may be otherwise.
  package var hasFullBuckets: Bool { pointee.full.load(ordering: .relaxed) != nil }

  /// Gives the whole depot back unless it was used since the last time this was asked:
  /// the hand of a clock over all zones.
  package func drainIfIdle() {
    pointee.lock.lock()
    let isWarm = pointee.isDepotWarm
    pointee.isDepotWarm = false
    pointee.lock.unlock()
    if !isWarm { reclaim(.drain) }
  }

  /// U10: one entry less a reclaim, half the way back on DRAIN_CPU.
  private func shrinkBuckets(_ level: ReclaimLevel) {
    let start = pointee.startEntries
    if pointee.bucketEntries <= start { return }
    pointee.bucketEntries =
      level == .drainCPU ? (start &+ pointee.bucketEntries) / 2 : pointee.bucketEntries &- 1
  }

  /// Ends an interval of the working-set estimate, and trims what was long unused.
  package func tick() {
    pointee.lock.lock()
    pointee.workingSet.tick()
    let isSurplus = pointee.workingSet.items > pointee.workingSet.size
    pointee.lock.unlock()
    if isSurplus { reclaim(.trim) }
  }

  /// Real in the INVARIANTS build: the depot's buckets hold what the counts say.
  package func checkInvariants() {
    #if INVARIANTS
      pointee.lock.lock()
      var items = 0
      var bucket = pointee.full.load(ordering: .relaxed)
      while let here = bucket {
        invariant(here.pointee.count > 0, "zone: empty bucket among the full ones")
        items += Int(here.pointee.count)
        bucket = here.pointee.next
      }
      invariant(items == pointee.workingSet.items, "zone: depot count differs from its buckets")
      pointee.lock.unlock()
    #endif
  }
}
