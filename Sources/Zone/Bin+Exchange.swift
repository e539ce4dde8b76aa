// Bin+Exchange.swift: the steps of refill and makeRoom one by one, for zones with
// functions of the program.
//
// Those functions are called with no lock held and may use the same zone, so a bucket
// that is being filled or drained must not be in a bin, and the bin is looked at again
// afterwards:
//
//   take:  pop │ previous │ depot        give:  push │ previous │ detach the full one
//          ── bin free ──                       ── bin free ──
//          fill a bucket                        full one to the depot
//          ── bin again ── install              ── bin again ── install an empty one

import Base
import Synchronization

extension UnsafeMutablePointer where Pointee == Bin {
  /// Takes the previous bucket out.
  package func takePrevious() -> UnsafeMutablePointer<Bucket>? {
    if pointee.previous == 0 { return nil }
    let bucket = pointee.previous.pointer(to: Bucket.self)
    pointee.previous = 0
    return bucket
  }

  /// Pops, after a swap if need be; 0: both buckets are empty.
  package func popEither() -> UInt {
    if pointee.top == pointee.low, !swapForItems() { return 0 }
    pointee.top = pointee.top &- 8
    return pointee.top.word
  }

  /// Pushes, after a swap if need be; false: both buckets are full or absent.
  package func pushEither(_ item: UInt) -> Bool {
    if pointee.top == pointee.high, !swapForRoom() { return false }
    pointee.top.word = item
    pointee.top = pointee.top &+ 8
    return true
  }

  /// Loads a full bucket of the depot into an empty bin.
  /// - Returns: false when the depot has none.
  package func loadFull(from zone: UnsafeMutablePointer<Zone>) -> Bool {
    let spent = unload()
    if let bucket = zone.takeBucket(returning: spent) {
      load(bucket)
      return true
    }
    if let spent { load(spent) }
    return false
  }

  /// Loads `bucket` if the loaded one is absent or empty; else it goes to the zone.
  package func install(_ bucket: UnsafeMutablePointer<Bucket>, _ zone: UnsafeMutablePointer<Zone>) {
    if pointee.low != 0, pointee.top != pointee.low {
      zone.adopt(bucket)
      return
    }
    if let spent = unload() {
      if pointee.previous == 0 {
        pointee.previous = spent.address
      } else {
        zone.pointee.pools.pointee.give(spent)
      }
    }
    load(bucket)
  }

  /// Makes place for an empty bucket in a full bin.
  /// - Returns: the previous bucket, which is full, for the depot; nil: there was none.
  package func detachFull() -> UnsafeMutablePointer<Bucket>? {
    let full = takePrevious()
    pointee.previous = unload()?.address ?? 0
    return full
  }

  /// Loads an empty bucket where none is loaded; else it goes back to its pool.
  package func installEmpty(
    _ bucket: UnsafeMutablePointer<Bucket>, _ zone: UnsafeMutablePointer<Zone>
  ) {
    if pointee.low != 0 { zone.pointee.pools.pointee.give(bucket) } else { load(bucket) }
  }

  package var isUnused: Bool { pointee.low == 0 && pointee.previous == 0 }

  /// Calls `body` with every item in both buckets.
  package func forEachItem(_ body: (UInt) -> Void) {
    var address = pointee.low
    while address != pointee.top {
      body(address.word)
      address = address &+ 8
    }
    if pointee.previous != 0 {
      let other = pointee.previous.pointer(to: Bucket.self)
      var i = 0
      while i < Int(other.pointee.count) {
        body(other.slots[i])
        i &+= 1
      }
    }
  }
}

extension UnsafeMutablePointer where Pointee == Zone {
  /// Calls `body` with every item in the depot. Takes the zone lock.
  package func forEachDepotItem(_ body: (UInt) -> Void) {
    pointee.lock.lock()
    var bucket = pointee.full.load(ordering: .relaxed)
    while let here = bucket {
      var i = 0
      while i < Int(here.pointee.count) {
        body(here.slots[i])
        i &+= 1
      }
      bucket = here.pointee.next
    }
    pointee.lock.unlock()
  }

  /// Up to `count` items past all caches, straight to `out`.
  package func takeMany(
    _ count: Int, into out: UnsafeMutablePointer<UInt>, _ flags: TakeFlags
  ) -> Int {
    var got = 0
    while got < count {
      let more = importItems(count &- got, into: out + got, flags)
      if more == 0 { break }
      got &+= more
    }
    return got
  }

  /// Gives items back past all caches.
  package func giveMany(_ items: UnsafeMutablePointer<UInt>, _ count: Int) {
    releaseItems(items, count)
  }

  /// The size of buckets from now on, which reclaims leave: `cache_capacity`, a limit.
  package func setBucketEntries(_ entries: Int, most: Int, depotItems: Int) {
    pointee.lock.lock()
    pointee.bucketEntries = entries
    pointee.startEntries = entries
    pointee.mostEntries = most
    pointee.mostItems = depotItems
    pointee.lock.unlock()
  }

  /// Gives the empty buckets of the depot back to their pools; for a zone that ends.
  package func giveEmptyBuckets() {
    pointee.lock.lock()
    var bucket = pointee.empty
    pointee.empty = nil
    pointee.emptyCount = 0
    pointee.lock.unlock()
    while let here = bucket {
      bucket = here.pointee.next
      pointee.pools.pointee.give(here)
    }
  }
}

extension UnsafeMutablePointer where Pointee == Zone {
  /// Ends an interval of the working-set estimate; the trim is left to somebody else.
  package func tickWithoutTrim() {
    pointee.lock.withLock { pointee.workingSet.tick() }
  }

  /// Gives back what the depot has beyond the working set.
  package func trimSurplus() {
    pointee.lock.lock()
    let isSurplus = pointee.workingSet.items > pointee.workingSet.size
    pointee.lock.unlock()
    if isSurplus { reclaim(.trim) }
  }
}
