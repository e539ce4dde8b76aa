// StackWalk.swift: from one frame to its caller, by rows.
//
//        higher addresses
//   |                        |
//   | frame of the caller    |
//   |------------------------| ◀── CFA = the caller's sp
//   | address in the caller  |     CFA - 8
//   | caller's rbp, perhaps  |
//   | this frame             |
//   |------------------------| ◀── sp
//
// A frame's address is recorded *inside* the call that is under way (the return
// address minus 1), or is the interrupted instruction itself: whoever looks up a
// function, a line or unwind data uses it as it is.
//
// Nothing on the stack is trusted: a caller's frame must lie above its callee's, and
// a page is read only once it is known to be readable. Code without unwind data is
// taken to keep a frame pointer if what rbp points at looks like one; else the walk ends.

import Base
import DebugPlatform
import Platform

/// Addresses of the stack that are known to be readable.
struct ReadableRange {
  private(set) var low: UInt = .max
  /// The last word's address minus `low`.
  private var reach: UInt = 0

  /// Whether `address` lies inside.
  @inline(__always)
  func contains(_ address: UInt) -> Bool { address &- low <= reach }

  /// Whether the word at `address` can be read. Asks the kernel once a page.
  @inline(__always)
  mutating func covers(_ address: UInt) -> Bool {
    _fastPath(address &- low <= reach) || extend(to: address)
  }

  @inline(never)
  private mutating func extend(to address: UInt) -> Bool {
    let page = address & ~4095
    guard address & 7 == 0, page != 0, keg_is_readable(page) else { return false }
    // One stack: what lies between two of its frames belongs to it.
    if low != .max, page > low, page &- low < 1 << 25 {
      reach = page &+ 4088 &- low
    } else if low != .max, page < low, low &- page < 1 << 25 {
      reach = reach &+ low &- page
      low = page
    } else {
      low = page
      reach = 4088
    }
    return true
  }
}

/// One frame of a walk.
struct StackCursor {
  /// Inside the frame's call, or the interrupted instruction.
  var pc: UInt
  var sp: UInt
  var bp: UInt
  /// Where `bp` was read from, 0: from the register.
  var bpSlot: UInt = 0
}

enum StackStep {
  case caller
  /// The frame was the outermost one, or the walk can go no further.
  case end
  /// The walk went over a signal's frame to the interrupted code.
  case signal
  /// All registers are needed.
  case complex
}

extension StackCursor {
  /// Moves to the caller by `row`, which must be the row of `pc`.
  @inline(__always)
  mutating func step(_ row: StackRow, _ readable: inout ReadableRange) -> StackStep {
    var cfa: UInt
    if _fastPath(row.kind == StackRow.Kind.stackPointer.rawValue) {
      cfa = sp &+ row.cfaOffset
    } else if row.kind == StackRow.Kind.framePointer.rawValue {
      cfa = bp &+ row.cfaOffset
    } else {
      return stepRarely(row, &readable)
    }
    return arrive(cfa, row, &readable)
  }

  @inline(__always)
  private mutating func arrive(
    _ cfa: UInt, _ row: StackRow, _ readable: inout ReadableRange
  ) -> StackStep {
    guard cfa > sp, cfa & 7 == 0, readable.covers(cfa &- 8) else { return .end }
    let address = (cfa &- 8).word
    if row.restoresFramePointer {
      let slot =
        (row.framePointerRule == StackRow.FramePointer.atCFA.rawValue ? cfa : bp)
        &+ row.framePointerOffset
      guard readable.covers(slot) else { return .end }
      bp = slot.word
      bpSlot = slot
    }
    if address < 4096 { return .end }
    pc = address &- 1
    sp = cfa
    return .caller
  }

  @inline(never)
  private mutating func stepRarely(
    _ row: StackRow, _ readable: inout ReadableRange
  ) -> StackStep {
    switch row.kind {
    case StackRow.Kind.throughFramePointer.rawValue:
      let slot = bp &+ row.cfaOffset
      guard slot >= sp, readable.covers(slot) else { return .end }
      return arrive(slot.word, row, &readable)
    case StackRow.Kind.signal.rawValue: return stepOverSignal(&readable)
    case StackRow.Kind.complex.rawValue: return .complex
    case StackRow.Kind.unknown.rawValue: return stepByFramePointer(&readable)
    default: return .end
    }
  }

  /// The kernel's frame starts at sp when its handler has returned: a ucontext.
  private mutating func stepOverSignal(_ readable: inout ReadableRange) -> StackStep {
    guard isSignalReturn(pc &+ 1), readable.covers(sp), readable.covers(sp &+ 256)
    else { return .complex }
    var registers = InlineArray<17, UInt>(repeating: 0)
    readContext(sp, &registers)
    pc = registers[KEG_RIP]
    sp = registers[KEG_RSP]
    bp = registers[KEG_RBP]
    bpSlot = 0
    // The handler may have had a stack of its own.
    if !readable.contains(sp) { readable = ReadableRange() }
    return .signal
  }

  /// As `rbp` chains go: the caller's rbp, and above it the return address.
  mutating func stepByFramePointer(_ readable: inout ReadableRange) -> StackStep {
    guard bp >= sp, bp & 7 == 0, bp &- sp < 1 << 24, readable.covers(bp),
      readable.covers(bp &+ 8)
    else { return .end }
    let address = (bp &+ 8).word
    guard isCode(address &- 1) else { return .end }
    pc = address &- 1
    sp = bp &+ 16
    bpSlot = bp
    bp = bp.word
    return .caller
  }
}

/// `mov $15, %rax; syscall`: what a signal handler returns to.
private func isSignalReturn(_ address: UInt) -> Bool {
  guard keg_is_readable(address), keg_is_readable(address &+ 8) else { return false }
  let bytes = UnsafeRawPointer(bitPattern: address).unsafelyUnwrapped  // readable
  return bytes.loadUnaligned(as: UInt64.self) == 0x0F_0000_000F_C0C7_48
    && bytes.loadUnaligned(fromByteOffset: 8, as: UInt8.self) == 0x05
}

func readContext(_ context: UInt, _ registers: inout InlineArray<17, UInt>) {
  var span = registers.mutableSpan
  span.withUnsafeMutableBufferPointer { buffer in
    // Never nil: seventeen words.
    keg_read_context(
      UnsafeRawPointer(bitPattern: context).unsafelyUnwrapped, buffer.baseAddress.unsafelyUnwrapped)
  }
}

/// Whether code may be at `address`: in a module, or in memory that code was made in.
func isCode(_ address: UInt) -> Bool {
  if address < 65536 || address >= 1 << 47 { return false }
  var module = keg_module()
  return keg_find_module(address, &module) || keg_is_readable(address & ~4095)
}
