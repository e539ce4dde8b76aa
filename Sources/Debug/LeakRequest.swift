// LeakRequest.swift: who asks for a leak check, and where it then runs.
//
//   the end of the process ─────▶ that thread, before the summary
//   keg_leak_check() ───────────▶ the caller
//   keg_leak_request(), signal ─▶ a helper thread made for it; where the kernel forbids
//                                 that, the next malloc or free of any thread

import Base
import DebugPlatform
import Keg
import Leaks
import Malloc
import Platform

/// Called by the loader when this library starts.
@c func keg_leak_start() {
  guard Core.start() else { return }
  let number = Core.option(.debugLeakSignal)
  if number != 0 { _ = keg_leak_install_signal(Int32(truncatingIfNeeded: number)) }
}

/// Called once, at the end of a process, after every item was checked.
/// - Parameter frame: the frame of _exit's caller; 0: the end is by exit or quick_exit.
func checkLeaksAtExit(_ frame: UInt) {
  if Core.option(.debugLeakCheck) == LeakCheckMode.off { return }
  _ = keg_leak_with_registers({ checkAtExit($0, $1) }, frame)
}

private func checkAtExit(_ own: UInt, _ frame: UInt) -> Int {
  // A child that leaves by _exit, often after a failed exec, has its parent's blocks and
  // no reason to free them.
  if keg_leak_is_forked(), frame != 0 || !isInExit(own) { return 0 }
  var question = LeakQuestion()
  question.atExit = true
  question.leavesFrom = frame
  let frame = frame == 0 ? own : frame
  if let totals = checkLeaks(question, frame: frame, target: LeakTarget()) {
    debug.pointee.leaks = totals.leaks
    debug.pointee.leakedBytes = totals.leakedBytes
  }
  return 0
}

/// keg_leak_check: blocks lost since the last mark, or -1.
@c func keg_leak_check_now() -> Int {
  guard keg_debug_is_running() else { return 0 }
  let thread = keg_debug_thread()
  let state = thread.pointee.state
  if state == KEG_DEBUG_INSIDE || state == KEG_DEBUG_NESTED {
    // A handler over one of our calls: this thread may hold any lock.
    keg_set_errno(11 /* EAGAIN */)
    return -1
  }
  thread.pointee.state = KEG_DEBUG_NESTED
  keg_compiler_barrier()
  let leaks = keg_leak_with_registers({ frame, _ in checkForCaller(frame) }, 0)
  keg_compiler_barrier()
  thread.pointee.state = state
  if leaks < 0 { keg_set_errno(12 /* ENOMEM */) }
  return leaks
}

private func checkForCaller(_ frame: UInt) -> Int {
  var question = LeakQuestion()
  question.sinceMark = true
  var target = LeakTarget()
  target.isRequested = true
  guard let totals = checkLeaks(question, frame: frame, target: target) else { return -1 }
  return Int(bitPattern: totals.leaks)
}

/// keg_leak_mark: the next checks look at what is allocated from now on.
@c func keg_leak_set_mark() {
  guard keg_debug_is_running() else { return }
  debug.pointee.epoch = (debug.pointee.epoch &+ 1) & 0xFFFF
}

// MARK: - Requests

/// What the helper thread does.
@c func keg_leak_help() {
  keg_set_thread_bins(keg_bins_unattached())
  keg_debug_thread().pointee.state = KEG_DEBUG_NESTED
  serveRequest(0, onHelper: true)
}

/// Serves a request where no helper could be made. Called by a thread that comes in.
@inline(never)
func serveLeakRequest() {
  let thread = keg_debug_thread()
  let state = thread.pointee.state
  if state != KEG_DEBUG_OUTSIDE || keg_leak_helper() != 0 { return }
  thread.pointee.state = KEG_DEBUG_NESTED
  keg_compiler_barrier()
  _ = keg_leak_with_registers(
    { frame, _ in
      serveRequest(frame, onHelper: false)
      return 0
    }, 0)
  keg_compiler_barrier()
  thread.pointee.state = state
}

private func serveRequest(_ frame: UInt, onHelper: Bool) {
  guard keg_leak_take_request() else { return }
  let saved = onHelper ? 0 : keg_get_errno()
  if keg_debug_is_running() {
    var question = LeakQuestion()
    question.sinceMark = true
    question.onHelper = onHelper
    var target = LeakTarget()
    target.isRequested = true
    if let file = keg_leak_request_file() {
      let opened = keg_syscall6(
        257 /* openat */, -100, Int(bitPattern: file), 0o2002101 /* WRONLY CREAT APPEND CLOEXEC */,
        0o600, 0, 0)
      if opened >= 0 { target.descriptor = Int32(truncatingIfNeeded: opened) }
    }
    _ = checkLeaks(question, frame: frame, target: target)
    if target.descriptor >= 0 {
      _ = keg_syscall6(3 /* close */, Int(target.descriptor), 0, 0, 0, 0, 0)
    }
  }
  keg_leak_finish_request()
  if !onHelper { keg_set_errno(saved) }
}
