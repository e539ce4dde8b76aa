// Fork.swift: fork(2) with other threads inside the allocator (G08–G10).
//
// Before fork every lock is taken in rank order, so that nothing is half done in
// the child; the parent drops them again, the child resets them: their holders
// are gone. The child then takes over what the threads that it does not have had
// cached, as far as that is certain (`ThreadCache.adoptOrphan`).
//
// A process of one thread takes none. They lie in every zone and keg, a dozen pages,
// which parent and child would both copy for nothing: shells fork all the time.

import Base
import Keg
import Pages
import Platform
import Synchronization
import Vmem
import Zone

/// pthread_atfork's prepare.
func forkPrepare() {
  guard isRunning else { return }
  let bins = keg_get_thread_bins()
  if bins == keg_bins_busy() {
    // A handler forks over a slow path of its own thread: no lock can be waited for.
    if process.pointee.forkOwner == keg_thread_pointer() { process.pointee.forksInHandlers &+= 1 }
    return
  }
  // Handlers between here and the end of fork are served by the pool.
  setThreadBins(keg_bins_busy())
  process.pointee.forkTookLocks = !isOnlyThread
  if process.pointee.forkTookLocks { forEachLock(.take) }
  process.pointee.forkOwner = keg_thread_pointer()
  process.pointee.forkBins = bins
}

/// pthread_atfork's parent.
func forkParent() {
  guard isRunning, let bins = endFork() else { return }
  if process.pointee.forkTookLocks { forEachLock(.drop) }
  setThreadBins(bins)
}

/// pthread_atfork's child.
func forkChild() {
  guard isRunning else { return }
  let end = endFork()
  let bins = end ?? keg_get_thread_bins()
  if end == nil || process.pointee.forkTookLocks { forEachLock(.reset) }
  keg_mark_process { forkOrphaned() }
  process.pointee.hasBackgroundThread = false
  adoptOrphans(own: bins)
  setThreadBins(bins)
}

/// A child that came to be by _Fork or a raw clone finds a lock held: its holder is
/// not in this process. What that one left half done may be wrong; POSIX lets such
/// a child call async-signal-safe functions only. It shall not hang at least.
func forkOrphaned() {
  forEachLock(.reset)
  process.pointee.hasBackgroundThread = false
  process.pointee.forkOwner = 0
  process.pointee.layerAbove.orphaned?()
}

/// Whether nobody can hold a lock but who asks. The debug library looks for leaks on a
/// thread of its own, of which the C library does not know.
private var isOnlyThread: Bool {
  keg_is_single_threaded() && !process.pointee.hasBackgroundThread
    && process.pointee.heap?.pointee.forgetRecords == nil
}

/// What TLS held when the calling thread prepared its fork; nil when it took no locks.
private func endFork() -> UInt? {
  guard process.pointee.forkOwner == keg_thread_pointer() else { return nil }
  if process.pointee.forksInHandlers > 0 {
    process.pointee.forksInHandlers &-= 1
    return nil
  }
  process.pointee.forkOwner = 0
  return process.pointee.forkBins
}

/// Takes, drops or resets every lock, in rank order.
private func forEachLock(_ action: LockAction) {
  guard let heap = process.pointee.heap else { return }
  let above = layerAbove
  action.apply(to: bootLock)
  action.apply(to: process.pointee.threadListLock)
  process.pointee.threads.forEach { action.apply(to: $0.pointee.lock) }
  action.apply(to: process.pointee.ticker.lock)
  // Dropped last: no zone may come or go between the two rounds.
  if action != .drop { action.apply(to: process.pointee.registryLock) }
  process.pointee.forEachZone { action.apply(to: $0.pointee.lock) }
  above.pointee.forEachLock(.zones, action)
  process.pointee.forEachKeg { action.apply(to: $0.pointee.lock) }
  above.pointee.forEachLock(.kegs, action)
  action.apply(to: heap.pointee.lock)
  var number: UInt = 0
  while let home = heap.home(number) {
    action.apply(to: home.pointee.lock)
    number &+= 1
  }
  above.pointee.forEachLock(.arenas, action)
  action.apply(to: heap.pointee.arena.pointee.lock)
  action.apply(to: heap.pointee.outsideArena.pointee.lock)
  action.apply(to: heap.pointee.outside.lock)
  action.apply(to: heap.pointee.metadata.pointee.lock)
  if action == .drop { action.apply(to: process.pointee.registryLock) }
}

/// Hands the cached items of threads that are not in this process to the zones.
private func adoptOrphans(own: UInt) {
  var cache = process.pointee.threads.head
  while let here = cache {
    cache = here.pointee.next
    if here.bins != own {
      here.adoptOrphan()
      process.pointee.threads.remove(here)
      dropNumber(of: here)
      process.pointee.threadCaches.unsafelyUnwrapped.pointee.give(here.address)  // made at boot
    }
  }
}
