// Heap+Outside.swift: how the arena of the outside regions gets and gives them.
//
// Called by the arena with no lock held; regions are made and released under the
// heap's lock, one at a time.

import Base
import Pages

/// The outside arena's import and release functions.
func importRegion(
  _ source: UnsafeMutableRawPointer?, _ size: UInt, _ actual: UnsafeMutablePointer<UInt>,
  _ isDirty: UnsafeMutablePointer<Bool>
) -> UInt {
  let heap = UInt(bitPattern: source).pointer(to: Heap.self)
  heap.pointee.lock.lock()
  defer { heap.pointee.lock.unlock() }
  return heap.pointee.outside.make(
    size, source: heap.pointee.reservation.source, metadata: heap.pointee.metadata, actual: actual,
    isDirty: isDirty)
}

func releaseRegion(
  _ source: UnsafeMutableRawPointer?, _ start: UInt, _ isDirty: Bool, _ stamp: UInt64
) {
  let heap = UInt(bitPattern: source).pointer(to: Heap.self)
  heap.pointee.lock.lock()
  defer { heap.pointee.lock.unlock() }
  heap.pointee.outside.release(
    start, isDirty: isDirty, stamp: stamp, source: heap.pointee.reservation.source)
}
