// ThreadCache.swift: a thread's array of bins and what goes with it.
//
//    -640                    0        32                     TLS: one pointer
//     | ThreadCache | pad    | bin 0  | bin 1 = 8 bytes | …      │
//     ▲ header                ▲ bins ◀───────────────────────────┘
//
// The TLS pointer also is the state of the thread. It points at one of three
// arrays of empty bins in .bss while the thread may not use bins of its own:
//
//   unattached ──first call──▶ its own ⇄ busy (in a slow path) ──thread exit──▶ dead
//
// so the fast path finds an empty bin and leaves, without asking for the state.
//
// Only the owner touches bins and header, but for `drainRequest` (written by
// anybody, honoured at the owner's next slow path), the list links (list lock)
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
  /// Bit c of the pair: bin c was used since the last `countIdleBins`.
  var warmLow: UInt64
  var warmHigh: UInt64
  /// The same of the time between the last two.
  var mildLow: UInt64
  var mildHigh: UInt64
  /// Held by the owner in a slow path, and by who forks.
  let lock: Lock
  /// A byte of each bin's `top` at the last `countIdleBins`.
  var tops: InlineArray<82, UInt8>
  /// Items that each bin took from its zone less those that it gave, as far as 32 bits go.
  var balances: InlineArray<82, Int32>
  /// Bytes of items that the buckets of all bins can hold.
  var capacityBytes: UInt
  /// What of it `Process.cacheBytes` counts.
  var toldBytes: UInt
  /// Slow paths; at every 64th there is more to do.
  var events: UInt32
  /// A `DrainRequest` that somebody makes of this thread, for its next slow path.
  let drainRequest: Atomic<UInt32>
  /// How often pthread has run our key's destructor for this thread.
  var exitRounds: UInt32
  /// The thread's number from 1 on; 0: it shares 64.
  var number: UInt32

  static var headerBytes: UInt { 640 }
  /// The round of destructors that takes the cache down.
  static var lastExitRound: UInt32 { 2 }
  /// What a thread may cache in any case, bytes; and where there are more than `manyThreads`.
  static var fewBytes: UInt { 1 &<< 17 }
  static var leastBytes: UInt { 1 &<< 13 }
  static var manyThreads: Int { 128 }
  /// By how much the process may count less, or more, of a thread's capacity than it has.
  static var untoldBytes: UInt { 1 &<< 14 }
  /// Where the balance of a bin starts at least when it takes items.
  static var mostOwed: Int32 { -256 }
  static var byteCount: UInt { headerBytes &+ (SizeClass.count &+ 1) &<< Bin.strideShift }

  init() {
    next = nil
    previous = nil
    usedLow = 0
    usedHigh = 0
    warmLow = 0
    warmHigh = 0
    mildLow = 0
    mildHigh = 0
    tops = InlineArray(repeating: 0)
    balances = InlineArray(repeating: 0)
    lock = Lock(rank: .thread)
    capacityBytes = 0
    toldBytes = 0
    events = 0
    drainRequest = Atomic(0)
    exitRounds = 0
    number = 0
  }
}

/// What a thread can be asked to give back; a greater one includes the smaller.
enum DrainRequest: UInt32 {
  case nothing, idleBins, everything
}

