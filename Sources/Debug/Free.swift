// Free.swift: every way to give memory back, checked.
//
//   address ─▶ place ─▶ state live? ─▶ start of the item? ─▶ right call? ─▶ right size?
//                          │ compare and swap: one of two frees wins
//                          ▼
//   red zones whole? ─▶ trash ─▶ quarantine
//
// After a report the call does what comes closest: a second free does nothing, a free
// by the wrong call frees.

import Base
import DebugPlatform
import Keg
import Malloc
import Pages
import Platform
import Synchronization

/// By what call memory goes.
enum FreeKind: UInt32 {
  case free = 0
  case delete
  case deleteArray
  case realloc
  case freeSized
  case freeAlignedSized

  /// Whether memory of this kind may go by this call.
  @inline(__always)
  func fits(_ kind: AllocationKind) -> Bool {
    switch self {
    case .free, .realloc: kind == .malloc || kind == .memalign
    case .freeSized: kind == .malloc
    case .freeAlignedSized: kind == .memalign
    case .delete: kind == .new || kind == .alignedNew
    case .deleteArray: kind == .newArray || kind == .alignedNewArray
    }
  }
}

/// What the call says of the block; 0 stands for nothing.
struct Claim {
  let call: FreeKind
  var size: UInt? = nil
  var alignment: UInt? = nil
}

/// free(3) and its kin.
@inline(__always)
func deallocate(_ address: UInt, _ claim: Claim) {
  if address == 0 { return }
  if _slowPath(keg_leak_is_requested()) { serveLeakRequest() }
  guard case .straight = enterDebug() else { return deallocateNested(address) }
  deallocateItem(address, claim)
  leaveDebug()
}

/// What `deallocate` does between `enterDebug` and `leaveDebug`.
@inline(__always)
func deallocateItem(_ address: UInt, _ claim: Claim) {
  let heap = Core.heap
  // As `place(of:)`, for the usual case.
  if _fastPath(heap.pointee.reservation.contains(address)),
    case .slab(let slab) = heap.pointee.pageMap.owner(at: heap.pointee.pageMap.index(of: address)),
    slab.pointee.records != 0
  {
    let keg = slab.pointee.keg
    let index = keg.slot(of: address, in: slab)
    if _fastPath(index < keg.pointee.layout.itemCount) {
      let stride = keg.pointee.layout.stride
      let record = slab.record(index)
      let item = Item(
        record: record, slot: slab.pointee.base &+ index &* stride, capacity: stride, slab: slab)
      item.prefetch()
      keg_prefetch(item.slot &- leastRightZone)
      let stack = startStack()
      if _fastPath(freePlainly(item, address, claim, stack)) { return }
      return deallocate(item, address, claim, stack)
    }
  }
  deallocateOther(address, claim)
}

@inline(never)
private func deallocateOther(_ address: UInt, _ claim: Claim) {
  var item: Item? = nil
  if case .item(let found) = place(of: address) { item = found }
  guard let item = item ?? itemWithoutCount(countedAt: address, claim) else {
    return deallocateUnknown(address, claim)
  }
  deallocate(item, address, claim, startStack())
}

@inline(never)
private func deallocate(_ item: Item, _ address: UInt, _ claim: Claim, _ stack: PendingStack) {
  let record = item.record
  if item.user != address || record.state != .live {
    if item.user != address, let one = itemWithoutCount(countedAt: address, claim),
      one.record.change(from: .live, to: .busy) == .live
    {
      reportMismatch(one, claim)
      checkZones(one, .freeing)
      return retire(one, stack)
    }
    if isFirstElement(address, of: item, claim.call), record.change(from: .live, to: .busy) == .live {
      reportMismatch(item, claim)
      return retire(item, stack)
    }
    abandonStack(stack)
    return reportBadFree(address, item, claim)
  }
  // Only the winner of two frees goes on.
  if record.change(from: .live, to: .busy) != .live {
    abandonStack(stack)
    return reportBadFree(address, item, claim)
  }
  if _slowPath(!claim.call.fits(record.kind)) {
    reportMismatch(item, claim)
  } else if claim.size != nil || claim.alignment != nil || record.kind.rawValue >= AllocationKind.alignedNew.rawValue {
    checkClaim(item, claim)
  }
  checkZones(item, .freeing)
  retire(item, stack)
}

