// Large.swift: blocks above the largest size class.
//
// A large block is one span of the heap arena; its boundary tag is its whole
// description, found through the page map. The tag's payload is the usable size:
// the request in whole OS pages, which may be less than the span.
//
//   span  |######## payload ########|···· headroom ····|   multiple of 16 KiB
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
/// - Parameters:
///   - size: not 0.
///   - zeroed: whether its first `size` bytes must be zero.
func allocateLarge(_ size: UInt, alignment: UInt = 16, zeroed: Bool = false) -> UInt {
  if size > greatestRequest &- Chunk.size { return 0 }
  if _fastPath(isRunning) {
    if drawsFailure() { return 0 }
    if alignment <= Chunk.size, let block = allocateRecent(size, zeroed) { return block }
  }
  return allocateLargeSlowly(size, alignment: alignment, zeroed: zeroed)
}

/// A block in a span that was freed just now.
@inline(__always)
private func allocateRecent(_ size: UInt, _ zeroed: Bool) -> UInt? {
  if let heap = process.pointee.heap, let span = heap.takeRecent(size.roundedUp(to: Chunk.size)) {
    let isTime = heap.countRecentUse()
    if _slowPath(isTime || zeroed || !heap.pointee.reservation.contains(span.pointee.start)) {
      return handOutRecent(span, size, zeroed, isTime)
    }
    return handOut(span, size, heap.pointee.pageMap)
  }
  return nil
}

/// What is not done at most allocations: a call of its own, so that those save no registers.
@inline(never)
private func handOutRecent(_ span: TagPointer, _ size: UInt, _ zeroed: Bool, _ isTime: Bool) -> UInt {
  if isTime { tickFromRecent() }
  return handOut(span, size, process.pointee.heap.unsafelyUnwrapped, zeroed: zeroed)
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

private func handOut(
  _ span: TagPointer, _ size: UInt, _ heap: UnsafeMutablePointer<Heap>, zeroed: Bool
) -> UInt {
  let start = span.pointee.start
  if zeroed, span.pointee.isDirty { clear(start, size, heap) }
  return handOut(span, size, heap.pageMap(ofOwn: start))
}

@inline(__always)
private func handOut(_ span: TagPointer, _ size: UInt, _ map: PageMap) -> UInt {
  let start = span.pointee.start
  span.pointee.payload = size.roundedUp(to: process.pointee.pageSize)
  map.enter(span, at: start)
  return start
}

/// A block that was made larger and has to move: with headroom, or 0.
func allocateGrowing(_ size: UInt) -> UInt {
  let entry = enter(usingBins: false)
  defer { leave(entry) }
  if case .emergency = entry { return 0 }
  guard let heap = process.pointee.heap, let span = heap.allocateGrowing(size) else { return 0 }
  _ = heap.extendGrowing(span, to: size.roundedUp(to: process.pointee.pageSize))  // it has room
  return handOut(span, size, heap, zeroed: false)
}

/// free of a large block. A recent span needs no entry: it is as good from a handler.
/// - Parameter dirty: false when all of its span was purged.
func freeLarge(_ address: UInt, _ span: TagPointer, dirty: Bool = true) {
  guard let heap = process.pointee.heap, address == span.pointee.start else {
    die("invalid free of", at: address, zone: nil)
  }
  if _fastPath(dirty && span.pointee.touched == 0 && heap.pointee.reservation.contains(address)) {
    markFreed(span, address, heap.pointee.pageMap)
    span.pointee.isDirty = true
    if heap.giveRecent(span) { return }
    freeMarked(address, span, heap)
  } else {
    freeUnusual(address, span, dirty)
  }
}

@inline(never)
private func freeUnusual(_ address: UInt, _ span: TagPointer, _ dirty: Bool) {
  let heap = process.pointee.heap.unsafelyUnwrapped
  markFreed(span, address, heap.pageMap(ofOwn: address))
  span.pointee.isDirty = dirty
  if dirty && span.pointee.touched == 0, heap.giveRecent(span) { return }
  freeMarked(address, span, heap)
}

@inline(__always)
private func markFreed(_ span: TagPointer, _ address: UInt, _ map: PageMap) {
  if !map.markFreed(span, at: address) { die("double free of", at: address, zone: nil) }
}

@inline(never)
private func freeMarked(_ address: UInt, _ span: TagPointer, _ heap: UnsafeMutablePointer<Heap>) {
  let entry = enter(usingBins: false)
  if case .emergency = entry {
    heap.pageMap(ofOwn: address).enter(span, at: address)
    deferFree(address)
  } else if span.pointee.touched != 0, span.pointee.isDirty {
    heap.freeGrowing(span)
  } else if span.pointee.isDirty {
    // The latest is the likeliest to be asked for: the others go.
    _ = heap.flushRecent()
    if !heap.giveRecent(span) { heap.freeSpan(span) }
  } else {
    if span.pointee.touched != 0 { heap.giveHeadroom(of: span) }
    heap.arena(of: span).free(span, dirty: false, stamp: heap.pointee.now)
  }
  leave(entry)
}

/// Frees a large block for a handler that put it off. Called between `enter` and `leave`.
func releaseLarge(_ address: UInt, _ span: TagPointer) {
  guard let heap = process.pointee.heap,
    heap.pageMap(ofOwn: address).markFreed(span, at: address)
  else { die("double free of", at: address, zone: nil) }
  if span.pointee.touched != 0 { heap.freeGrowing(span) } else { heap.freeSpan(span) }
}

/// Whether what a block has beyond `size` bytes is worth giving back.
private func isMuchLess(_ size: UInt, than capacity: UInt) -> Bool {
  size < capacity && capacity &- size >= max(capacity / 8, Chunk.size)
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
  let payload = size.roundedUp(to: process.pointee.pageSize)
  if span.pointee.touched != 0 {
    if size > span.pointee.payload { return heap.extendGrowing(span, to: payload) }
    if payload == span.pointee.payload { return true }
    if !isMuchLess(size, than: span.pointee.touched) {
      span.pointee.payload = payload
      return true
    }
    heap.giveHeadroom(of: span)
  }
  if spanSize > span.pointee.size {
    if !heap.admits(spanSize &- span.pointee.size) { return false }
    if case .failed = heap.arena(of: span).grow(span, to: spanSize) { return false }
    if spanSize >= UnsafeMutablePointer<Heap>.leastGrowing { heap.limitDirty() }
  } else if isMuchLess(spanSize, than: span.pointee.size) {
    _ = heap.arena(of: span).shrink(
      span, to: spanSize, dirty: true, stamp: heap.pointee.now)
  }
  span.pointee.payload = payload
  return true
}
