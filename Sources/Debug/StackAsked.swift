// StackAsked.swift: stacks that somebody asks for by name: the program its own, a handler
// of a signal that of the code which it interrupted.

import Base
import DebugPlatform
import Malloc

/// keg_backtrace(3) of kegmalloc.h.
@c public func keg_backtrace_here(
  _ frames: UnsafeMutablePointer<UnsafeMutableRawPointer?>, _ limit: Int32
) -> Int32 {
  guard case .straight = enterDebug() else { return 0 }
  let id = captureStack()
  leaveDebug()
  var count: Int32 = 0
  forEachFrame(id) { pc in
    if count < limit {
      frames[Int(count)] = UnsafeMutableRawPointer(bitPattern: pc)
      count &+= 1
    }
  }
  return count
}

// MARK: - From a signal

/// The stack of the code that a signal interrupted, the faulting instruction first.
/// After a call through a bad pointer, that pointer is first and the caller follows.
/// - Parameter context: a signal handler's third argument.
func captureStack(context: UnsafeMutableRawPointer?) -> StackID {
  guard stacksAreUp, let context else { return 0 }
  var cursor = FullCursor()
  readContext(UInt(bitPattern: context), &cursor.registers)
  let wild = cursor.registers[16]
  var readable = ReadableRange()
  guard !isCode(wild), readable.covers(cursor.registers[KEG_RSP]) else {
    return storeCompletely(&cursor)
  }
  // Nothing but the call was executed: the return address is on top of the stack.
  let sp = cursor.registers[KEG_RSP]
  cursor.registers[16] = sp.word
  cursor.registers[KEG_RSP] = sp &+ 8
  cursor.isExact = false
  var frames = FrameBuffer(repeating: 0)
  return withFrames(&frames) { buffer in
    buffer[0] = wild
    let count = walkCompletely(&cursor, into: buffer + 1, limit: stacks.pointee.depth &- 1)
    return store(buffer, count &+ 1)
  }
}
