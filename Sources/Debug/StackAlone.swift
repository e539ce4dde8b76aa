// StackAlone.swift: captures that take nothing from the thread's record: over a capture
// under way, in a thread that ends, of code that rows do not describe, by libunwind.

import Base
import DebugPlatform

/// A capture without a record.
@inline(never)
func capturePlainly(_ start: StackCursor) -> StackID {
  var frames = FrameBuffer(repeating: 0)
  return withFrames(&frames) { buffer in
    let count = walk(start, into: buffer, limit: stacks.pointee.depth)
    return count < 0 ? captureCompletely() : store(buffer, count)
  }
}

func store(_ frames: UnsafeMutablePointer<UInt>, _ count: Int) -> StackID {
  if count == 0 { return 0 }
  let hash = StackHash.of(frames, count: count)
  let id = stacks.pointee.depot.find(hash)
  return id != 0 ? id : stacks.pointee.depot.store(hash, frames, count: count)
}

/// Walks from `start` with nothing but rows.
/// - Returns: how many frames there were, or -1 when all registers are needed.
func walk(_ start: StackCursor, into frames: UnsafeMutablePointer<UInt>, limit: Int) -> Int {
  var cursor = start
  var readable = ReadableRange()
  var count = 0
  while count < limit {
    let row = stacks.pointee.rows.row(cursor.pc)
    // What a handler returns to starts at its return address, with nothing before it.
    let isSignal = row.kind == StackRow.Kind.signal.rawValue
    frames[count] = isSignal ? cursor.pc &+ 1 : cursor.pc
    count &+= 1
    switch cursor.step(row, &readable) {
    case .caller, .signal: break
    case .end: return count
    case .complex: return -1
    }
  }
  return count
}

/// A capture with all registers, by libunwind if that was chosen.
@inline(never)
func captureCompletely() -> StackID {
  var cursor = FullCursor()
  readRegisters(&cursor.registers)
  return storeCompletely(&cursor)
}

@inline(__always)
func readRegisters(_ registers: inout InlineArray<17, UInt>) {
  var span = registers.mutableSpan
  span.withUnsafeMutableBufferPointer { keg_read_registers($0.baseAddress.unsafelyUnwrapped) }
}

func storeCompletely(_ cursor: inout FullCursor) -> StackID {
  var frames = FrameBuffer(repeating: 0)
  return withFrames(&frames) { buffer in
    store(buffer, walkCompletely(&cursor, into: buffer, limit: stacks.pointee.depth))
  }
}

/// Walks with all registers; frames of ours at the start are left out.
func walkCompletely(
  _ cursor: inout FullCursor, into frames: UnsafeMutablePointer<UInt>, limit: Int
) -> Int {
  if stacks.pointee.mode == UnwindMode.libunwind,
    let count = walkByLibunwind(cursor.registers, into: frames, limit: limit)
  {
    return count
  }
  var count = 0
  while count < limit {
    let pc = cursor.pc
    if count > 0 || !isOurs(pc) {
      frames[count] = stacks.pointee.rows.row(pc).kind == StackRow.Kind.signal.rawValue
        ? pc &+ 1 : pc
      count &+= 1
    }
    if !cursor.step() { break }
  }
  return count
}

/// How many frames at the start are ours.
func leadingFramesOfOurs(_ frames: UnsafeMutablePointer<UInt>, _ count: Int) -> Int {
  var ours = 0
  while ours < count, isOurs(frames[ours]) { ours &+= 1 }
  return ours
}
