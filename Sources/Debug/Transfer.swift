// Transfer.swift: memory that system calls read and write for the program.
//
//   write(fd, p, 100) ─▶ are the 100 bytes the block's? ─▶ the call        (any block)
//   read(fd, p, 100)  ─▶ the call ─▶ EFAULT, or cut short at the end       (guarded blocks)
//                                    of the block's pages? ─▶ report
//
// The kernel meets a page that faults without a signal: it returns EFAULT or a smaller
// number, and nobody would hear of it. What is written past a block with red zones is
// seen when the block is freed, as other writes are, so only guarded ones are looked at.
// A read is all meant: its length is known before. Of a write only what has arrived
// counts, since programs pass larger sizes than they expect. Called by
// shim/DebugExports/transfer.c.

import Base
import DebugPlatform
import Malloc
import Platform

/// Before a system call reads `size` bytes at `start`.
/// - Parameter isCopied: the C library may copy them first, and a page that faults will tell.
@c func keg_debug_before_reading(_ start: UInt, _ size: UInt, _ isCopied: Bool) {
  guard size != 0, keg_debug_is_running(), let item = itemMeant(start, size),
    let wrong = firstWrong(item, start, start &+ size), !(isCopied && faults(wrong, item))
  else { return }
  reportTransfer(wrong, item, isWrite: false)
}

/// After the C library has copied `size` bytes at `start`, or given them to a system call:
/// if a page that faults lies among them, they were not copied.
@c func keg_debug_after_reading(_ start: UInt, _ size: UInt, _ hasFailed: Bool) {
  guard size != 0, keg_debug_is_running(), debug.pointee.guardArena.contains(start),
    hasFailed || Core.option(.debugGuardFault) != GuardFaultMode.goOn,
    let item = itemMeant(start, size), let wrong = firstWrong(item, start, start &+ size),
    faults(wrong, item)
  else { return }
  reportTransfer(wrong, item, isWrite: false)
}

private func faults(_ address: UInt, _ item: Item) -> Bool {
  item.isGuarded && (item.record.state != .live || address < item.slot || address >= item.end)
}

/// After a system call that was to write up to `size` bytes at `start`.
/// - Parameter result: how many it has written; negative: it failed with EFAULT.
@c func keg_debug_after_writing(_ start: UInt, _ size: UInt, _ result: Int) {
  guard size != 0, keg_debug_is_running(), debug.pointee.guardArena.contains(start),
    let item = itemMeant(start, size)
  else { return }
  let end: UInt
  if result < 0 {
    end = start &+ size
  } else {
    // Cut short where the next page faults: the rest was meant for it. If there is a red zone
    // in between it is damaged, which the free will see.
    end = start &+ UInt(bitPattern: result) &+ 1
    guard UInt(bitPattern: result) < size, end == item.end &+ 1, item.userEnd == item.end else { return }
  }
  guard let wrong = firstWrong(item, start, end) else { return }
  reportTransfer(wrong, item, isWrite: true)
}

/// The block that `start` was meant to lie in.
private func itemMeant(_ start: UInt, _ size: UInt) -> Item? {
  guard size < 1 &<< 47 else { return nil }
  guard case .item(let item) = place(of: start) else {
    // In front of the first block of a slab there is none.
    guard case .item(let next) = place(of: start &+ leastRightZone), start < next.user else { return nil }
    return next
  }
  if start < item.userEnd || start == item.userEnd && item.record.size == 0 { return item }
  // Behind it: or before the next?
  let next = item.isGuarded ? debug.pointee.guardArena.next(after: item) : item.neighbour(1)
  guard let next, next.record.state == .live, start < next.user,
    next.user &- start < start &- item.userEnd || item.record.state != .live
  else { return item }
  return next
}

/// The first byte of [start, end) that is not the block's to use; nil: all are.
private func firstWrong(_ item: Item, _ start: UInt, _ end: UInt) -> UInt? {
  switch item.record.state {
  case .live:
    if start < item.user { return start }
    return end > item.userEnd ? max(start, item.userEnd) : nil
  case .freed, .free:
    return item.record.freeThread != 0 && start < item.userEnd ? start : nil
  default:
    return nil
  }
}

private func reportTransfer(_ address: UInt, _ item: Item, isWrite: Bool) {
  guard case .straight = enterDebug() else { return }
  report(guardFinding(address, item, isWrite))
  leaveDebug()
}