/// The calls of `Bin` that take buckets or give them away.
enum BinCall: UInt8 {
  case grow, refill, makeRoom
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
      pointee.warmLow |= 1 &<< UInt64(index)
    } else {
      pointee.usedHigh |= 1 &<< UInt64(index &- 64)
      pointee.warmHigh |= 1 &<< UInt64(index &- 64)
    }
  }

  /// Calls `body` with the index of every bin that has a bucket.
  func forEachUsedBin(_ body: (UInt) -> Void) {
    var bits = pointee.usedLow
    var base: UInt = 0
    while bits != 0 || base == 0 {
      if bits == 0 {
        base = 64
        bits = pointee.usedHigh
        continue
      }
      body(base &+ UInt(bitPattern: bits.trailingZeroBitCount))
      bits &= bits &- 1
    }
  }

  /// Whether the bins may get larger buckets. One thread's are bounded by the option
  /// `thread_cache`; those of all threads by a quarter of the heap, or 1 MiB.
  var mayGrow: Bool {
    let own = pointee.capacityBytes
    if own >= process.pointee.options[.threadCacheBytes] &<< 10 { return false }
    return own < fewBytes
      || process.pointee.cacheBytes.load(ordering: .relaxed) < max(heapBytes / 4, 1 &<< 20)
  }

  private var heapBytes: UInt {
    process.pointee.heap.unsafelyUnwrapped.pointee.committedBytes  // a thread's cache is younger
  }

  private var fewBytes: UInt { process.pointee.fewCacheBytes.load(ordering: .relaxed) }

  private var hasManyThreads: Bool { fewBytes < ThreadCache.fewBytes }

  /// Whether buckets of items of some KiB may be large: one in 32 parts of the heap for
  /// all bins of the thread, or 128 KiB.
  private var cachesLittle: Bool {
    pointee.capacityBytes < max(heapBytes / 32, ThreadCache.fewBytes)
  }

  /// Counts what buckets of other sizes make of the capacity, for all threads too.
  private func changeCapacity(from old: UInt, to new: UInt) {
    if old == new { return }
    let own = pointee.capacityBytes &- old &+ new
    pointee.capacityBytes = own
    let untold = own &- pointee.toldBytes
    if untold &+ ThreadCache.untoldBytes <= 2 &* ThreadCache.untoldBytes, own != 0 { return }
    pointee.toldBytes = own
    process.pointee.cacheBytes.wrappingAdd(untold, ordering: .relaxed)
  }

  /// Takes the items of the other bucket, with more room than before if it may be.
  func swapForItems(_ index: UInt, _ zone: UnsafeMutablePointer<Zone>) -> Bool {
    let bin = bin(index)
    return bin.swapsTooOften(zone) && mayGrow && exchange(.grow, index, zone) || bin.swapForItems()
  }

  /// Changes a bin by one of the calls of `Bin`, and counts what comes of it.
  @inline(never)
  func exchange(
    _ call: BinCall, _ index: UInt, _ zone: UnsafeMutablePointer<Zone>
  ) -> Bool {
    let bin = bin(index)
    let before = UInt(bitPattern: bin.capacity)
    let cached = bin.cachedCount
    let (mayGrow, mayBeLarge) = (mayGrow, cachesLittle)
    // Idle ones would hold their share for ever: bins keep one bucket, of few items.
    let isTight = !mayGrow && hasManyThreads
    let isDone =
      switch call {
      case .grow: bin.grow(for: zone, mayBeLarge: mayBeLarge)
      case .refill: bin.refill(from: zone, mayGrow: mayGrow, mayBeLarge: mayBeLarge, isTight: isTight)
      case .makeRoom:
        bin.makeRoom(
          for: zone, mayGrow: mayGrow, mayBeLarge: mayBeLarge, isForOthers: isForOthers(index),
          isTight: isTight, keepsFull: !isTight && !onlyFrees(index, mayGrow))
      }
    changeCapacity(
      from: before &* zone.pointee.itemSize,
      to: UInt(bitPattern: bin.capacity) &* zone.pointee.itemSize)
    noteExchange(index, bin.cachedCount &- cached)
    noteUsed(index)
    return isDone
  }

  /// Whether a bucket that a bin has too many may be for other threads: the thread has
  /// freed more than it had allocated. One that frees what it allocated gives it to the
  /// slabs, which give it neighbours again.
  @inline(__always)
  private func isForOthers(_ index: UInt) -> Bool {
    pointee.balances[Int(bitPattern: index)] <= 0
  }

  /// Whether the thread frees so much more than it allocates that it need not keep any: it
  /// has not taken anything in many exchanges, or since some where caches hold their share.
  @inline(__always)
  private func onlyFrees(_ index: UInt, _ mayGrow: Bool) -> Bool {
    pointee.balances[Int(bitPattern: index)] < ThreadCache.mostOwed &* (mayGrow ? 4 : 1) &- 64
  }

  /// Counts `taken` items that a bin took from its zone; below zero: gave to it. Who takes
  /// is no longer one who only frees.
  @inline(__always)
  private func noteExchange(_ index: UInt, _ taken: Int) {
    var balance = Int(pointee.balances[Int(bitPattern: index)])
    if taken > 0 { balance = max(balance, Int(ThreadCache.mostOwed)) }
    balance = balance &+ taken
    pointee.balances[Int(bitPattern: index)] = Int32(clamping: balance)
  }

  /// Called every 64 slow paths. Gives back the items of idle bins, sizes of the
  /// program's last phase, if the thread caches more than a small share of the heap, or
  /// if they keep the bins in use from growing.
  ///
  /// And, every other time, those of bins that had enough of what they have, while the
  /// slabs of their size have many holes: what the thread frees would lie in a hole again
  /// with its next malloc, and no slab ever become free.
  func countIdleBins() {
    if pointee.events & 127 == 0 {
      evictBins(except: (pointee.warmLow, pointee.warmHigh), onlySparse: true)
    }
    noteMovedBins()
    if pointee.capacityBytes > max(heapBytes / 32, fewBytes) || !mayGrow {
      evictIdleBins()
    }
    pointee.mildLow = pointee.warmLow
    pointee.mildHigh = pointee.warmHigh
    pointee.warmLow = 0
    pointee.warmHigh = 0
  }

  /// Bins that the fast path has used since this was last asked are not idle: the byte
  /// of `top` is another. Those are missed in which it has come back to where it was.
  private func noteMovedBins() {
    forEachUsedBin { index in
      let top = UInt8(truncatingIfNeeded: bin(index).pointee.top &>> 3)
      if top != pointee.tops[Int(bitPattern: index)] {
        pointee.tops[Int(bitPattern: index)] = top
        noteUsed(index)
      }
    }
  }

  /// Gives back the items of bins that were not used in the last 64 slow paths or more.
  func evictIdleBins() {
    let low = pointee.warmLow | pointee.mildLow
    let high = pointee.warmHigh | pointee.mildHigh
    evictBins(except: (low, high), onlySparse: false)
    pointee.usedLow &= low
    pointee.usedHigh &= high
  }

  @inline(never)
  @_optimize(size)
  private func evictBins(except kept: (low: UInt64, high: UInt64), onlySparse: Bool) {
    forEachUsedBin { index in
      let isKept =
        index < 64 ? kept.low &>> UInt64(index) & 1 : kept.high &>> UInt64(index &- 64) & 1
      if isKept == 0, let zone = process.pointee.existingZone(index),
        !onlySparse || zone.pointee.keg?.hasManyHoles ?? false
      {
        let bin = bin(index)
        changeCapacity(from: UInt(bitPattern: bin.capacity) &* zone.pointee.itemSize, to: 0)
        noteExchange(index, 0 &- bin.cachedCount)
        bin.evict(to: zone)
      }
    }
  }

  /// Hands every cached item to its zone.
  @_optimize(size)
  func flush() {
    forEachUsedBin { index in
      if let zone = process.pointee.existingZone(index) { bin(index).flush(to: zone) }
    }
    pointee.usedLow = 0
    pointee.usedHigh = 0
    changeCapacity(from: pointee.capacityBytes, to: 0)
    process.pointee.layerAbove.flushTable?(tableWord.word)
  }

  /// Where the thread's table of zones' bins is written: the word below its own bins.
  var tableWord: UInt { bins &- 8 }
}

