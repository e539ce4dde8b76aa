// SlowPath.swift: what the fast path leaves to do.
//
// One way in and out: `enter` says whether this thread may use its bins. While it
// is inside, `busy` is set; a signal handler that interrupts it, or that
// interrupted a fast path, must not touch the bins and is served elsewhere:
//
//   entry        who                                  served by
//   .bins(cache) the usual case                       bins, depot, keg
//   .zone        thread without bins: ended, no       single items of the zone
//                memory, or handler over a fast path
//   .emergency   handler over a slow path             Emergency.swift, no lock

import Base
import Keg
import Platform
import SizeClass
import Synchronization
import Zone

enum Entry {
  case bins(UnsafeMutablePointer<ThreadCache>)
  case zone
  case emergency
}

/// Enters the slow path. Every `.bins` must be followed by `leave`.
func enter() -> Entry {
  switch currentThread() {
  case .attached(let cache):
    if cache.pointee.busy != 0 { return .emergency }
    if interruptedFastPath() { return .zone }
    cache.pointee.busy = 1
    keg_compiler_barrier()
    return .bins(cache)
  case .unattached:
    if !boot() { return .zone }
    guard let cache = attachThread() else { return .zone }
    cache.pointee.busy = 1
    keg_compiler_barrier()
    return .bins(cache)
  case .attaching:
    return .emergency
  case .dead:
    return .zone
  }
}

/// Leaves the slow path: does what has become due, and what handlers left behind.
func leave(_ cache: UnsafeMutablePointer<ThreadCache>) {
  cache.pointee.events &+= 1
  if cache.pointee.events & 63 == 0 || cache.pointee.drainRequest.load(ordering: .relaxed) != 0 {
    tick(cache)
  }
  repeat {
    if cache.pointee.deferred.load(ordering: .relaxed) != 0 { freeDeferred(cache) }
    keg_compiler_barrier()
    cache.pointee.busy = 0
    keg_compiler_barrier()
    // A handler may have deferred something just before busy was cleared.
    if cache.pointee.deferred.load(ordering: .relaxed) == 0 { return }
    cache.pointee.busy = 1
    keg_compiler_barrier()
  } while true
}

/// malloc without an item in the bin. Sets errno when it fails.
@inline(never)
func slowMalloc(_ size: UInt) -> UnsafeMutableRawPointer? {
  let item = size <= SizeClass.largest ? allocateSmall(size) : allocateLarge(size)
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
  switch enter() {
  case .bins(let cache):
    let item = takeItem(index, cache)
    leave(cache)
    return item
  case .zone:
    guard isRunning,
      let zone = process.pointee.zone(index)
    else { return 0 }
    return zone.allocateItem()
  case .emergency:
    return emergencyAllocate(SizeClass.size(of: index), alignment: 16)
  }
}

/// Takes an item through the bin. Called between `enter` and `leave`.
func takeItem(_ index: UInt, _ cache: UnsafeMutablePointer<ThreadCache>) -> UInt {
  let bin = cache.bin(index)
  var item = pop(bin)
  if item != 0 { return item }
  guard let zone = process.pointee.zone(index) else { return 0 }
  if bin.refill(from: zone) {
    cache.noteUsed(index)
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
  guard isRunning,
    let heap = process.pointee.heap, let map = heap.pageMap(for: address)
  else { return freeOutside(address) }
  let index = map.index(of: address)
  switch map.owner(at: index) {
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
  switch enter() {
  case .bins(let cache):
    let bin = cache.bin(index)
    if !push(address, bin) {
      if let zone = process.pointee.zone(index), bin.makeRoom(for: zone) {
        cache.noteUsed(index)
        _ = push(address, bin)
      } else {
        process.pointee.existingZone(index)?.freeItem(address)
      }
    }
    leave(cache)
  case .zone:
    process.pointee.existingZone(index)?.freeItem(address)
  case .emergency:
    deferFree(address)
  }
}

// MARK: - Frees by signal handlers

/// Puts off a free that a handler makes while the thread is in a slow path.
func deferFree(_ address: UInt) {
  guard case .attached(let cache) = currentThread() else {
    // The thread is being attached and owns no list yet: the item is lost to it
    // rather than to somebody else.
    return
  }
  var head = cache.pointee.deferred.load(ordering: .relaxed)
  while true {
    address.word = head
    let result = cache.pointee.deferred.compareExchange(
      expected: head, desired: address, ordering: .relaxed)
    if result.exchanged { return }
    head = result.original
  }
}

/// Frees what handlers put off. Called with `busy` set.
func freeDeferred(_ cache: UnsafeMutablePointer<ThreadCache>) {
  var address = cache.pointee.deferred.exchange(0, ordering: .relaxed)
  while address != 0 {
    let next = address.word
    if let heap = process.pointee.heap, let map = heap.pageMap(for: address) {
      switch map.owner(at: map.index(of: address)) {
      case .slab(let slab): slab.pointee.keg.give(address)
      case .span(let span): releaseLarge(address, span)
      default: die("invalid free of", at: address, zone: nil)
      }
    }
    address = next
  }
}
