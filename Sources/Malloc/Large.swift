// Large.swift: blocks above the largest size class.
//
// A large block is one span of the heap arena; its boundary tag is its whole
// description, found through the page map. The tag's payload is the usable size:
// the request in whole OS pages, which may be less than the span.
//
//   span  |######## payload ########|···· headroom ····|   multiple of 64 KiB
//
// Freed spans stay dirty with the arena until their decay time has passed, so
// steady use makes no system call.

import Base
import Keg
import Pages
import Platform
import Vmem

/// The most a program may ask for: PTRDIFF_MAX, as in glibc.
@inline(__always)
var greatestRequest: UInt { UInt(bitPattern: Int.max) }

/// A large block, or 0.
/// - Parameter zeroed: whether its first `size` bytes must be zero.
func allocateLarge(_ size: UInt, alignment: UInt = 16, zeroed: Bool = false) -> UInt {
  if size > greatestRequest &- Chunk.size { return 0 }
  let entry = enter(usingBins: false)
  defer { leave(entry) }
  if case .emergency = entry {
    return emergencyAllocate(size, alignment: alignment)
  }
  guard let heap = process.pointee.heap else { return 0 }
  var span = heap.allocateSpan(size, alignment: alignment)
  if span == nil, reclaimAll() { span = heap.allocateSpan(size, alignment: alignment) }
  guard let span else { return 0 }
  let start = span.pointee.start
  span.pointee.payload = max(size, 1).roundedUp(to: process.pointee.pageSize)
  if zeroed, span.pointee.isDirty {
    UnsafeMutableRawPointer(bitPattern: start).unsafelyUnwrapped
      .initializeMemory(as: UInt8.self, repeating: 0, count: Int(bitPattern: size))
  }
  heap.pageMap(ofOwn: start).enter(span, at: start)
  return start
}

/// free of a large block.
func freeLarge(_ address: UInt, _ span: TagPointer) {
  let entry = enter(usingBins: false)
  if case .emergency = entry { deferFree(address) } else { releaseLarge(address, span) }
  leave(entry)
}

func releaseLarge(_ address: UInt, _ span: TagPointer) {
  guard let heap = process.pointee.heap, address == span.pointee.start else {
    die("invalid free of", at: address, zone: nil)
  }
  heap.pageMap(ofOwn: address).markFreed(at: address)
  heap.freeSpan(span)
}

/// Gives a large block another size without moving it.
/// - Returns: false when there is no room behind it; nothing has changed.
func resizeLarge(_ span: TagPointer, to size: UInt) -> Bool {
  if size > greatestRequest &- Chunk.size { return false }
  let entry = enter(usingBins: false)
  defer { leave(entry) }
  if case .emergency = entry { return false }
  guard let heap = process.pointee.heap else { return false }
  let spanSize = size.roundedUp(to: Chunk.size)
  if spanSize > span.pointee.size {
    if case .failed = heap.arena(of: span).grow(span, to: spanSize) { return false }
  } else if spanSize < span.pointee.size / 2 {
    _ = heap.arena(of: span).shrink(
      span, to: spanSize, dirty: true, stamp: heap.pointee.now)
  }
  span.pointee.payload = size.roundedUp(to: process.pointee.pageSize)
  return true
}
