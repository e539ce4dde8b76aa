// StackTail.swift: functions that jumped to the allocator, and so have no frame.
//
//   drop:  jmp free@plt         the frame of main says where main goes on; the call
//   main:  call drop            before that says whom it called: drop, although the
//          …  ◀── goes on here  next frame inside is already the allocator's
//
// Compilers make such jumps of the last call of a function, and wrappers of malloc and
// free are often nothing else. Looked for when a stack is written, not when it is taken.

import Base
import DebugPlatform
import Malloc
import Platform

/// The frames of a stack with the function that called the allocator by a jump, if there
/// is one, in front: as the address that it begins at.
func forEachFrameAndJump(_ id: StackID, _ body: (UInt) -> Void) {
  var isFirst = true
  forEachFrame(id) { pc in
    if isFirst {
      isFirst = false
      let function = functionThatJumped(after: pc)
      if function != 0 { body(function) }
    }
    body(pc)
  }
}

/// The function that the innermost frame has called, if that is not the allocator.
/// - Parameter pc: the last byte of the call, as stacks have it.
/// - Returns: 0 when there is none, or the call was not a direct one.
private func functionThatJumped(after pc: UInt) -> UInt {
  let next = pc &+ 1
  guard next > 4096, keg_is_readable(next &- 5), keg_is_readable(pc), (next &- 5).byte == 0xE8
  else { return 0 }
  let target = next &+ distance(at: next &- 4)
  if isStartOfFunction(target) { return target }
  let behind = throughStub(target)
  return behind != 0 && isStartOfFunction(behind) ? behind : 0
}

private func isStartOfFunction(_ address: UInt) -> Bool {
  if isOurs(address) { return false }
  var isStart = false
  describeFrame(address) { isStart = $0.function != nil && $0.functionOffset == 0 }
  return isStart
}

/// Where a stub of a procedure linkage table leads, `jmp *slot(%rip)` after an optional
/// endbr64 and bnd; 0: it is no such stub.
private func throughStub(_ stub: UInt) -> UInt {
  guard stub > 4096, keg_is_readable(stub), keg_is_readable(stub &+ 11) else { return 0 }
  var at = stub
  if at.byte == 0xF3, (at &+ 1).byte == 0x0F, (at &+ 2).byte == 0x1E, (at &+ 3).byte == 0xFA { at = at &+ 4 }
  if at.byte == 0xF2 { at = at &+ 1 }
  guard at.byte == 0xFF, (at &+ 1).byte == 0x25 else { return 0 }
  let slot = at &+ 6 &+ distance(at: at &+ 2)
  guard slot & 7 == 0, keg_is_readable(slot) else { return 0 }
  return slot.word
}

/// A signed number of four bytes in code.
private func distance(at address: UInt) -> UInt {
  var bits: UInt32 = 0
  var i: UInt = 4
  while i > 0 {
    i &-= 1
    bits = bits &<< 8 | UInt32((address &+ i).byte)
  }
  return UInt(bitPattern: Int(Int32(bitPattern: bits)))
}
