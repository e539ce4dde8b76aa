// GuardFault.swift: a page of the guard arena faulted: which block was meant?
//
//    |    A    |···· G ····|    B    |···· G ····|  freed C  |···· G ····|
//               ▲     ▲   ▲                          ▲
//               A's   │   B's                        C's, unless a register points at
//                     │                              another block and none at C
//                     who jumps here: the block that a register points at, or else
//                     the one that the option has put against this page
//
// Who goes on from A byte by byte, or down from B, faults at that edge of the guard.

import Base
import DebugPlatform
import Keg
import Malloc
import Pages
import Platform

/// So near to the edge of a block's pages no other block is meant; and so near to the
/// address a register is a pointer that has moved on from its block. In bytes.
private var adjacent: UInt { 64 }

/// How far from a block an access is still blamed on it, in bytes.
private var farthest: UInt { 1 &<< 24 }

/// The item that an access to a page that faults was meant for; nil: there are none.
func guardedItem(blamedFor address: UInt, _ context: UnsafeMutableRawPointer) -> Item? {
  guard let before = debug.pointee.guardArena.find(address) else {
    return debug.pointee.guardArena.next(after: nil)
  }
  let registers = registers(of: context)
  if address < before.end {
    if isHeld(before.slot, before.end, registers) { return before }
    return heldItem(near: address, registers) ?? before
  }
  guard let next = debug.pointee.guardArena.next(after: before),
    next.record.state == .live || before.record.state != .live
  else {
    if address &- before.end < adjacent { return before }
    return heldItem(near: address, registers) ?? before
  }
  let past = address &- before.end
  let short = next.slot &- address
  if min(past, short) < adjacent { return past <= short ? before : next }
  let holdsBefore = isHeld(before.user, before.userEnd, registers)
  let holdsNext = isHeld(next.user, next.userEnd, registers)
  if holdsBefore != holdsNext { return holdsBefore ? before : next }
  if !holdsBefore, let other = heldItem(near: address, registers) { return other }
  if before.record.state != .live { return next }
  return debug.pointee.guardChoice.isLeft ? next : before
}

/// Whether a register holds an address in [start, end].
private func isHeld(_ start: UInt, _ end: UInt, _ registers: InlineArray<17, UInt>) -> Bool {
  var i = 0
  while i < 16 {
    if registers[i] &- start <= end &- start { return true }
    i &+= 1
  }
  return false
}

/// Of the live items that registers point into, or at the end of, the nearest.
private func heldItem(near address: UInt, _ registers: InlineArray<17, UInt>) -> Item? {
  if isHeld(address &- adjacent, address &+ adjacent, registers) { return nil }
  var best: Item? = nil
  var least = farthest
  var i = 0
  while i < 16 {
    let register = registers[i]
    i &+= 1
    guard let item = debug.pointee.guardArena.find(register), item.record.state == .live,
      register >= item.user, register <= item.userEnd
    else { continue }
    let distance = address < item.user ? item.user &- address : address &- item.userEnd
    if distance < least {
      best = item
      least = distance
    }
  }
  return best
}

/// What an access to a page that faults is, or one by a system call.
func guardFinding(_ address: UInt, _ item: Item, _ isWrite: Bool) -> Finding {
  if item.record.state != .live, item.record.state != .busy {
    var finding = Finding(
      .useAfterFree, isWrite ? "write to a freed block" : "read of a freed block", at: address, item)
    finding.access = isWrite ? .write : .read
    return finding
  }
  var finding = findingOutside(item, address, isWrite)
  if isWrite {
    // What it has written already, in the gap between block and page.
    finding.damage = finding.kind == .underflow ? damageBefore(item) : damageBehind(item)
    noteFault(item)
  }
  return finding
}

/// What an access before or past a block is.
func findingOutside(_ item: Item, _ address: UInt, _ isWrite: Bool) -> Finding {
  var finding =
    address < item.user
    ? Finding(
      .underflow,
      isWrite ? "write before the start of a block" : "read before the start of a block",
      at: address, item)
    : Finding(
      .overflow, isWrite ? "write past the end of a block" : "read past the end of a block",
      at: address, item)
  finding.access = isWrite ? .write : .read
  return finding
}

/// Lets the program have a page that faults, for `guard_fault:go_on`.
/// - Returns: whether it does not fault any more.
func openGuard(_ address: UInt) -> Bool {
  debug.pointee.guardLock.lock()
  let isOpen = debug.pointee.guardArena.open(address)
  debug.pointee.guardLock.unlock()
  return isOpen
}
