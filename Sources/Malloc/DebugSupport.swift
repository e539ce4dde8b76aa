// DebugSupport.swift: what the debug library asks of the core beyond malloc and free.
//
// The debug layer puts its items into the core's slots and spans and keeps its own
// books on them. Here are the few doors that takes; nothing in the fast library
// calls them.

import Base
import Keg
import Pages
import Platform
import SizeClass
import Vmem
import Zone

package enum Core {
  /// Boots the core if need be. False: there is no memory.
  package static func start() -> Bool { boot() }

  /// - Precondition: the core is running.
  @inline(__always)
  package static var heap: UnsafeMutablePointer<Heap> {
    process.pointee.heap.unsafelyUnwrapped  // made before the core runs
  }

  @inline(__always)
  package static var isUp: Bool { isRunning }

  package static var options: Options { process.pointee.options }

  package static func option(_ option: Option) -> UInt { process.pointee.options[option] }

  package static var pageSize: UInt { process.pointee.pageSize }

  /// A slot of at least `size` bytes, at most `SizeClass.largest`, for malloc's
  /// alignment. 0 when there is no memory; errno is then set.
  @inline(__always)
  package static func takeSlot(_ size: UInt) -> UInt {
    UInt(bitPattern: fastMalloc(size, mallocMedium))
  }

  /// The bin that `takeSlot` has slots of so many bytes from, at most `greatestOfBin`.
  @inline(__always)
  package static func bin(_ size: UInt) -> UnsafeMutablePointer<Bin> { fastBin(forSize: size) }

  @inline(__always)
  package static var greatestOfBin: UInt { SizeClass.smallLimit }

  package static func takeSlot(_ size: UInt, alignment: UInt) -> UInt {
    UInt(bitPattern: keg_memalign(alignment, size))
  }

  /// Gives a slot back to the thread's array.
  @inline(__always)
  package static func giveSlot(_ slot: UInt) {
    keg_free(UnsafeMutableRawPointer(bitPattern: slot))
  }

  /// free(3) as its fast path does it. False: it is not for that.
  @inline(__always)
  package static func giveSlotFast(_ slot: UInt) -> Bool {
    let map = keg_fast_page_map()
    let index = (slot &- map) &>> Chunk.shift
    guard _fastPath(index < keg_fast_chunk_count()) else { return false }
    let offset = UInt((map &+ index &* 2).pointer(to: UInt16.self).pointee)
    return push(slot, (keg_get_thread_bins() &+ offset).pointer(to: Bin.self))
  }

  /// The same for who comes in nested, if `address` is a block for handlers.
  package static func giveSlotNested(_ address: UInt) {
    if let map = heap.pageMap(for: address) {
      if case .emergency = map.owner(at: map.index(of: address)) { emergencyFree(address) }
    } else {
      _ = emergencyUnmap(address)
    }
  }

  /// A span of its own for `size` bytes, whatever the size, or 0.
  package static func takeSpan(_ size: UInt, alignment: UInt) -> UInt {
    allocateLarge(size, alignment: alignment)
  }

  package static func giveSpan(_ address: UInt, _ span: TagPointer) { freeLarge(address, span) }

  /// Memory for a signal handler that interrupted the allocator, or 0.
  package static func emergency(_ size: UInt, alignment: UInt) -> UInt {
    emergencyAllocate(size, alignment: alignment)
  }

  package static func isForeignBlock(_ address: UInt) -> Bool { isForeign(address) }

  /// Whether `address` is a block mapped for a signal handler.
  package static func isEmergencyMapping(_ address: UInt) -> Bool { emergencySize(address) != nil }

  /// Whether this thread is in a slow path of the core, or a handler over one.
  @inline(__always)
  package static var isBusy: Bool { keg_get_thread_bins() == keg_bins_busy() }

  /// malloc_trim(3).
  package static func trim() -> Bool { keg_trim(0) != 0 }

  /// Keeps the ticks of all threads, the background thread's too, from giving slabs back
  /// until `allowTicks`. False: one is under way and does not end before `limit`, a
  /// monotonic time in nanoseconds.
  package static func holdTicks(until limit: UInt64) -> Bool {
    while !process.pointee.ticker.lock.tryLock() {
      if keg_monotonic_nanoseconds() >= limit { return false }
      keg_cpu_relax()
    }
    return true
  }
  package static func allowTicks() { process.pointee.ticker.lock.unlock() }

  package static var greatest: UInt { greatestRequest }

  package static func fail() -> UnsafeMutableRawPointer? { outOfMemory() }

  /// Takes every lock of the core, as for a fork; what this thread does until
  /// `unlockAll` is served from the emergency pool.
  package static func lockAll() { forkPrepare() }
  package static func unlockAll() { forkParent() }

  /// Calls `body` with every keg, domain by domain, of the size classes that are in use.
  package static func forEachKeg(_ body: (UnsafeMutablePointer<Keg>) -> Void) {
    guard isRunning else { return }
    process.pointee.forEachKeg(body)
  }
}
