// Fault.swift: SIGSEGV: was it a guard page, or a pointer out of freed memory?
//
//   fault ─▶ our handler ─▶ in the arena? which item is nearest? ─────▶ report
//                │   └────▶ where the heap may grow? which block was missed? ▶ │
//                │   └────▶ 0xdeadc0de in a register? who held it? ─▶    │
//                │   └────▶ nobody handles it? a last check ────────▶    │
//                └──────────────▶ the program's handler, or the default ◀┘
//                                 (guard_fault:go_on: the page is opened instead)
//
// The handler stays ours whatever the program installs: shim/DebugExports/signal.c
// keeps the program's for us, and we call it as the kernel would have done.

import Base
import DebugPlatform
import Keg
import Malloc
import Pages
import Platform

func installFaultHandler() { if keg_debug_can_take_faults() { keg_debug_take_faults() } }

/// Whether a page that faults may be one of ours: guarded, or nobody's yet.
@c func keg_debug_is_ours(_ address: UInt) -> Bool {
  keg_debug_is_running() && (debug.pointee.guardArena.contains(address) || isHeapSpace(address))
}

/// Where the pages of the live guarded item end on which `address` lies; 0: on none.
@c func keg_debug_usable_end(_ address: UInt) -> UInt {
  guard keg_debug_is_running(), debug.pointee.guardArena.contains(address),
    let item = debug.pointee.guardArena.find(address), item.record.state == .live, address < item.end
  else { return 0 }
  return item.end
}

/// Called by the handler for SIGSEGV with the address and the kind of access.
/// - Returns: whether the access can be made now: the program goes on.
@c func keg_debug_fault(
  _ address: UInt, _ isWrite: Int32, _ context: UnsafeMutableRawPointer?
) -> Bool {
  guard let context, keg_debug_is_running(), processID() == debug.pointee.pid else { return false }
  let thread = keg_debug_thread()
  let state = thread.pointee.state
  // A handler over a call of ours may hold the locks that a report needs.
  if state == KEG_DEBUG_NESTED { return isWrite == 0 && openProtected(address) }
  if state == KEG_DEBUG_INSIDE { return false }
  thread.pointee.state = KEG_DEBUG_NESTED
  var goesOn = false
  if debug.pointee.guardArena.contains(address) {
    if let item = guardedItem(blamedFor: address, context) {
      report(guardFinding(address, item, isWrite != 0), context)
    }
    goesOn = Core.option(.debugGuardFault) == GuardFaultMode.goOn && openGuard(address)
  } else if isHeapSpace(address) {
    report(strayAccess(address, isWrite != 0), context)
  } else {
    let trash = keg_debug_trash_in(address, context)
    if trash != 0, debug.pointee.isTrashing { report(finding(trash, context), context) }
  }
  if !goesOn, keg_debug_ends_by_fault() { finishByForce() }
  thread.pointee.state = state
  return goesOn
}

/// A page of the heap that the program has made unreadable, a barrier of its own: it is
/// opened for the last look at all items.
/// - Returns: whether it can be read now; false also of a page that was opened just now and
///   faults for another reason, a protection key or a guard of its own.
private func openProtected(_ address: UInt) -> Bool {
  if let item = debug.pointee.guardArena.find(address) {
    if item.record.state != .live || address >= item.end { return false }
  } else if let map = Core.heap.pageMap(for: address) {
    switch map.owner(at: map.index(of: address)) {
    case .slab, .span: break
    default: return false
    }
  } else {
    return false
  }
  let page = address & ~(GuardArena.page &- 1)
  if debug.pointee.openedPage == page { return false }
  debug.pointee.openedPage = page
  return GuardPages.openForReading(page, GuardArena.page)
}

private func report(_ finding: Finding, _ context: UnsafeMutableRawPointer) {
  var finding = finding
  finding.stack = captureStack(context: context)
  report(finding)
}

// MARK: - Pointers out of freed memory

/// How far up the stack the pointer is looked for that led to the freed block.
private var searchedStack: UInt { 512 }

/// What is known: the contents of freed memory were used as a pointer or an index. Which
/// block it was is a guess: one that a register or the function's frame points at.
private func finding(_ trash: UInt, _ context: UnsafeMutableRawPointer) -> Finding {
  let item = freedItem(context)
  return Finding(
    .useAfterFree, "use of a pointer that was read from a freed block", at: item?.user ?? trash, item)
}

/// The registers of who was interrupted, in DWARF's order.
func registers(of context: UnsafeMutableRawPointer) -> InlineArray<17, UInt> {
  var registers = InlineArray<17, UInt>(repeating: 0)
  var span = registers.mutableSpan
  // Never nil: 17 words.
  span.withUnsafeMutableBufferPointer {
    keg_read_context(context, $0.baseAddress.unsafelyUnwrapped)
  }
  return registers
}

private func freedItem(_ context: UnsafeMutableRawPointer) -> Item? {
  let registers = registers(of: context)
  var i = 0
  while i < 16 {
    if let item = freedItem(at: registers[i]) { return item }
    i &+= 1
  }
  return firstOnStack(context, upTo: searchedStack, where: freedItem(at:))
}

/// What `find` makes of the first word on the stack of who was interrupted for which it
/// finds something, of `count` bytes.
func firstOnStack(
  _ context: UnsafeMutableRawPointer, upTo count: UInt, where find: (UInt) -> Item?
) -> Item? {
  var readable = ReadableRange()
  var address = registers(of: context)[KEG_RSP].roundedUp(to: 8)
  let end = address &+ count
  while address < end, readable.covers(address) {
    if let item = find(address.word) { return item }
    address = address &+ 8
  }
  return nil
}

/// The freed block that `address` points into, if its contents are still those of one.
private func freedItem(at address: UInt) -> Item? {
  guard case .item(let item) = place(of: address), item.record.state == .freed,
    item.record.hasTrash, item.record.freeThread != 0, address < item.userEnd
  else { return nil }
  return item
}
