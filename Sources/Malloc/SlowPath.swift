// SlowPath.swift: what the fast path leaves to do.
//
// One way in and out: `enter` says whether this thread may use its bins, and points
// TLS at an array of empty bins for as long as it is inside. A signal handler that
// comes in between therefore finds every bin empty and full at once, arrives here
// as well, sees the state, and is served elsewhere:
//
//   entry        who                                  served by
//   .bins(cache) the usual case                       bins, depot, keg
//   .zone        thread without bins: ended, or no    single items of the zone
//                memory for an array
//   .emergency   handler over a slow or a fast path   Emergency.swift, no lock
//
// A handler over a fast path gets no ordinary item here: freed by the fast path, it
// would land in the very slot that the interrupted code is about to read.

import Base
import Keg
import Pages
import Platform
import SizeClass
import Synchronization
import Vmem
import Zone

enum Entry {
  case bins(UnsafeMutablePointer<ThreadCache>)
  /// What TLS held and is to hold again.
  case zone(UInt)
  case emergency
}

/// Enters the slow path. Must be followed by `leave`.
/// - Parameter usingBins: whether bins will be touched. Who does not (large blocks)
///   need not know whether it is a handler over a fast path.
func enter(usingBins: Bool = true) -> Entry {
  let bins = keg_get_thread_bins()
  if _slowPath(keg_bins_are_shared(bins)) { return enterWithoutBins(bins) }
  if usingBins, _slowPath(interruptedFastPath()) { return .emergency }
  setThreadBins(keg_bins_busy())
  let cache = (bins &- ThreadCache.headerBytes).pointer(to: ThreadCache.self)
  cache.pointee.lock.lock()
  return .bins(cache)
}

@inline(never)
private func enterWithoutBins(_ bins: UInt) -> Entry {
  if bins == keg_bins_busy() { return .emergency }
  setThreadBins(keg_bins_busy())
  if bins == keg_bins_unattached(), boot(), let cache = attachThread() {
    cache.pointee.lock.lock()
    return .bins(cache)
  }
  return .zone(bins)
}

/// Leaves the slow path: does what has become due, and what handlers left behind.
@inline(__always)
func leave(_ entry: Entry) {
  switch entry {
  case .bins(let cache):
    cache.pointee.events &+= 1
    if _slowPath(
      cache.pointee.events & 63 == 0
        || cache.pointee.drainRequest.load(ordering: .relaxed) != 0
        || process.pointee.deferred.load(ordering: .relaxed) != 0)
    {
      catchUp(cache)
    }
    cache.pointee.lock.unlock()
    setThreadBins(cache.bins)
  case .zone(let bins):
    setThreadBins(bins)
  case .emergency:
    break
  }
}

@inline(never)
private func catchUp(_ cache: UnsafeMutablePointer<ThreadCache>) {
  if process.pointee.deferred.load(ordering: .relaxed) != 0 { freeDeferred() }
  // A handler that came for a large block may be over a fast path of this thread.
  if !interruptedFastPath() {
    if cache.pointee.events & 63 == 0 { cache.countIdleBins() }
    tick(cache)
  }
}

/// Sets TLS, neither before what precedes the call nor after what follows it.
@inline(__always)
func setThreadBins(_ bins: UInt) {
  keg_compiler_barrier()
  keg_set_thread_bins(bins)
  keg_compiler_barrier()
}

/// malloc without an item in the bin. Sets errno when it fails.
@inline(never)
func slowMalloc(_ size: UInt) -> UnsafeMutableRawPointer? {
  var item = size <= SizeClass.largest ? allocateSmall(size) : allocateLarge(size)
  if item == 0, isRunning, process.pointee.layerAbove.memoryIsShort?() ?? false {
    item = size <= SizeClass.largest ? allocateSmall(size) : allocateLarge(size)
  }
  if item == 0 { return outOfMemory() }
  return UnsafeMutableRawPointer(bitPattern: item)
}

/// The one place that sets ENOMEM.
@inline(never)
func outOfMemory() -> UnsafeMutableRawPointer? {
  keg_set_errno(12 /* ENOMEM */)
  return nil
}

/// An item for `size` bytes, or 0.
func allocateSmall(_ size: UInt) -> UInt {
  allocate(class: SizeClass.index(of: size))
}

