// PlainItem.swift: malloc and free as nearly every call goes, in one piece each.
//
//   malloc   slot on top of the thread's bin ─▶ stack ─▶ free, with trash, sharing zones?
//                                                         │ yes: all is checked and written here
//                                                         ▼ no:  prepare, settle (Allocate.swift)
//   free     record ─▶ stack ─▶ live, sharing zones, right call, whole item?
//                                 │ yes: here      no: deallocate (Free.swift)
//
// It does what those do, for the default mode, slots of at most a KiB and no great
// alignment: one look at the record's word stands for all their questions.

import Base
import DebugPlatform
import Keg
import Malloc
import Pages
import Platform
import Zone

/// An item as `allocateItem` gives it; 0: it is not for here.
@inline(__always)
func allocatePlainly(
  _ size: UInt, _ alignment: UInt, _ kind: AllocationKind, _ zeroed: Bool
) -> UInt {
  let thread = keg_debug_thread()
  guard _fastPath(size <= Core.greatestOfBin &- leastRightZone),
    _fastPath(alignment == 16 && debug.pointee.isPlain),
    _fastPath(thread.pointee.calls & 255 != 255)
  else { return 0 }
  let bin = Core.bin(size &+ leastRightZone)
  let top = bin.pointee.top
  guard _fastPath(top != bin.pointee.low) else { return 0 }
  let slot = (top &- 8).word
  let heap = Core.heap
  let map = heap.pointee.pageMap
  guard _fastPath(heap.pointee.reservation.contains(slot)),
    case .slab(let slab) = map.owner(at: map.index(of: slot)), slab.pointee.records != 0
  else { return 0 }
  thread.pointee.countdown = 1
  thread.pointee.calls &+= 1
  let keg = slab.pointee.keg
  let stride = keg.pointee.layout.stride
  let index = keg.slot(of: slot, in: slab)
  let record = slab.record(index)
  let item = Item(record: record, slot: slot, capacity: stride, slab: slab)
  // It has left the caches: it is loaded while the stack is walked, the next one until
  // somebody asks for it.
  item.prefetch()
  if _fastPath(top &- 8 != bin.pointee.low) {
    let next = (top &- 16).word
    let nextIndex = keg.slot(of: next, in: slab)
    let isNear = _fastPath(nextIndex < keg.pointee.layout.itemCount)
    Item(record: isNear ? slab.record(nextIndex) : record, slot: next, capacity: stride, slab: slab)
      .prefetch()
  }
  bin.pointee.top = top &- 8
  keg_compiler_barrier()
  let stack = startStack()
  let word = record.word
  // .free or .freed
  guard
    _fastPath(
      word & (5 | 0x1000 | RecordPointer.hasCountBit | RecordPointer.sharesZonesBits | RecordPointer.hasTrashBit)
        == 1 | RecordPointer.sharesZonesBits | RecordPointer.hasTrashBit)
  else {
    prepare(item, index)
    settle(item, size, alignment, 0, kind, zeroed, stack)
    return slot
  }
  let old = record.sharedSize
  if _slowPath(!item.isTrashBeforeZone(old)) { checkFree(item) }
  // What the item before this one left of the zone is as it should be.
  if size < old { writeZone(slot &+ size, slot &+ old) }
  if _slowPath(zeroed) {
    writeTrash(0, slot, slot &+ size)
  } else {
    writeFewTrash(Trash.allocated, slot, size)
  }
  record.setPlain(size, by: thread.pointee.id, at: debug.pointee.now)
  record.pointee.allocationStack = finishStack(stack)
  if _fastPath(thread.pointee.quarantine != 0) {
    thread.pointee.quarantine.pointer(to: DebugThread.self).pointee.counts.allocations &+= 1
  }
  record.word =
    ItemState.live.rawValue | kind.rawValue &<< 3 | RecordPointer.sharesZonesBits
    | debug.pointee.epoch &<< 16
  if kind.isOne { writeCount(slot) }
  return slot
}

/// Frees an item as `deallocate` does. False: it is not for here, and nothing was done.
@inline(__always)
func freePlainly(_ item: Item, _ address: UInt, _ claim: Claim, _ stack: PendingStack) -> Bool {
  let record = item.record
  let word = record.word
  let slot = item.slot
  let thread = keg_debug_thread()
  let part = thread.pointee.quarantine
  guard _fastPath(slot == address && debug.pointee.isPlain && part != 0), claim.alignment == nil,
    _fastPath(word & claim.call.plainMask == claim.call.plainBits)
  else { return false }
  let size = record.sharedSize
  if let claimed = claim.size, claimed != size { return false }
  if claim.call == .deleteArray, _slowPath(beginsWithCount(slot, size)) { return false }
  // Only the winner of two frees goes on.
  guard _fastPath(record.makeBusy(word)) else { return false }
  if _slowPath(!item.isBetweenZones(size)) { checkZones(item, .freeing) }
  if _fastPath(size <= Core.greatestOfBin) {
    writeFewTrash(Trash.freed, slot, size)
  } else {
    writeTrash(Trash.freed, slot, slot &+ size)
  }
  record.setFreed(by: thread.pointee.id, finishStack(stack))
  if claim.call == .delete { removeCount(slot) }
  part.pointer(to: DebugThread.self).pointee.counts.frees &+= 1
  record.word =
    word & ~RecordPointer.stateMask | ItemState.freed.rawValue | RecordPointer.hasTrashBit
  quarantine(item, item.capacity)
  return true
}

extension FreeKind {
  /// Bits of the record's word, and what they are in a live item that shares its zones
  /// and may go by this call without another look.
  @inline(__always)
  var plainMask: UInt32 {
    switch self {
    // malloc or memalign
    case .free, .realloc: RecordPointer.placeMask & ~8
    default: RecordPointer.placeMask
    }
  }
  @inline(__always)
  var plainBits: UInt32 {
    let kind: AllocationKind =
      switch self {
      case .free, .realloc, .freeSized: .malloc
      case .freeAlignedSized: .memalign
      case .delete: .new
      case .deleteArray: .newArray
      }
    return RecordPointer.sharesZonesBits | ItemState.live.rawValue | kind.rawValue &<< 3
  }
}
