// ThreadCache.swift: a thread's array of bins and what goes with it.
//
//    -256                    0        32                     TLS: one pointer
//     | ThreadCache | pad    | bin 0  | bin 1 = 8 bytes | …      │
//     ▲ header                ▲ bins ◀───────────────────────────┘
//
// The TLS pointer also is the state of the thread. It points at one of three
// arrays of empty bins in .bss while the thread has no cache of its own:
//
//   unattached ──first call──▶ attaching ──▶ its own ──thread exit──▶ dead
//
// so the fast path finds an empty bin and leaves, without asking for the state.
//
// `busy` is set while the thread is in a slow path: a signal handler that comes in
// between sees it and takes the emergency path (Emergency.swift).
//
// Only the owner touches bins and header, but for `drainRequest` (written by
// anybody, honoured at the owner's next slow path), the list links (registry lock)
// and the statistics' reader, who may see counts a moment old.

import Base
import Keg
import Pages
import Platform
import SizeClass
import Synchronization
import Zone

struct ThreadCache: Linked, ~Copyable {
  var next: UnsafeMutablePointer<ThreadCache>?
  var previous: UnsafeMutablePointer<ThreadCache>?
  /// Bit c of the pair: bin c has a bucket.
  var usedLow: UInt64
  var usedHigh: UInt64
  /// Not 0: the thread is inside a slow path.
  var busy: UInt32
  /// Slow paths since the clock was last read.
  var events: UInt32
  /// Another thread asks for the bins' contents; see `requestDrains`.
  let drainRequest: Atomic<UInt32>
  /// Items freed by signal handlers that interrupted a slow path: a stack linked
  /// through their first words.
  let deferred: Atomic<UInt>
  /// How often pthread has run our key's destructor for this thread.
  var exitRounds: UInt32

  static var headerBytes: UInt { 256 }
  static var byteCount: UInt { headerBytes &+ (SizeClass.count &+ 1) &<< Bin.strideShift }

  init() {
    next = nil
    previous = nil
    usedLow = 0
    usedHigh = 0
    busy = 0
    events = 0
    drainRequest = Atomic(0)
    deferred = Atomic(0)
    exitRounds = 0
  }
}

extension UnsafeMutablePointer where Pointee == ThreadCache {
  /// What TLS holds for this cache.
  var bins: UInt { address &+ ThreadCache.headerBytes }

  func bin(_ index: UInt) -> UnsafeMutablePointer<Bin> {
    (bins &+ index &<< Bin.strideShift).pointer(to: Bin.self)
  }

  func noteUsed(_ index: UInt) {
    if index < 64 {
      pointee.usedLow |= 1 &<< UInt64(index)
    } else {
      pointee.usedHigh |= 1 &<< UInt64(index &- 64)
    }
  }

  /// Calls `body` with the index of every bin that has a bucket.
  func forEachUsedBin(_ body: (UInt) -> Void) {
    var low = pointee.usedLow
    while low != 0 {
      body(UInt(bitPattern: low.trailingZeroBitCount))
      low &= low &- 1
    }
    var high = pointee.usedHigh
    while high != 0 {
      body(64 &+ UInt(bitPattern: high.trailingZeroBitCount))
      high &= high &- 1
    }
  }

  /// Hands every cached item to its zone.
  func flush() {
    forEachUsedBin { index in
      if let zone = process.pointee.existingZone(index) { bin(index).flush(to: zone) }
    }
    pointee.usedLow = 0
    pointee.usedHigh = 0
  }
}

/// What the TLS pointer says of the calling thread.
enum ThreadState {
  case attached(UnsafeMutablePointer<ThreadCache>)
  case unattached
  case attaching
  case dead
}

@inline(__always)
func currentThread() -> ThreadState {
  let bins = keg_get_thread_bins()
  if bins == keg_bins_unattached() { return .unattached }
  if bins == keg_bins_attaching() { return .attaching }
  if bins == keg_bins_dead() { return .dead }
  return .attached((bins &- ThreadCache.headerBytes).pointer(to: ThreadCache.self))
}

/// Gives the calling thread a cache of its own.
/// - Returns: nil when there is no memory; the thread stays unattached.
func attachThread() -> UnsafeMutablePointer<ThreadCache>? {
  keg_set_thread_bins(keg_bins_attaching())
  keg_compiler_barrier()
  let memory = process.pointee.threadCaches.unsafelyUnwrapped.pointee.take()  // made at boot
  guard memory != 0 else {
    keg_set_thread_bins(keg_bins_unattached())
    return nil
  }
  let cache = memory.pointer(to: ThreadCache.self)
  cache.initialize(to: ThreadCache())
  (memory &+ ThreadCache.headerBytes).pointer(to: Bin.self)
    .initialize(repeating: Bin(), count: Int(SizeClass.count) + 1)
  process.pointee.registryLock.lock()
  process.pointee.threads.append(cache)
  process.pointee.registryLock.unlock()
  keg_compiler_barrier()
  keg_set_thread_bins(cache.bins)
  keg_watch_thread_exit(UnsafeMutableRawPointer(cache))
  process.pointee.noteThreadCount()
  return cache
}

/// The destructor of our pthread key: the thread is ending.
///
/// Other destructors may still allocate and free, so pthread is asked to call
/// again, and the cache goes in the last round (G14).
func threadExits(_ argument: UnsafeMutableRawPointer?) {
  let cache = UInt(bitPattern: argument).pointer(to: ThreadCache.self)
  cache.pointee.exitRounds &+= 1
  if cache.pointee.exitRounds < 4 /* PTHREAD_DESTRUCTOR_ITERATIONS */ {
    keg_watch_thread_exit(argument)
    return
  }
  detachThread(cache)
}

private func detachThread(_ cache: UnsafeMutablePointer<ThreadCache>) {
  cache.pointee.busy = 1
  keg_compiler_barrier()
  keg_set_thread_bins(keg_bins_dead())
  keg_compiler_barrier()
  cache.flush()
  freeDeferred(cache)
  process.pointee.registryLock.lock()
  process.pointee.threads.remove(cache)
  process.pointee.registryLock.unlock()
  process.pointee.threadCaches.unsafelyUnwrapped.pointee.give(cache.address)  // made at boot
}
