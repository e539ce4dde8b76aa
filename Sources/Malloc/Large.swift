// Large.swift: blocks above the largest size class.
//
// A large block is one span of the heap arena; its boundary tag is its whole
// description, found through the page map. The tag's payload is the usable size:
// the request in whole OS pages, which may be less than the span.
//
//   span  |######## payload ########|···· headroom ····|   multiple of 64 KiB
//
// A freed span waits among the recent ones for a request of its size (Keg/
// RecentSpans.swift), then stays dirty with the arena until its decay time has
// passed, so steady use makes no system call.

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
  if size > greatestRequest &- Chunk.size || injectsFailure() { return 0 }
  let spanSize = size.roundedUp(to: Chunk.size)
  if alignment <= Chunk.size, isRunning, let heap = process.pointee.heap,
    let span = heap.takeRecent(spanSize)
  {
    if _slowPath(heap.countRecentUse()) { tickFromRecent() }
    return handOut(span, size, heap, zeroed: zeroed)
  }
  return allocateLargeSlowly(size, alignment: alignment, zeroed: zeroed)
}

@inline(never)
private func tickFromRecent() {
  let entry = enter(usingBins: false)
  if case .bins = entry { tickIfDue() }
  leave(entry)
}

@inline(never)
private func allocateLargeSlowly(_ size: UInt, alignment: UInt, zeroed: Bool) -> UInt {
  let entry = enter(usingBins: false)
  defer { leave(entry) }
  if case .emergency = entry {
    return emergencyAllocate(size, alignment: alignment)
  }
  guard let heap = process.pointee.heap else { return 0 }
  var span = heap.allocateSpan(size, alignment: alignment)
  if span == nil, reclaimAll() { span = heap.allocateSpan(size, alignment: alignment) }
  guard let span else { return 0 }
  return handOut(span, size, heap, zeroed: zeroed)
}

@inline(__always)
private func handOut(
  _ span: TagPointer, _ size: UInt, _ heap: UnsafeMutablePointer<Heap>, zeroed: Bool
) -> UInt {
  let start = span.pointee.start
  span.pointee.payload = max(size, 1).roundedUp(to: process.pointee.pageSize)
  if zeroed, span.pointee.isDirty {
    UnsafeMutableRawPointer(bitPattern: start).unsafelyUnwrapped
      .initializeMemory(as: UInt8.self, repeating: 0, count: Int(bitPattern: size))
  }
  heap.pageMap(ofOwn: start).enter(span, at: start)
  return start
}

/// free of a large block. A recent span needs no entry: it is as good from a handler.
func freeLarge(_ address: UInt, _ span: TagPointer) {
  guard let heap = process.pointee.heap, address == span.pointee.start else {
    die("invalid free of", at: address, zone: nil)
  }
  let map = heap.pageMap(ofOwn: address)
  if !map.markFreed(span, at: address) { die("double free of", at: address, zone: nil) }
  span.pointee.isDirty = true
  if heap.giveRecent(span) { return }
  let entry = enter(usingBins: false)
  if case .emergency = entry {
    map.enter(span, at: address)
    deferFree(address)
  } else {
    // The latest is the likeliest to be asked for: the others go.
    _ = heap.flushRecent()
    if !heap.giveRecent(span) { heap.freeSpan(span) }
  }
  leave(entry)
}

/// Frees a large block for a handler that put it off. Called between `enter` and `leave`.
func releaseLarge(_ address: UInt, _ span: TagPointer) {
  guard let heap = process.pointee.heap,
    heap.pageMap(ofOwn: address).markFreed(span, at: address)
  else { die("double free of", at: address, zone: nil) }
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
    if !heap.admits(spanSize &- span.pointee.size) { return false }
    if case .failed = heap.arena(of: span).grow(span, to: spanSize) { return false }
  } else if spanSize < span.pointee.size / 2 {
    _ = heap.arena(of: span).shrink(
      span, to: spanSize, dirty: true, stamp: heap.pointee.now)
  }
  span.pointee.payload = size.roundedUp(to: process.pointee.pageSize)
  return true
}
