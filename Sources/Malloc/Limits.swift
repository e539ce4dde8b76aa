// Limits.swift: what the calls in shim/Exports/interpose.c ask.

import Base
import Keg
import Pages
import Platform
import Synchronization

/// Gives the unused address space back, before the program limits or locks its own.
@c func keg_release_address_space() {
  guard isRunning, let heap = process.pointee.heap else { return }
  heap.pointee.lock.lock()
  heap.pointee.reservation.releaseUnused()
  heap.pointee.metadata.pointee.lock.withLock { heap.pointee.metadata.pointee.releaseTail() }
  heap.pointee.lock.unlock()
}

/// Whether dlopen clears RTLD_DEEPBIND.
@c func keg_clears_deep_bind() -> Int32 {
  process.pointee.options[.deepBind] == DeepBindMode.clear ? 1 : 0
}