/// Whether free or delete got the first element of an array of new[], before which the
/// compiler keeps the number of elements.
@inline(never)
private func isFirstElement(_ address: UInt, of item: Item, _ call: FreeKind) -> Bool {
  let record = item.record
  guard record.state == .live, call == .free || call == .delete,
    record.kind == .newArray || record.kind == .alignedNewArray
  else { return false }
  let offset = address &- item.user
  guard offset == 8 || offset == 16 || offset == record.alignment, offset < record.size
  else { return false }
  let count = (address &- 8).word
  return count > 0 && (record.size &- offset) % count == 0
}

/// Makes an item that is `.busy` a freed one.
@inline(__always)
func retire(_ item: Item, _ stack: PendingStack = startStack()) {
  let record = item.record
  if _slowPath(record.isGuarded) { return retireGuarded(item, stack) }
  if record.kind.isOne { removeCount(item.user) }
  if _slowPath(item.slab == nil), item.capacity >= leastPurged { return retireLarge(item, stack) }
  let hasTrash = debug.pointee.isTrashing
  var hasCount = false
  if hasTrash {
    let user = item.user
    hasCount = record.kind == .newArray && item.slab != nil && beginsWithCount(user, record.size)
    writeTrash(Trash.freed, user, user &+ record.size)
    if hasCount { user.word = 0 }
  }
  noteFree(record, stack)
  record.set(.freed, hasTrash: hasTrash)
  if hasCount { record.setCounted() }
  quarantine(item, item.capacity)
}

/// The same for a large block: it waits in the quarantine without memory.
@inline(never)
private func retireLarge(_ item: Item, _ stack: PendingStack) {
  noteFree(item.record, stack)
  if debug.pointee.isTrashing, purge(item) {
    item.record.setPurged()
    // Page tables, and what the kernel knows of them.
    return quarantine(item, 4096 &+ item.capacity &>> 9)
  }
  item.record.set(.freed, hasTrash: false)
  quarantine(item, item.capacity)
}

@inline(__always)
private func noteFree(_ record: RecordPointer, _ stack: PendingStack) {
  record.freeThread = keg_debug_thread().pointee.id
  record.pointee.freeStack = finishStack(stack)
  countFree()
}

@inline(__always)
func countFree() {
  let part = keg_debug_thread().pointee.quarantine
  if part != 0 { part.pointer(to: DebugThread.self).pointee.counts.frees &+= 1 }
}

/// Frees what has no record.
@inline(never)
private func deallocateUnknown(_ address: UInt, _ claim: Claim) {
  switch place(of: address) {
  case .unchecked where reportFreeOfZoneItem(address): break
  case .unchecked, .emergency:
    Core.giveSlot(address)
  case .outside where Core.option(.deepBind) == DeepBindMode.keep && Core.isForeignBlock(address):
    Core.giveSlot(address)
  default:
    reportInvalidFree(address, claim)
  }
}

/// A free by who comes in nested: the item waits until a straight call takes it.
@inline(never)
private func deallocateNested(_ address: UInt) {
  guard keg_debug_is_running(), case .item(let item) = place(of: address),
    item.user == address, item.record.change(from: .live, to: .busy) == .live
  else {
    if Core.isUp { Core.giveSlotNested(address) }
    return
  }
  debug.pointee.orphans.pushLinked(item.slot)
}

/// Gives the first word of a freed item's slot, which was used for a link, its pattern.
func restoreFirstWord(_ item: Item) {
  if item.user != item.slot {
    item.slot.word = zoneWord(item.slot)
    return
  }
  let end = item.slot &+ 8
  writeTrash(Trash.freed, item.slot, min(item.userEnd, end))
  writeZone(min(item.userEnd, end), end)
}

/// Frees what handlers over our calls left. Called in `.straight`.
func adoptOrphans() {
  if debug.pointee.orphans.load(ordering: .relaxed) == 0 { return }
  debug.pointee.orphans.takeLinked { slot in
    if case .item(let item) = place(of: slot) {
      restoreFirstWord(item)
      checkZones(item, .freeing)
      retire(item)
    }
  }
}
