// Zone.swift: items of one kind, cached between the threads and a keg (U01–U15).
//
//   bins of threads ⇄ depot: full buckets ⇄ keg: slabs          (or an import function)
//      no lock           zone lock             keg lock
//
// An allocation is satisfied by the first of: the thread's loaded bucket, its
// previous bucket, a full bucket of the depot, a bucket filled from the keg, a
// single item of the keg. Frees go the same way back. Full buckets move whole, so
// items that one thread frees and another allocates cost one lock per bucket.
//
// - Invariant: items of the keg == in use + in bins + in the depot + free in slabs.
// Lock: rank `zone`; not held while filling or draining a bucket.
// Source: FreeBSD UMA; Bonwick & Adams 2001 §3 for the depot.

import Base
import Keg
import Pages
import Platform
import Synchronization

package struct ZoneFlags: Flags {
  package let rawValue: UInt64
  package init(rawValue: UInt64) { self.rawValue = rawValue }
  /// One of the allocator's own.
  package static var isInternal: ZoneFlags { ZoneFlags(rawValue: 1 << 0) }
  /// Shares the keg of another zone (U26).
  package static var secondary: ZoneFlags { ZoneFlags(rawValue: 1 << 1) }
  /// Over import and release functions instead of a keg (U28).
  package static var cache: ZoneFlags { ZoneFlags(rawValue: 1 << 2) }
  /// No buckets: every item goes to and from the keg.
  package static var noBucket: ZoneFlags { ZoneFlags(rawValue: 1 << 3) }
}

/// Where a cache zone gets items from.
/// - Returns: how many of `count` were stored.
package typealias ItemImport =
  @convention(c) (
    _ argument: UnsafeMutableRawPointer?, _ items: UnsafeMutablePointer<UInt>, _ count: Int32,
    _ flags: Int32
  ) -> Int32
/// Where a cache zone puts items back.
package typealias ItemRelease =
  @convention(c) (
    _ argument: UnsafeMutableRawPointer?, _ items: UnsafeMutablePointer<UInt>, _ count: Int32
  ) -> Void

/// The caller's hooks of a zone (U03).
package struct ZoneHooks {
  /// An item crosses from the keg to the zone; non-zero is failure.
  package var itemInit: InitFunction? = nil
  /// An item crosses from the zone to the keg.
  package var itemFini: FiniFunction? = nil
  package var importItems: ItemImport? = nil
  package var releaseItems: ItemRelease? = nil
  package var argument: UnsafeMutableRawPointer? = nil
  package init() {}
}

