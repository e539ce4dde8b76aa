// Tick.swift: what happens now and then instead of at every call.
//
// Slow paths count events; every few of them the clock is read (a few nanoseconds
// through the vDSO), and when an eighth of the decay time has passed one thread
// ends the interval for the process: freed pages whose time is over go back to
// the kernel, and every zone re-estimates its working set and trims its depot.

import Base
import Keg
import Platform
import SizeClass
import Synchronization
import Zone

struct Ticker: ~Copyable {
  /// Held by the thread that runs a tick; others pass by.
  let lock = Lock(rank: .none)
  /// Time of the last tick, nanoseconds. Written under the lock, read without: relaxed,
  /// who reads a stale one is told by the next look.
  let last = Atomic<UInt64>(0)
}

/// Runs a tick if one is due, and honours a request to drain this thread's bins.
/// Called between `enter` and `leave`.
func tick(_ cache: UnsafeMutablePointer<ThreadCache>) {
  if cache.pointee.drainRequest.load(ordering: .relaxed) != 0 {
    let request = cache.pointee.drainRequest.exchange(0, ordering: .relaxed)
    if request == DrainRequest.everything.rawValue { cache.flush() } else { cache.evictIdleBins() }
  }
  tickIfDue()
}

/// Ends the interval when its time is over. Any thread, no lock held.
@_optimize(size)
func tickIfDue() {
  let now = keg_monotonic_nanoseconds()
  let decay = UInt64(process.pointee.options[.decay]) &* 1_000_000
  let interval = max(decay / 8, 4_000_000)
  if now &- process.pointee.ticker.last.load(ordering: .relaxed) < interval { return }
  guard process.pointee.ticker.lock.tryLock() else { return }
  if let heap = process.pointee.heap,
    now &- process.pointee.ticker.last.load(ordering: .relaxed) >= interval
  {
    process.pointee.ticker.last.store(now, ordering: .relaxed)
    heap.pointee.now = now
    process.pointee.forEachZone { $0.tick() }
    process.pointee.layerAbove.tick?(now)
    heap.agePeak(by: 64)
    if now > decay { _ = heap.purge(notAfter: now &- decay) }
  }
  process.pointee.ticker.lock.unlock()
}

/// Before the heap grows: what a phase of the program has left in caches goes back to
/// its slabs, where other sizes can have it. A few cached items keep many slabs from
/// becoming free when they are the last ones of their slabs; so all threads are asked
/// for what lies in idle bins, and idle depots are emptied.
/// - Returns: true when depots held much, a part in 32 and 2 MiB at least, which they
///   hold no longer; so the heap need not grow yet.
@_optimize(size)
func relieve(heapBytes: UInt) -> Bool {
  requestDrains(.idleBins)
  var cached: UInt = 0
  process.pointee.forEachZone {
    cached &+= UInt(bitPattern: $0.countDepotItems()) &* $0.pointee.itemSize
  }
  if cached < max(heapBytes / 32, 1 &<< 21) {
    process.pointee.forEachZone { $0.drainIfIdle() }
    return false
  }
  process.pointee.forEachZone { if $0.countDepotItems() > 0 { $0.reclaim(.drain) } }
  return true
}

/// Depots hold more than they should together: those go that were not used since they
/// were last looked at here, until it is enough.
@inline(never)
func drainIdleDepots() {
  guard let pools = process.pointee.bucketPools else { return }
  var left = SizeClass.count
  while left > 0, pools.pointee.depotBytes > pools.pointee.depotBudget / 4 &* 3 {
    let hand = process.pointee.depotHand.wrappingAdd(1, ordering: .relaxed).newValue
    if let zone = process.pointee.existingZone(1 &+ hand % SizeClass.count), zone.hasFullBuckets {
      zone.drainIfIdle()
    }
    left &-= 1
  }
}

/// Takes back all that can be had without other threads' help.
/// - Returns: whether it is worth trying again.
func reclaimAll() -> Bool {
  guard let heap = process.pointee.heap else { return false }
  requestDrains(.everything)
  process.pointee.forEachZone { $0.reclaim(.drainCPU) }
  return heap.purge(notAfter: .max) > 0
}

/// Asks every thread for cached items; each hands them over at its next slow path.
///
/// Called with the caller's own cache locked, against the order of locks: when the
/// list is busy, nobody is asked.
func requestDrains(_ request: DrainRequest) {
  guard process.pointee.threadListLock.tryLockOutOfOrder() else { return }
  process.pointee.threads.forEach {
    // Requests are made with the list locked: none is lost.
    if $0.pointee.drainRequest.load(ordering: .relaxed) < request.rawValue {
      $0.pointee.drainRequest.store(request.rawValue, ordering: .relaxed)
    }
  }
  process.pointee.threadListLock.unlockOutOfOrder()
}

/// malloc_trim(3): everything goes back that is not in other threads' arrays, and
/// those at their next slow path.
/// - Returns: 1 when memory went back to the kernel.
@c public func keg_trim(_ keep: UInt) -> Int32 {
  let isIn = isRunning && process.pointee.layerAbove.stepIn?(true) ?? false
  defer { if isIn { process.pointee.layerAbove.stepOut?() } }
  let entry = enter()
  defer { leave(entry) }
  if case .emergency = entry { return 0 }
  guard case .bins(let cache) = entry else { return reclaimAll() ? 1 : 0 }
  cache.flush()
  let didPurge = reclaimAll()
  // reclaimAll asks every thread, this one too, which has nothing left.
  cache.pointee.drainRequest.store(0, ordering: .relaxed)
  return didPurge ? 1 : 0
}