extension UnsafeMutablePointer where Pointee == ThreadCache {
  /// Takes over what can be had of a thread that a forked child does not have.
  ///
  /// Its slow paths were shut out by `lock`, so the previous buckets are as they
  /// were at the fork. Its fast paths were not: pages of the child may show a
  /// loaded bucket from before a call and the program's own data from after it.
  /// Items of loaded buckets therefore count as in use; their pages stay shared
  /// with the parent and untouched.
  @_optimize(size)
  func adoptOrphan() {
    forEachUsedBin { index in
      if let zone = process.pointee.existingZone(index) { bin(index).adoptOrphan(zone) }
    }
    changeCapacity(from: pointee.capacityBytes, to: 0)
    process.pointee.layerAbove.adoptTable?(tableWord.word)
  }
}

/// Gives the calling thread a cache of its own. Called with TLS at the busy bins.
/// - Returns: nil when there is no memory.
@_optimize(size)
func attachThread() -> UnsafeMutablePointer<ThreadCache>? {
  let memory = process.pointee.threadCaches.unsafelyUnwrapped.pointee.take()  // made at boot
  guard memory != 0 else { return nil }
  let cache = memory.pointer(to: ThreadCache.self)
  cache.initialize(to: ThreadCache())
  // The bins are empty already: fresh metadata is zero, and a flushed bin is, too.
  cache.tableWord.word = keg_empty_zone_table()
  process.pointee.threadListLock.lock()
  process.pointee.threads.append(cache)
  takeNumber(for: cache)
  let count = countThreads()
  process.pointee.threadListLock.unlock()
  keg_watch_thread_exit(UnsafeMutableRawPointer(cache))
  startBackgroundThread(threadCount: count)
  return cache
}