package struct Zone: Linked, ~Copyable {
  package var next: UnsafeMutablePointer<Zone>?
  package var previous: UnsafeMutablePointer<Zone>?
  package let lock: Lock
  package let itemSize: UInt
  package let flags: ZoneFlags
  /// NUL-terminated; owned by who made the zone.
  package let name: UnsafePointer<CChar>
  package let keg: UnsafeMutablePointer<Keg>?
  package let hooks: ZoneHooks
  package let pools: UnsafeMutablePointer<BucketPools>

  // The depot; the zone lock protects everything from here on. `full` and `entries`
  // are written under it and read without: relaxed, for a stale value only makes a
  // thread fill a bucket itself, or one of yesterday's size.
  let full: Atomic<UnsafeMutablePointer<Bucket>?>
  let entries: Atomic<Int>
  var empty: UnsafeMutablePointer<Bucket>?
  var emptyCount: Int
  package internal(set) var workingSet: WorkingSet
  /// Items that a reclaim has taken from the depot and not released yet.
  var reclaimed: Int
  package internal(set) var startEntries: Int
  package var mostEntries: Int
  /// The depot takes no more items than this.
  package var mostItems: Int

  /// The depot was used since `drainIfIdle` last looked.
  var isDepotWarm: Bool

  package var statistics: ZoneStatistics
  package var limit: Limit

  /// Items of more bytes gain nothing from lying beside their neighbours.
  static var largestSorted: UInt { 512 }
  /// A bucket of no more items is sooner exchanged whole than sorted into slabs.
  static var fewItems: Int { 16 }
  /// Empty buckets that a depot keeps for the next exchange.
  static var mostEmpty: Int { 4 }

  /// - Parameter bucketScale: how many times UMA's figure the buckets start with.
  package init(
    name: UnsafePointer<CChar>, itemSize: UInt, keg: UnsafeMutablePointer<Keg>?,
    pools: UnsafeMutablePointer<BucketPools>, hooks: ZoneHooks = ZoneHooks(),
    flags: ZoneFlags = .none, bucketScale: Int = 1
  ) {
    next = nil
    previous = nil
    lock = Lock(rank: .zone)
    self.itemSize = itemSize
    self.flags = flags
    self.name = name
    self.keg = keg
    self.hooks = hooks
    self.pools = pools
    full = Atomic(nil)
    empty = nil
    emptyCount = 0
    workingSet = WorkingSet()
    reclaimed = 0
    let entries =
      flags.contains(.noBucket) || flags.contains(.isInternal)
      ? 0 : bucketScale &* BucketSize.entries(forItemSize: itemSize)
    self.entries = Atomic(entries)
    startEntries = entries
    mostEntries = entries == 0 ? 0 : max(entries, BucketSize.largest)
    mostItems = .max
    isDepotWarm = false
    statistics = ZoneStatistics()
    limit = Limit()
  }

  /// Entries of the buckets that threads should use now.
  package internal(set) var bucketEntries: Int {
    get { entries.load(ordering: .relaxed) }
    nonmutating set { entries.store(newValue, ordering: .relaxed) }
  }

  /// Items in the depot, or on their way from there to the keg. Called with the zone lock
  /// held.
  package var depotItems: Int { workingSet.items &+ reclaimed }
}

// MARK: - Depot

extension UnsafeMutablePointer where Pointee == Zone {
  @inline(__always)
  private func lockDepot() {
    if pointee.lock.lockReportingContention() {
      // U09: waiting here means the buckets are too small for this many threads.
      pointee.statistics.contended &+= 1
      if pointee.bucketEntries < pointee.mostEntries { pointee.bucketEntries &+= 1 }
    }
  }

  /// Takes the depot's latest bucket, and leaves an empty one in return.
  /// - Parameter returned: an empty bucket, which is the zone's when this returns
  ///   a bucket and stays the caller's otherwise.
  package func takeBucket(
    returning returned: UnsafeMutablePointer<Bucket>?
  ) -> UnsafeMutablePointer<Bucket>? {
    // A stale nil only means that this thread fills a bucket itself.
    if pointee.full.load(ordering: .relaxed) == nil { return nil }
    lockDepot()
    guard let bucket = popFull() else {
      pointee.lock.unlock()
      return nil
    }
    pointee.workingSet.take(Int(bucket.pointee.count))
    pointee.statistics.taken &+= UInt(bucket.pointee.count)
    let surplus = keepEmpty(returned)
    pointee.lock.unlock()
    if let surplus { pointee.pools.pointee.give(surplus) }
    return bucket
  }

  /// Puts a bucket with items into the depot.
  /// - Parameter isForOthers: whether small items may stay in the depot; if not, and if they
  ///   are enough for many to lie in one slab, they go to their slabs.
  /// - Returns: an empty bucket in exchange, if the depot has one.
  package func putBucket(
    _ bucket: UnsafeMutablePointer<Bucket>, _ isForOthers: Bool = true
  ) -> UnsafeMutablePointer<Bucket>? {
    let count = Int(bucket.pointee.count)
    if !isForOthers, pointee.itemSize <= Zone.largestSorted, count > Zone.fewItems {
      drain(bucket)
      return bucket
    }
    lockDepot()
    if pointee.workingSet.items &+ count > depotLimit {
      pointee.lock.unlock()
      drain(bucket)
      return bucket
    }
    pushFull(bucket)
    pointee.workingSet.put(count)
    pointee.statistics.put &+= UInt(bitPattern: count)
    let exchanged = pointee.empty
    if let exchanged {
      pointee.empty = exchanged.pointee.next
      pointee.emptyCount &-= 1
    }
    pointee.lock.unlock()
    return exchanged
  }

