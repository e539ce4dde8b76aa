// StackTail.swift: functions that left by a jump, and so have no frame.
//
//   outer: jmp inner@plt        the frame of main says where main goes on; the call
//   inner: jmp free@plt         before that says whom it called: outer, although the
//   main:  call outer           next frame inside is already the allocator's. The jumps
//          …  ◀── goes on here  of outer lead to inner, and those of inner to free
//
// Compilers make such jumps of the last call of a function, and wrappers of malloc and
// free are often nothing else. Looked for when a stack is written, not when it is taken.
// What was called is certain; what lies between it and the next frame is said only if one
// way of jumps leads there and no other.

import Base
import DebugPlatform
import Malloc
import Platform

/// The frames of a stack with the functions that left by a jump, each as the address that
/// it begins at, before the frame of who called them.
func forEachFrameAndJump(_ id: StackID, _ body: (UInt) -> Void) {
  // The function of the frame before; 0: the allocator.
  var goal: UInt = 0
  var isFirst = true
  forEachFrame(id) { pc in
    if isFirst || goal != 0 {
      var way = JumpWay(goal: goal)
      let called = functionCalled(before: pc &+ 1)
      if called != 0, called != goal, isFirst ? isStartOfFunction(called) : way.isKnown(called) {
        way.find(from: called)
        var i = way.count
        while i > 0 {
          i &-= 1
          body(way.functions[i])
        }
        body(called)
      }
    }
    body(pc)
    goal = startOfFunction(pc)
    isFirst = false
  }
}

/// The function that returns to `next`, if the call was a direct one or through a linkage
/// table; else 0.
private func functionCalled(before next: UInt) -> UInt {
  guard next > 4096, keg_is_readable(next &- 6), keg_is_readable(next &- 1) else { return 0 }
  if (next &- 5).byte == 0xE8 { return throughStub(next &+ distance(at: next &- 4)) }
  // call *slot(%rip), as -fno-plt has it.
  if (next &- 6).byte == 0xFF, (next &- 5).byte == 0x15 { return slot(next &+ distance(at: next &- 4)) }
  return 0
}

private func isStartOfFunction(_ address: UInt) -> Bool {
  if isOurs(address) { return false }
  var isStart = false
  describeFrame(address) { isStart = $0.function != nil && $0.functionOffset == 0 }
  return isStart
}

/// Where the function of `pc` begins, if it can be entered there: not the cold part of one.
/// Else 0.
private func startOfFunction(_ pc: UInt) -> UInt {
  guard let entry = UnwindEntry(pc: pc), let program = FrameProgram(entry, pc: entry.start),
    program.rules.cfaRegister == KEG_RSP, program.rules.cfaValue == 8
  else { return 0 }
  return entry.start
}

/// Where `address` leads if it is a stub of a procedure linkage table, `jmp *slot(%rip)`
/// after an optional endbr64 and bnd; else `address` itself. A function with -fno-plt may
/// consist of that jump, but has a name.
private func throughStub(_ address: UInt) -> UInt {
  guard address > 4096, keg_is_readable(address), keg_is_readable(address &+ 11) else { return 0 }
  var at = address
  if at.byte == 0xF3, (at &+ 1).byte == 0x0F, (at &+ 2).byte == 0x1E, (at &+ 3).byte == 0xFA { at = at &+ 4 }
  if at.byte == 0xF2 { at = at &+ 1 }
  guard at.byte == 0xFF, (at &+ 1).byte == 0x25, !isStartOfFunction(address) else { return address }
  let target = slot(at &+ 6 &+ distance(at: at &+ 2))
  return target == 0 ? address : target
}

/// What a slot of a linkage table holds; 0: there is none.
private func slot(_ address: UInt) -> UInt {
  address & 7 == 0 && address > 4096 && keg_is_readable(address) ? address.word : 0
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

/// The way by jumps from a function to another, or to the allocator.
private struct JumpWay {
  /// Where it ends; 0: in the allocator.
  let goal: UInt
  /// Those between, in the order of the jumps.
  var functions = InlineArray<4, UInt>(repeating: 0)
  var count = 0
  private var ways = 0
  private var trail = InlineArray<4, UInt>(repeating: 0)
  /// Bytes of code that may still be looked at: every one of them may begin a jump.
  private var patience = 8192

  init(goal: UInt) { self.goal = goal }

  func isKnown(_ function: UInt) -> Bool { !isOurs(function) && startOfFunction(function) == function }

  mutating func find(from function: UInt) {
    follow(function, depth: 0)
    if ways != 1 { count = 0 }
  }

  private mutating func follow(_ function: UInt, depth: Int) {
    guard let entry = UnwindEntry(pc: function), entry.start == function else { return }
    let size = entry.end &- function
    if size > UInt(bitPattern: patience) { return ways = 2 }
    patience &-= Int(bitPattern: size)
    // The same jump may stand in a function more than once.
    var last: UInt = 0
    var at = function
    while at < entry.end, ways < 2 {
      let target = jump(at, end: entry.end)
      at = at &+ 1
      if target == 0 || target == last || target &- function < size { continue }
      if goal == 0 ? isOurs(target) : target == goal {
        last = target
        ways &+= 1
        functions = trail
        count = depth
      } else if depth < 4, isKnown(target) {
        last = target
        trail[depth] = target
        follow(target, depth: depth &+ 1)
      }
    }
  }

  /// Where an instruction at `at` jumps to, if it is a jump; 0: it is none.
  private func jump(_ at: UInt, end: UInt) -> UInt {
    let left = end &- at
    let byte = at.byte
    if byte == 0xE9, left >= 5 { return throughStub(at &+ 5 &+ distance(at: at &+ 1)) }
    if left >= 6 {
      let next = (at &+ 1).byte
      if byte == 0x0F, next & 0xF0 == 0x80 { return throughStub(at &+ 6 &+ distance(at: at &+ 2)) }
      if byte == 0xFF, next == 0x25 { return slot(at &+ 6 &+ distance(at: at &+ 2)) }
    }
    guard byte == 0xEB || byte & 0xF0 == 0x70, left >= 2 else { return 0 }
    return at &+ 2 &+ UInt(bitPattern: Int(Int8(bitPattern: (at &+ 1).byte)))
  }
}
