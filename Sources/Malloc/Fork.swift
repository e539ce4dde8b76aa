// Fork.swift: fork(2) with other threads inside the allocator (G08–G10).
//
// Before fork every lock is taken in rank order, so that nothing is half done in
// the child; the parent drops them again, the child resets them: their holders
// are gone. The child then takes over what the threads that it does not have had
// cached.

import Base
import Keg
import Pages
import Platform
import Synchronization
import Vmem
import Zone

/// pthread_atfork's prepare.
func forkPrepare() {
  guard isRunning, mayLock() else { return }
  forEachLock { $0.lock() }
}

/// pthread_atfork's parent.
func forkParent() {
  guard isRunning, mayLock() else { return }
  forEachLock { $0.unlock() }
}

/// pthread_atfork's child.
func forkChild() {
  guard isRunning else { return }
  forEachLock { $0.reset() }
  adoptOrphans()
}

/// A handler that forks over a slow path must not wait for its own thread.
private func mayLock() -> Bool {
  if case .attached(let cache) = currentThread() { return cache.pointee.busy == 0 }
  return true
}

/// Calls `body` with every lock, in rank order.
private func forEachLock(_ body: (borrowing Lock) -> Void) {
  guard let heap = process.pointee.heap else { return }
  body(bootLock)
  body(process.pointee.registryLock)
  process.pointee.forEachZone { body($0.pointee.lock) }
  process.pointee.forEachZone { if let keg = $0.pointee.keg { body(keg.pointee.lock) } }
  body(heap.pointee.lock)
  body(heap.pointee.arena.pointee.lock)
  body(heap.pointee.outsideArena.pointee.lock)
  body(heap.pointee.outside.lock)
  body(heap.pointee.metadata.pointee.lock)
  body(process.pointee.ticker.lock)
}

/// Hands the cached items of threads that are not in this process to the zones.
private func adoptOrphans() {
  var own: UnsafeMutablePointer<ThreadCache>? = nil
  if case .attached(let cache) = currentThread() { own = cache }
  var cache = process.pointee.threads.head
  while let here = cache {
    cache = here.pointee.next
    if here != own {
      here.flush()
      process.pointee.threads.remove(here)
      process.pointee.threadCaches.unsafelyUnwrapped.pointee.give(here.address)  // made at boot
    }
  }
}
