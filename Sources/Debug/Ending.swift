// Ending.swift: the end of a process: a last check of everything, the summary, and
// the status that tells that something was found.
//
//   exit, return from main ─▶ our destructor, among the last ─┐
//   quick_exit ─▶ a handler of ours ──────────────────────────┼▶ finish ─▶ status
//   _exit, _Exit ─────────────────────────────────────────────┘
//   abort, a fault that nobody handles ─▶ the check and the summary, but no leaks:
//   nothing is at its end
//
// When the status changes at exit, the program's output is flushed first, as the C
// library would have done a moment later. At _exit it is not: nor would it have been.

import Base
import DebugPlatform
import Keg
import Malloc
import Platform
import Synchronization

struct Summary {
  var errors: UInt = 0
  var leaks: UInt = 0
  var leakedBytes: UInt = 0
  var allocations: UInt = 0
  var frees: UInt = 0
  var quarantineBytes: UInt = 0
  /// Items that got guard pages, and those that the limit kept from it.
  var guarded: UInt = 0
  var unguarded: UInt = 0
}

/// How far the last look at the process is.
enum Ending {
  static var none: UInt32 { 0 }
  static var underWay: UInt32 { 1 }
  static var done: UInt32 { 2 }
}

/// Whether the caller is the one that looks. Any other ends the process when it returns,
/// so it waits for the result, outside, where the one that looks does not wait for it; not
/// for ever: it may hold what that one needs, or have been interrupted at it.
private func beginEnding() -> Bool {
  if debug.pointee.ending.compareExchange(
    expected: Ending.none, desired: Ending.underWay, ordering: .acquiringAndReleasing
  ).exchanged {
    debug.pointee.endingThread = keg_debug_thread().address
    return true
  }
  let limit = keg_monotonic_nanoseconds() &+ 10_000_000_000
  while debug.pointee.ending.load(ordering: .acquiring) != Ending.done,
    debug.pointee.endingThread != keg_debug_thread().address, keg_monotonic_nanoseconds() < limit
  {
    keg_debug_yield()
  }
  return false
}

/// The last look at the process. Once in a process; later calls know the result.
/// - Parameter frame: the stack is the program's from here on; 0: the leak check finds out.
/// - Returns: the status the process is to have; nil: its own.
func finish(frame: UInt = 0) -> Int32? {
  // A child of vfork runs in its parent's memory and leaves no word in it.
  guard keg_debug_is_running(), processID() == debug.pointee.pid else { return nil }
  if beginEnding() {
    let thread = keg_debug_thread()
    let state = thread.pointee.state
    thread.pointee.state = KEG_DEBUG_NESTED
    validateAll()
    writeProfile()
    checkLeaksAtExit(frame)
    writeSummary()
    thread.pointee.state = state
    debug.pointee.ending.store(Ending.done, ordering: .releasing)
  }
  let code = Int32(truncatingIfNeeded: Core.option(.debugExitCode))
  if code == 0 { return nil }
  if debug.pointee.findings.errors > 0 { return code }
  // A compiler's driver gives up when the assembler, which leaks, seems to fail; whoever
  // started the driver hears of the leaks all the same.
  return debug.pointee.leaks > 0 && !keg_leak_parent_is_checked() ? code : nil
}

/// Our destructor.
@c func keg_debug_at_exit() {
  if let status = finish() {
    keg_debug_flush_program()
    endProcess(status)
  }
}

/// Called by quick_exit, after the program's own handlers.
@c func keg_debug_at_quick_exit() {
  if let status = finish() { endProcess(status) }
}

/// What _exit does. Never returns.
/// - Parameter frame: the registers of the caller, with its stack above them.
@c public func keg_debug_exit(_ status: Int32, _ frame: UInt) {
  endProcess(finish(frame: frame) ?? status)
}

/// Called by abort(3): what can be found by looking is found now or never. What died
/// inside a call of ours, or in a report, holds locks: then there is no look.
@c func keg_debug_at_abort() {
  guard keg_debug_is_running(), processID() == debug.pointee.pid else { return }
  let thread = keg_debug_thread()
  let state = thread.pointee.state
  if state == KEG_DEBUG_INSIDE || state == KEG_DEBUG_NESTED { return }
  thread.pointee.state = KEG_DEBUG_NESTED
  finishByForce()
  thread.pointee.state = state
}

