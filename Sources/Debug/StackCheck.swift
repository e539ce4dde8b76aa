// StackCheck.swift: are the stacks right?
//
// Three walks of the same stack ought to agree: the record's, one that reads every
// table anew, and libunwind's. At start the last two are compared once, from a
// constructor: the one moment at which the loader may be asked to open a library.
// Then, of every 8192 stacks of a thread, one is walked again in full, and of every
// 65536 one by libunwind too. Whatever differs is replaced and counted.

import Base
import DebugPlatform
import Platform
import Synchronization

enum LibunwindState {
  static let closed: UInt = 0
  static let open: UInt = 1
  static let unusable: UInt = 2
}

/// Opens libunwind and compares one stack. Called from a constructor.
@c public func keg_stacks_warm() {
  guard case .straight = enterDebug() else { return }
  // What the loader and libunwind allocate is theirs for good.
  nesting { warm() }
  leaveDebug()
}

private func warm() {
  guard stacksAreUp else { return }
  _ = keg_executable_path()
  let mode = stacks.pointee.mode
  guard mode == UnwindMode.auto || mode == UnwindMode.libunwind else { return }
  stacks.pointee.libunwind = LibunwindState.unusable
  switch keg_libunwind_open() {
  case 0:
    if agreesWithLibunwind() {
      stacks.pointee.libunwind = LibunwindState.open
    } else {
      complain("libunwind gives other stacks than the unwind tables say; stacks are unchecked")
    }
  case 1: complain("libunwind-x86_64.so.8 cannot be loaded; stacks are unchecked")
  default: complain("libunwind lacks a function; stacks are unchecked")
  }
}

private func complain(_ what: StaticString) {
  var text = Text(to: 2)
  text.append("kegmalloc: ")
  text.append(what)
  text.append("\n")
  text.flush()
}

/// Compares this very stack: every frame that rows give, of ours too.
@inline(never)
private func agreesWithLibunwind() -> Bool {
  var cursor = FullCursor()
  readRegisters(&cursor.registers)
  var own = FrameBuffer(repeating: 0)
  var other = FrameBuffer(repeating: 0)
  return withFrames(&own) { own in
    withFrames(&other) { other in
      var count = 0
      var walker = cursor
      while count < 64 {
        own[count] = walker.pc
        count &+= 1
        if !walker.step() { break }
      }
      guard let others = libunwind(cursor.registers, into: other, limit: 64) else { return false }
      return count >= 3 && isEqual(own, count, other, others)
    }
  }
}

private func isEqual(
  _ first: UnsafeMutablePointer<UInt>, _ firstCount: Int,
  _ second: UnsafeMutablePointer<UInt>, _ secondCount: Int
) -> Bool {
  if firstCount != secondCount { return false }
  var i = 0
  while i < firstCount {
    if first[i] != second[i] { return false }
    i &+= 1
  }
  return true
}

/// libunwind's walk, frames of ours included; nil when it failed.
private func libunwind(
  _ registers: InlineArray<17, UInt>, into frames: UnsafeMutablePointer<UInt>, limit: Int
) -> Int? {
  let count = registers.span.withUnsafeBufferPointer {
    keg_libunwind_walk($0.baseAddress.unsafelyUnwrapped, frames, Int32(limit))
  }
  return count > 0 ? Int(count) : nil
}

/// Whether the stack has room for libunwind's own frames, some ten KiB.
private func hasRoom() -> Bool {
  let sp = keg_stack_pointer()
  return keg_is_readable((sp &- 8192) & ~4095) && keg_is_readable((sp &- 16384) & ~4095)
}

/// libunwind's walk from `registers`, frames of ours at the start left out; nil when
/// it is not there, used by another thread, or finds no room.
func walkByLibunwind(
  _ registers: InlineArray<17, UInt>, into frames: UnsafeMutablePointer<UInt>, limit: Int
) -> Int? {
  guard stacks.pointee.libunwind == LibunwindState.open, hasRoom(),
    stacks.pointee.libunwindLock.tryLock()
  else { return nil }
  defer { stacks.pointee.libunwindLock.unlock() }
  var all = InlineArray<96, UInt>(repeating: 0)
  var span = all.mutableSpan
  return span.withUnsafeMutableBufferPointer { buffer in
    let all = buffer.baseAddress.unsafelyUnwrapped  // 96 words
    guard let total = libunwind(registers, into: all, limit: min(limit &+ 32, 96)) else { return nil }
    let ours = leadingFramesOfOurs(all, total)
    let count = min(total &- ours, limit)
    frames.update(from: all + ours, count: count)
    return count
  }
}

/// Compares a sampled stack; replaces it where it differs.
/// - Parameter record: just brought up to date from `start`.
@inline(never)
func check(_ start: StackCursor, _ record: UnsafeMutablePointer<StackRecord>) {
  let depth = stacks.pointee.depth
  var recorded = FrameBuffer(repeating: 0)
  var again = FrameBuffer(repeating: 0)
  withFrames(&recorded) { recorded in
    withFrames(&again) { again in
      let count = record.copyFrames(depth, to: recorded)
      let others = walkAfresh(start, into: again, limit: depth)
      stacks.pointee.checks.wrappingAdd(1, ordering: .relaxed)
      if !isEqual(recorded, count, again, others) {
        stacks.pointee.failures.wrappingAdd(1, ordering: .relaxed)
        // A module may have left without dlclose being told to us.
        stacks.pointee.rows.invalidate()
        record.pointee.count = 0
        let rows = withUnsafeMutablePointer(to: &stacks.pointee.rows) { $0 }
        _ = record.update(from: start, depth: depth, rows: rows)
      }
      if record.pointee.captures & 65535 == 0 { compareWithLibunwind(again, others) }
    }
  }
}

/// Walks without the record and without the cache.
private func walkAfresh(
  _ start: StackCursor, into frames: UnsafeMutablePointer<UInt>, limit: Int
) -> Int {
  var cursor = start
  var readable = ReadableRange()
  var count = 0
  while count < limit {
    frames[count] = cursor.pc
    count &+= 1
    if cursor.step(stacks.pointee.rows.freshRow(cursor.pc), &readable) != .caller { break }
  }
  return count
}

@inline(never)
private func compareWithLibunwind(_ frames: UnsafeMutablePointer<UInt>, _ count: Int) {
  var registers = InlineArray<17, UInt>(repeating: 0)
  readRegisters(&registers)
  var other = FrameBuffer(repeating: 0)
  withFrames(&other) { other in
    guard let others = walkByLibunwind(registers, into: other, limit: stacks.pointee.depth)
    else { return }
    stacks.pointee.libunwindChecks.wrappingAdd(1, ordering: .relaxed)
    if !isEqual(frames, count, other, others) {
      stacks.pointee.libunwindFailures.wrappingAdd(1, ordering: .relaxed)
    }
  }
}
