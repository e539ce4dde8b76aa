// Fault.swift: SIGSEGV, when the page that was touched is one of ours.
//
//   fault ─▶ our handler ─▶ in the arena? which item is nearest? ─▶ report
//                │                                                     │
//                └──────────────▶ the program's handler, or the default ◀┘
//
// The handler stays ours whatever the program installs: shim/DebugExports/signal.c
// keeps the program's for us, and we call it as the kernel would have done.

import Base
import DebugPlatform
import Keg
import Malloc
import Platform

func installFaultHandler() { keg_debug_take_faults() }

/// Whether a page that faults may be one of ours.
@c func keg_debug_is_guarded(_ address: UInt) -> Bool {
  keg_debug_is_running() && debug.pointee.guardArena.contains(address)
}

/// Where the pages of the live guarded item end on which `address` lies; 0: on none.
@c func keg_debug_usable_end(_ address: UInt) -> UInt {
  guard keg_debug_is_guarded(address), let item = debug.pointee.guardArena.find(address),
    item.record.state == .live, address < item.end
  else { return 0 }
  return item.end
}

/// Called by the handler for SIGSEGV with the address and the kind of access.
@c func keg_debug_fault(
  _ address: UInt, _ isWrite: Int32, _ context: UnsafeMutableRawPointer?
) {
  let thread = keg_debug_thread()
  let state = thread.pointee.state
  // A handler over a call of ours may hold the locks that a report needs.
  if state == KEG_DEBUG_INSIDE || state == KEG_DEBUG_NESTED { return }
  guard
    let before = debug.pointee.guardArena.find(address)
      ?? debug.pointee.guardArena.next(after: nil)
  else { return }
  thread.pointee.state = KEG_DEBUG_NESTED
  var finding = finding(address, before, isWrite != 0)
  finding.stack = captureStack(context: context)
  report(finding)
  if keg_debug_ends_by_fault() { writeSummary() }
  thread.pointee.state = state
}

private func finding(_ address: UInt, _ before: Item, _ isWrite: Bool) -> Finding {
  var item = before
  // On the guard page the item behind it may be nearer.
  if address >= before.end, let next = debug.pointee.guardArena.next(after: before),
    next.record.state == .live || before.record.state != .live,
    next.user &- address < address &- before.userEnd
  {
    item = next
  }
  let kind: FindingClass
  let phrase: StaticString
  if item.record.state != .live, item.record.state != .busy {
    kind = .useAfterFree
    phrase = isWrite ? "write to a freed block" : "read of a freed block"
  } else if address < item.user {
    kind = .underflow
    phrase = isWrite ? "write before the start of a block" : "read before the start of a block"
  } else {
    kind = .overflow
    phrase = isWrite ? "write past the end of a block" : "read past the end of a block"
  }
  var finding = Finding(kind, phrase, at: address, item)
  finding.access = isWrite ? .write : .read
  return finding
}
