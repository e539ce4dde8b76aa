// Signals.swift: is this a signal handler over a fast path?
//
// The fast path leaves no mark that it runs; so a slow path that a handler enters
// must find out from the stack whether the interrupted instruction was one of
// ours, and if it was, leave the bins alone: the interrupted code holds an address
// inside one of them in a register.
//
// That is cheap because it is rarely asked. The kernel clears the rseq_cs word of a
// thread whenever it interrupts the thread outside a restartable sequence (rseq(2)),
// be it for a signal or for another thread. We set that word to a sequence that is
// never executed; as long as it is there, no signal has come since.
//
//   stack pointer ▶| handler's frames | signal frame: … rip … cs/ss … | interrupted frame …
//
// When it is gone, the stack is searched upwards for the one word of a signal frame
// that is the same in all of them: the segment selectors behind the saved rip.

import Base
import Platform

/// Whether a handler runs over an instruction of this library.
@inline(__always)
func interruptedFastPath() -> Bool {
  keg_signal_watch_is_set() ? false : searchStack()
}

/// cs = 0x33, gs = fs = 0, ss = 0x2b in the sigcontext of user code on x86-64.
private var selectors: UInt { 0x002B_0000_0000_0033 }

@inline(never)
private func searchStack() -> Bool {
  let hasWatch = keg_set_signal_watch()
  // The selectors lie some 200 bytes above the handler's own frames. Without the
  // watch this is asked too often to look as far as 32 KiB.
  var address = keg_stack_pointer().roundedDown(to: 64)
  let (top, isWhole) = stackTop(above: address)
  let end = address &+ min(hasWatch ? 32768 : 2048, (top &- address).roundedUp(to: 64))
  while address < end {
    // Page by page: of a stack whose top is not known what lies behind it may not be readable.
    let pageEnd = min((address &+ 1).roundedUp(to: 4096), end)
    var found = keg_find_word(address, pageEnd, UInt64(selectors))
    while found != 0 {
      if isOurs((found &- 16).word) {
        keg_clear_signal_watch()
        return true
      }
      found = findAgain(behind: found, pageEnd)
    }
    address = pageEnd
    if address < end, !isWhole, !keg_is_readable(address) { return false }
  }
  return false
}

/// What no frame of the stack with `address` lies above. What is mapped behind it may go
/// while we look: a thread's stack ends below its control block, which the C library puts
/// there, the first thread's below the arguments. Of other stacks (sigaltstack, contexts)
/// the top is unknown.
/// - Returns: `isWhole`: all is mapped from `address` up to there.
@inline(__always)
private func stackTop(above address: UInt) -> (top: UInt, isWhole: Bool) {
  let first = keg_first_stack_end()
  // The kernel keeps that much free below the first thread's stack.
  if first &- address < 8 &<< 20 { return (first, true) }
  let control = keg_thread_pointer()
  return (control > address ? control : .max, false)
}

/// The next such word behind `found`: first in the rest of its 64 bytes.
private func findAgain(behind found: UInt, _ end: UInt) -> UInt {
  var address = found &+ 8
  while !address.isMultiple(ofPowerOfTwo: 64) {
    if address.word == selectors { return address }
    address = address &+ 8
  }
  return address < end ? keg_find_word(address, end, UInt64(selectors)) : 0
}

@inline(__always)
private func isOurs(_ instruction: UInt) -> Bool {
  instruction &- keg_text_start() < keg_text_end() &- keg_text_start()
}