/// The process dies in the middle of something: all checks but that for leaks.
func finishByForce() {
  guard
    debug.pointee.ending.compareExchange(
      expected: Ending.none, desired: Ending.underWay, ordering: .acquiringAndReleasing
    ).exchanged
  else { return }
  debug.pointee.endingThread = keg_debug_thread().address
  validateAll()
  writeProfile()
  writeSummary()
  debug.pointee.ending.store(Ending.done, ordering: .releasing)
}

func endProcess(_ status: Int32) -> Never {
  while true {
    _ = keg_syscall6(231 /* exit_group */, Int(status), 0, 0, 0, 0, 0)
  }
}

func writeSummary() {
  var summary = Summary()
  summary.errors = debug.pointee.findings.errors
  summary.quarantineBytes = debug.pointee.quarantine.bytes
  summary.guarded = debug.pointee.guardArena.guarded
  summary.unguarded = debug.pointee.guardArena.refused
  summary.leaks = debug.pointee.leaks
  summary.leakedBytes = debug.pointee.leakedBytes
  debug.pointee.threadLock.withLock {
    summary.allocations = debug.pointee.counts.allocations
    summary.frees = debug.pointee.counts.frees
    debug.pointee.threads.forEach {
      summary.allocations &+= $0.pointee.counts.allocations
      summary.frees &+= $0.pointee.counts.frees
    }
  }
  let isJSON = Core.option(.debugJSONFile) != 0
  // A process without a bug is silent, like its output without us.
  if !isJSON, summary.errors &+ summary.leaks == 0, Core.option(.debugLogFile) == 0 { return }
  debug.pointee.reportLock.lock()
  var text = ReportText()
  withUnsafeMutablePointer(to: &text) { text in
    debug.pointee.findings.forEachRepeated { number, kind, count in
      if isJSON {
        writeRepeatedJSON(number, kind, count, &text.pointee)
      } else {
        text.pointee.append("kegmalloc: ")
        text.pointee.append(kind.name)
        text.pointee.append(" of report ")
        text.pointee.append(decimal: number)
        text.pointee.append(" was found ")
        text.pointee.append(decimal: count)
        text.pointee.append(" times\n")
      }
    }
  }
  if isJSON { writeSummaryJSON(summary, &text) } else { writeText(summary, &text) }
  text.send(to: openReport(isJSON ? .debugJSONFile : .debugLogFile))
  debug.pointee.reportLock.unlock()
}

private func writeText(_ summary: Summary, _ text: inout ReportText) {
  text.append("kegmalloc: summary: process ")
  text.append(decimal: UInt(debug.pointee.pid))
  text.append(": errors ")
  text.append(decimal: summary.errors)
  text.append(", leaks ")
  text.append(decimal: summary.leaks)
  text.append(", leaked bytes ")
  text.append(decimal: summary.leakedBytes)
  text.append(", allocations ")
  text.append(decimal: summary.allocations)
  text.append(", frees ")
  text.append(decimal: summary.frees)
  text.append(", quarantine bytes ")
  text.append(decimal: summary.quarantineBytes)
  if summary.guarded > 0 {
    text.append(", guarded ")
    text.append(decimal: summary.guarded)
    text.append(", beyond guard_limit ")
    text.append(decimal: summary.unguarded)
  }
  text.append("\n")
}

// MARK: - Where reports go

/// Opens the file of findings that all processes share while it can be found: the program
/// may go to another root directory. Whatever it closes is opened anew.
func openReportEarly() {
  let path = Core.option(.debugJSONFile)
  if path != 0, !keg_debug_names_process(path.pointer(to: CChar.self)) {
    _ = openReport(.debugJSONFile)
  }
}

/// The descriptor for the file that an option names, opened when first needed;
/// standard error, of which boot made a copy, without one.
func openReport(_ option: Option) -> Int32 {
  let path = Core.option(option)
  if path == 0 { return errorOutput() }
  let known = debug.pointee.reportDescriptor
  if known < 0 || !keg_debug_is_file(known, debug.pointee.reportFile) {
    let opened = keg_debug_open_report(
      path.pointer(to: CChar.self), Int32(bitPattern: debug.pointee.pid))
    debug.pointee.reportDescriptor = opened
    debug.pointee.reportFile = keg_debug_file(opened)
  }
  return debug.pointee.reportDescriptor
}

/// Our copy of standard error. A program that has closed all descriptors may have opened
/// a file of its own under that number: then, as when nothing is open there, descriptor 2.
func errorOutput() -> Int32 {
  let copy = debug.pointee.errorDescriptor
  return keg_debug_is_file(copy, debug.pointee.errorFile) ? copy : 2
}