  /// How many items the depot may hold: as many bytes as all depots together should,
  /// but two buckets at least, and no more than `mostItems`. What a burst frees beyond
  /// that goes to its slabs, where other sizes can have the memory.
  ///
  /// Small items have a depot for what threads hand to each other, a bucket for each
  /// thread. Otherwise slabs serve them better: a bucket comes back in the order of its
  /// frees, slabs give neighbours.
  @inline(__always)
  private var depotLimit: Int {
    let share = pointee.pools.pointee.depotBudget / Int(bitPattern: max(pointee.itemSize, 1))
    let most = min(max(2 &* pointee.bucketEntries, share), pointee.mostItems)
    if pointee.itemSize > Zone.largestSorted { return most }
    return min(most, pointee.pools.pointee.exchangedBuckets &* pointee.bucketEntries)
  }

  /// Items in the depot now, which a reclaim can have. Takes the zone lock.
  package func countDepotItems() -> Int {
    pointee.lock.lock()
    defer { pointee.lock.unlock() }
    return pointee.workingSet.items
  }

  /// Takes over a bucket of a thread that ends, or of one that is drained.
  package func adopt(_ bucket: UnsafeMutablePointer<Bucket>) {
    if bucket.pointee.count == 0 {
      pointee.pools.pointee.give(bucket)
      return
    }
    pointee.lock.lock()
    pushFull(bucket)
    pointee.workingSet.drainInto(Int(bucket.pointee.count))
    pointee.lock.unlock()
  }

  private func pushFull(_ bucket: UnsafeMutablePointer<Bucket>) {
    pointee.isDepotWarm = true
    pointee.pools.pointee.countDepot(Int(bucket.pointee.count) &* Int(bitPattern: pointee.itemSize))
    bucket.pointee.next = pointee.full.load(ordering: .relaxed)
    pointee.full.store(bucket, ordering: .relaxed)
  }

  func popFull() -> UnsafeMutablePointer<Bucket>? {
    guard let bucket = pointee.full.load(ordering: .relaxed) else { return nil }
    pointee.full.store(bucket.pointee.next, ordering: .relaxed)
    pointee.isDepotWarm = true
    pointee.pools.pointee.countDepot(
      0 &- Int(bucket.pointee.count) &* Int(bitPattern: pointee.itemSize))
    return bucket
  }

  /// Keeps an empty bucket unless there are enough; returns it if so.
  private func keepEmpty(
    _ bucket: UnsafeMutablePointer<Bucket>?
  ) -> UnsafeMutablePointer<Bucket>? {
    guard let bucket, pointee.emptyCount < Zone.mostEmpty else { return bucket }
    bucket.pointee.next = pointee.empty
    pointee.empty = bucket
    pointee.emptyCount &+= 1
    return nil
  }
}

// MARK: - Keg side

extension UnsafeMutablePointer where Pointee == Zone {
  /// Fills an empty bucket with up to `count` items; pops take the lowest first.
  package func fill(_ bucket: UnsafeMutablePointer<Bucket>, _ count: Int) {
    let got = importItems(count, into: bucket.slots, .noWait)
    bucket.pointee.count = UInt32(truncatingIfNeeded: got)
  }

  /// Gives all items of a bucket back to the keg; the bucket is empty then.
  /// - Parameter reclaimed: `reclaimed` counts the items.
  package func drain(_ bucket: UnsafeMutablePointer<Bucket>, reclaimed: Bool = false) {
    releaseItems(bucket.slots, Int(bucket.pointee.count), reclaimed: reclaimed)
    bucket.pointee.count = 0
  }

  /// Gives a bucket's items back to the keg, and the bucket to its pool.
  package func giveBack(_ bucket: UnsafeMutablePointer<Bucket>) {
    drain(bucket)
    pointee.pools.pointee.give(bucket)
  }