/// Threads hand each other items through the depots, a bucket for each; a lone thread has
/// nobody to hand to. Called with the list locked.
@inline(never)
@_optimize(size)
private func countThreads() -> Int {
  let count = process.pointee.threads.count
  process.pointee.bucketPools?.pointee.exchangedBuckets = count > 1 ? count : 0
  let few = count > ThreadCache.manyThreads ? ThreadCache.leastBytes : ThreadCache.fewBytes
  process.pointee.fewCacheBytes.store(few, ordering: .relaxed)
  return count
}

/// Gives a thread its number, the lowest that is free; beyond 63 threads share 64.
/// Called with the list locked.
private func takeNumber(for cache: UnsafeMutablePointer<ThreadCache>) {
  let free = UInt32((~process.pointee.threadNumbers).trailingZeroBitCount)
  if free < 63 {
    process.pointee.threadNumbers |= 1 &<< UInt64(free)
    cache.pointee.number = free &+ 1
  }
  keg_set_thread_number(min(free, 63) &+ 1)
}

/// Called with the list locked, or where no other thread exists.
func dropNumber(of cache: UnsafeMutablePointer<ThreadCache>) {
  let number = cache.pointee.number
  if number != 0 { process.pointee.threadNumbers &= ~(1 &<< UInt64(number &- 1)) }
}

/// The destructor of our pthread key: the thread is ending.
///
/// Other destructors may still allocate and free, so pthread is asked to call again, and
/// the cache goes in the second round of at most four (G14). Whoever comes even later is
/// served without bins.
func threadExits(_ argument: UnsafeMutableRawPointer?) {
  let cache = UInt(bitPattern: argument).pointer(to: ThreadCache.self)
  cache.pointee.exitRounds &+= 1
  if cache.pointee.exitRounds < ThreadCache.lastExitRound {
    keg_watch_thread_exit(argument)
    return
  }
  detachThread(cache)
}

@_optimize(size)
private func detachThread(_ cache: UnsafeMutablePointer<ThreadCache>) {
  let isIn = process.pointee.layerAbove.stepIn?(false) ?? false
  defer { if isIn { process.pointee.layerAbove.stepOut?() } }
  setThreadBins(keg_bins_busy())
  cache.pointee.lock.lock()
  cache.flush()
  cache.pointee.lock.unlock()
  process.pointee.threadListLock.lock()
  process.pointee.threads.remove(cache)
  dropNumber(of: cache)
  _ = countThreads()
  process.pointee.layerAbove.releaseTable?(cache.tableWord.word)
  process.pointee.threadListLock.unlock()
  process.pointee.threadCaches.unsafelyUnwrapped.pointee.give(cache.address)  // made at boot
  setThreadBins(keg_bins_dead())
}
