// Limits.swift: what the calls in shim/Exports/interpose.c ask.

import Base
import Keg
import Pages
import Platform
import Synchronization

/// Gives unused address space back, before the program limits or locks its own.
/// - Parameter kept: bytes that the heap may still grow by where it is.
@c func keg_release_address_space(_ kept: UInt) {
  guard isRunning, let heap = process.pointee.heap else { return }
  heap.pointee.lock.lock()
  heap.pointee.reservation.releaseUnused(keeping: kept)
  heap.pointee.metadata.pointee.lock.withLock { heap.pointee.metadata.pointee.releaseTail() }
  heap.pointee.lock.unlock()
}

/// Whether memory that nobody touches costs something must be asked again.
@c func keg_limits_changed() {
  if isRunning { process.pointee.heap?.forgetHeadroomCost() }
}

/// Whether dlopen clears RTLD_DEEPBIND.
@c func keg_clears_deep_bind() -> Int32 {
  process.pointee.options[.deepBind] == DeepBindMode.clear ? 1 : 0
}