  /// One item past all caches, or 0 when there is no memory.
  package func allocateItem(_ flags: TakeFlags = .noWait) -> UInt {
    var item: UInt = 0
    let got = withUnsafeMutablePointer(to: &item) { importItems(1, into: $0, flags) }
    pointee.lock.lock()
    pointee.statistics.withoutBucket &+= 1
    pointee.lock.unlock()
    return got == 1 ? item : 0
  }

  package func freeItem(_ item: UInt) {
    var item = item
    withUnsafeMutablePointer(to: &item) { releaseItems($0, 1) }
    pointee.lock.lock()
    pointee.statistics.withoutBucket &+= 1
    pointee.lock.unlock()
  }

  /// Up to `count` items from the keg or the import function, as far as the limit
  /// allows; with `.granted` the limit has been asked.
  func importItems(
    _ count: Int, into out: UnsafeMutablePointer<UInt>, _ flags: TakeFlags
  ) -> Int {
    let isLimited = isLimited || flags.contains(.granted)
    let count = !isLimited || flags.contains(.granted) ? count : grant(upTo: count)
    var got: Int
    if count == 0 {
      got = 0
    } else if let keg = pointee.keg {
      got = keg.take(
        count, into: out, mayGrow: !flags.contains(.noGrowth),
        useReserve: flags.contains(.useReserve))
    } else {
      got = importFromOutside(count, into: out, flags)
    }
    if pointee.hooks.itemInit != nil { got = initItems(out, got, flags) }
    pointee.lock.lock()
    pointee.statistics.imported &+= UInt(bitPattern: got)
    if got == 0 { pointee.statistics.failures &+= 1 }
    let waiter = isLimited ? settle(granted: count, taken: got) : nil
    pointee.lock.unlock()
    waiter?.wake()
    return got
  }

  private func importFromOutside(
    _ count: Int, into out: UnsafeMutablePointer<UInt>, _ flags: TakeFlags
  ) -> Int {
    // The program's function runs outside the allocator, a keg's does not.
    let section = pointee.flags.contains(.cache) ? keg_step_outside() : 0
    let got = pointee.hooks.importItems?(
      pointee.hooks.argument, out, Int32(truncatingIfNeeded: count), flags.alloc)
    keg_step_inside(section)
    return Int(min(max(got ?? 0, 0), Int32(truncatingIfNeeded: count)))
  }

  /// Calls the zone's init for items that came from the keg.
  /// - Returns: how many succeeded; the rest went back (U03).
  private func initItems(
    _ items: UnsafeMutablePointer<UInt>, _ count: Int, _ flags: TakeFlags
  ) -> Int {
    var done = 0
    let section = keg_step_outside()
    while done < count {
      let item = UnsafeMutableRawPointer(bitPattern: items[done])
      if pointee.hooks.itemInit?(item, Int(bitPattern: pointee.itemSize), flags.alloc) != 0 { break }
      done &+= 1
    }
    keg_step_inside(section)
    if done < count { returnRaw(items + done, count &- done) }
    return done
  }

  func releaseItems(
    _ items: UnsafeMutablePointer<UInt>, _ count: Int, reclaimed: Bool = false
  ) {
    if count == 0 { return }
    if let itemFini = pointee.hooks.itemFini {
      let section = keg_step_outside()
      var i = 0
      while i < count {
        itemFini(
          UnsafeMutableRawPointer(bitPattern: items[i]), Int(bitPattern: pointee.itemSize))
        i &+= 1
      }
      keg_step_inside(section)
    }
    returnRaw(items, count)
    pointee.lock.lock()
    pointee.statistics.released &+= UInt(bitPattern: count)
    if reclaimed { pointee.reclaimed &-= count }
    let waiter = isLimited ? grantNext() : nil
    pointee.lock.unlock()
    waiter?.wake()
  }

  private func returnRaw(_ items: UnsafeMutablePointer<UInt>, _ count: Int) {
    if let keg = pointee.keg {
      keg.give(items, count)
    } else {
      let section = pointee.flags.contains(.cache) ? keg_step_outside() : 0
      pointee.hooks.releaseItems?(
        pointee.hooks.argument, items, Int32(truncatingIfNeeded: count))
      keg_step_inside(section)
    }
  }
}
