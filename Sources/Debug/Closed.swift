// Closed.swift: streams and directories that the program uses after it has closed them.
// shim/DebugExports/closed.c asks.

import Base
import DebugPlatform
import Malloc
import Platform

/// Whether a stream or directory is a freed block, which is reported.
@c func keg_debug_is_closed(_ handle: UInt, _ isClosing: Bool) -> Bool {
  guard keg_debug_is_running(), let item = closedHandle(handle), case .straight = enterDebug()
  else { return false }
  report(
    isClosing
      ? Finding(.doubleFree, "second close of a stream or directory", at: item.user, item)
      : useOfClosed(item))
  leaveDebug()
  return true
}

/// The C library ends the process, which used a stream that it does not know: the freed block
/// that the functions on the stack hold is what it was.
@c func keg_debug_at_bad_stream(_ context: UnsafeMutableRawPointer) {
  guard keg_debug_is_running(), processID() == debug.pointee.pid else { return }
  let thread = keg_debug_thread()
  let state = thread.pointee.state
  if state == KEG_DEBUG_INSIDE || state == KEG_DEBUG_NESTED { return }
  thread.pointee.state = KEG_DEBUG_NESTED
  if let item = firstOnStack(context, upTo: 4096, where: { closedHandle($0) }) {
    var finding = useOfClosed(item)
    finding.stack = captureStack(context: context)
    report(finding)
  }
  thread.pointee.state = state
}

private func closedHandle(_ address: UInt) -> Item? {
  guard case .item(let item) = place(of: address), item.user == address,
    item.record.state == .freed, item.record.freeThread != 0
  else { return nil }
  return item
}

private func useOfClosed(_ item: Item) -> Finding {
  Finding(.useAfterFree, "use of a stream or directory that was closed", at: item.user, item)
}
