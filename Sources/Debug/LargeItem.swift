// LargeItem.swift: checked blocks that are spans of their own.
//
//   span  | left zone | what was asked for | right zone ··|··· zero ···|
//                                                          OS page     16 KiB
//
// The record, with its size behind it, comes from a pool; the span's payload leads to it. All chunks of the
// span have an entry in the page map, so that an address inside leads there too.

import Base
import DebugPlatform
import Keg
import Malloc
import Pages
import Platform
import SizeClass
import Vmem

/// A large block, or 0. Called in `.straight`.
func allocateLargeItem(
  _ size: UInt, _ alignment: UInt, _ kind: AllocationKind, _ zeroed: Bool
) -> UInt {
  let alignment = isPlain(kind) ? max(alignment, leastLargeZone) : alignment
  let bytes = slotBytes(size, leftZone: alignment)
  let spanBytes = max(bytes, SizeClass.largest &+ 1)
  var start = Core.takeSpan(spanBytes, alignment: alignment)
  if start == 0 {
    giveUpQuarantine()
    start = Core.takeSpan(spanBytes, alignment: alignment)
    if start == 0 { return 0 }
  }
  let heap = Core.heap
  guard let map = heap.pageMap(for: start), case .span(let span) = map.owner(at: map.index(of: start))
  else {
    // For a handler, from the pool: not checked.
    if zeroed { writeTrash(0, start, start &+ size) }
    return start
  }
  let memory = takeRecord()
  if memory == 0 {
    if zeroed { writeTrash(0, start, start &+ size) }
    return start
  }
  let record = memory.pointer(to: Record.self)
  let user = start &+ alignment
  let end = user &+ size
  let isZero = !span.pointee.isDirty
  record.size = size
  map.enter(span, at: start, chunkCount: enteredChunks(span))
  writeZone(user &- min(alignment, 4096), user)
  let zoneEnd = (start &+ bytes).roundedUp(to: Core.pageSize)
  writeZone(end, zoneEnd)
  // What is behind that is zero (Stray.swift).
  if !isZero { writeTrash(0, zoneEnd, span.pointee.end) }
  if zeroed, isZero {
    // The kernel's zeros: not touched.
  } else {
    fill(user, end, zeroed, isZero: false)
  }
  note(record, size)
  record.set(
    .live, kind: kind, alignment: alignment, hasLeftZone: true, hasTrash: false,
    epoch: debug.pointee.epoch)
  if kind.isOne { writeCount(user) }
  keg_compiler_barrier()
  span.pointee.payload = memory | recordBit
  return user
}

/// Gives a large block that leaves the quarantine back to the core.
func releaseLargeItem(_ item: Item) {
  let heap = Core.heap
  guard let map = heap.pageMap(for: item.slot),
    case .span(let span) = map.owner(at: map.index(of: item.slot))
  else { return }
  giveRecord(span.pointee.payload & ~recordBit)
  span.pointee.payload = item.capacity
  let chunks = enteredChunks(span)
  if chunks > 1 { map.clear(at: item.slot &+ Chunk.size, chunkCount: chunks &- 1) }
  Core.giveSpan(item.slot, span)
}

/// The zone before a block that is aligned like any other.
private var leastLargeZone: UInt { 512 }

private func isPlain(_ kind: AllocationKind) -> Bool {
  kind == .malloc || kind == .new || kind == .newArray
}

/// How many chunks of a span the page map knows: of a block of terabytes not all.
private func enteredChunks(_ span: TagPointer) -> UInt {
  min(span.pointee.size &>> Chunk.shift, 1 &<< 20)
}

/// Blocks from this size on are not filled with trash when they are freed: their pages
/// go back to the kernel, and must be zero when the block leaves the quarantine.
var leastPurged: UInt { 1 &<< 18 }

/// Gives the pages of a freed block back. False: the kernel keeps them.
func purge(_ item: Item) -> Bool {
  Core.heap.pointee.reservation.source.purge(item.slot, item.spanEnd &- item.slot)
}

private func takeRecord() -> UInt {
  debug.pointee.recordLock.withLock { debug.pointee.recordMemory.take(2) }
}

private func giveRecord(_ record: UInt) {
  debug.pointee.recordLock.withLock { debug.pointee.recordMemory.give(record, 2) }
}