/// An item of a class, or 0.
func allocate(class index: UInt) -> UInt {
  if injectsFailure() { return 0 }
  let entry = enter()
  defer { leave(entry) }
  switch entry {
  case .bins(let cache):
    return takeItem(index, cache)
  case .zone:
    guard isRunning, let zone = process.pointee.zone(index) else { return 0 }
    return zone.allocateItem()
  case .emergency:
    // Whoever asked for an alignment asked for a multiple of it: `alignedTo`.
    let size = SizeClass.size(of: index)
    return emergencyAllocate(size, alignment: max(size & (0 &- size), 16))
  }
}

/// Takes an item through the bin. Called between `enter` and `leave`.
func takeItem(_ index: UInt, _ cache: UnsafeMutablePointer<ThreadCache>) -> UInt {
  let bin = cache.bin(index)
  var item = pop(bin)
  if item != 0 { return item }
  guard let zone = process.pointee.zone(index) else { return 0 }
  if cache.swapForItems(index, zone) { return pop(bin) }
  if processMeanFailures == 0, cache.exchange(.refill, index, zone) {
    item = pop(bin)
    if item != 0 { return item }
  }
  item = zone.allocateItem()
  if item == 0, reclaimAll() { item = zone.allocateItem() }
  return item
}

/// free of what the fast path did not take.
@inline(never)
func slowFree(_ address: UInt) {
  if address == 0 { return }
  guard isRunning, let heap = process.pointee.heap else { return freeOutside(address) }
  if _fastPath(heap.pointee.reservation.contains(address)) {
    free(address, heap.pointee.pageMap)
  } else {
    freeElsewhere(address, heap)
  }
}

@inline(never)
private func freeElsewhere(_ address: UInt, _ heap: UnsafeMutablePointer<Heap>) {
  guard let map = heap.pageMap(for: address) else { return freeOutside(address) }
  free(address, map)
}

@inline(__always)
private func free(_ address: UInt, _ map: PageMap) {
  switch map.owner(at: map.index(of: address)) {
  case .slab(let slab):
    freeSmall(address, slab)
  case .span(let span):
    freeLarge(address, span)
  case .freed:
    die("double free of", at: address, zone: nil)
  case .emergency:
    emergencyFree(address)
  case .nobody:
    die("invalid free of", at: address, zone: nil)
  }
}

/// Frees an item whose bin had no room, or that the fast path cannot see.
private func freeSmall(_ address: UInt, _ slab: UnsafeMutablePointer<Slab>) {
  let index = UInt(slab.pointee.keg.pointee.bin) &>> Bin.strideShift
  if index == 0 { die("free(3) of an item of a zone, which keg_zone_free takes,", at: address, zone: slab.pointee.keg.pointee.name) }
  let entry = enter()
  switch entry {
  case .bins(let cache):
    let bin = cache.bin(index)
    if !push(address, bin), !(bin.swapForRoom() && push(address, bin)) {
      if processMeanFailures == 0, let zone = process.pointee.zone(index),
        cache.exchange(.makeRoom, index, zone)
      {
        _ = push(address, bin)
        if zone.pointee.pools.pointee.depotBytes > zone.pointee.pools.pointee.depotBudget {
          drainIdleDepots()
        }
      } else {
        process.pointee.existingZone(index)?.freeItem(address)
      }
    }
  case .zone:
    process.pointee.existingZone(index)?.freeItem(address)
  case .emergency:
    deferFree(address)
  }
  leave(entry)
}

// MARK: - Frees by signal handlers

/// Puts off a free that a handler makes while its thread is in a slow path.
///
/// Whoever leaves a slow path next takes all that were put off.
func deferFree(_ address: UInt) { process.pointee.deferred.pushLinked(address) }

/// Frees what handlers put off. Called between `enter` and `leave`.
@_optimize(size)
func freeDeferred() {
  process.pointee.deferred.takeLinked { address in
    if let heap = process.pointee.heap, let map = heap.pageMap(for: address) {
      switch map.owner(at: map.index(of: address)) {
      case .slab(let slab):
        if slab.pointee.records != 0 { heap.pointee.restoreSlot?(address) }
        slab.pointee.keg.give(address)
      case .span(let span): releaseLarge(address, span)
      default: die("invalid free of", at: address, zone: nil)
      }
    }
  }
}
