// LeakFrames.swift: which words of a stack can hold something.
//
//   in exit(3)                                  waiting in the C library
//   | … exit's own: dead                  |     | frames of read, sem_wait …: nearly dead     |
//   | f, which called exit: what it keeps |     | f, which called it: what it keeps           |
//   | g, which called f: what it keeps    |     | g, which called f: what it keeps            |
//
// Frames have holes: arrays and structures that are not filled yet, or never. In them
// lie words of functions that have returned, pointers to what those have lost among
// them. A word of a frame holds an item if one of these is so:
//
//   - the item was allocated under this very frame (its stack of allocation has the
//     frames further out), or by another thread
//   - an instruction of the function names the word (LeakSlots)
//   - it is a register that the frame saved for its caller
//
// else it is stale. Of the C library's frames in which a thread waits, the second does not
// count; of its frames further out, which call the program, every word does. So does every
// word where there is no unwind data, where a function was cut in two and its better half
// cannot be found, and of a thread that was stopped in the program's own code.

import Base
import DebugPlatform
import Leaks
import Malloc
import Platform

/// One function on a stack.
struct LeakFrame {
  /// Inside its call, or the interrupted instruction.
  var pc: UInt = 0
  /// Its part of the stack.
  var low: UInt = 0
  var high: UInt = 0
  var rbp: UInt = 0
  /// What its caller has in the registers that calls preserve.
  var registers: InlineArray<6, UInt> = InlineArray(repeating: 0)
  var isSystem = false
}

/// What the code of a frame is, as far as it can be found.
private struct FrameFunction {
  var here = FrameCode(start: 0, end: 0)
  /// The other half of a function that the compiler cut into a hot and a cold part.
  var entry = FrameCode(start: 0, end: 0)
  var isKnown = false

  func contains(_ pc: UInt) -> Bool {
    pc &- here.start < here.size || pc &- entry.start < entry.size
  }

  func names(rsp: Int, rbp: Int) -> Bool {
    // Searching more for a word takes too long.
    if here.size > 1 &<< 18 || entry.size > 1 &<< 18 { return true }
    return here.names(rsp: rsp, rbp: rbp) || entry.names(rsp: rsp, rbp: rbp)
  }
}

struct LeakFrames {
  private static var capacity: Int { 512 }
  private let frames: UnsafeMutablePointer<LeakFrame>
  private(set) var count = 0
  /// Whether the outermost frame is among them.
  private(set) var isWhole = false
  /// Words are looked at closely no more often than this: each costs a search of code.
  private var patience = 4096

  init?(scratch: inout LeakScratch) {
    let memory = scratch.take(UInt(bitPattern: Self.capacity &* MemoryLayout<LeakFrame>.stride))
    guard memory != 0 else { return nil }
    frames = memory.pointer(to: LeakFrame.self)
  }

  subscript(_ index: Int) -> LeakFrame { frames[index] }

  /// The frames from `cursor` on, as long as unwind data describes them.
  mutating func walk(_ start: FullCursor, limit: Int = .max) {
    var cursor = start
    count = 0
    isWhole = false
    while count < min(Self.capacity, limit) {
      var frame = LeakFrame()
      frame.pc = cursor.pc
      frame.low = cursor.registers[KEG_RSP]
      frame.rbp = cursor.registers[KEG_RBP]
      var module = keg_module()
      guard UnwindEntry(pc: frame.pc) != nil, keg_find_module(frame.pc, &module) else { return }
      if let path = module.path, path[0] != 0 { frame.isSystem = mappingName(path: path) == .system }
      isWhole = !cursor.step()
      if isWhole {
        // The first function of a thread has no caller, and keeps little.
        frame.high = frame.low
      } else {
        frame.high = cursor.registers[KEG_RSP]
        frame.registers = preserved(cursor.registers)
        if frame.high <= frame.low || frame.high &- frame.low > 1 &<< 26 { return }
      }
      frames[count] = frame
      count &+= 1
      if isWhole { return }
    }
  }

  /// The end of the last frame.
  var top: UInt { count == 0 ? 0 : frames[count &- 1].high }

  /// Marks what the words of frame `index` hold.
  /// - Parameter isWaiting: nothing counts because the code names it.
  mutating func reach(_ index: Int, thread: Int32, isWaiting: Bool, _ scan: inout LeakScan) {
    let frame = frames[index]
    reach(frame.registers, &scan)
    if frame.isSystem, !isWaiting { return scan.reach(from: frame.low, to: frame.high, .stack) }
    var function = FrameFunction()
    var hasLooked = false
    var address = frame.low.roundedUp(to: 8)
    while address &+ 8 <= frame.high {
      let word = address.word
      address = address &+ 8
      let found = scan.items.find(word)
      if found < 0 || scan.kind(found) != .lost { continue }
      if !hasLooked { function = self.function(index) }
      hasLooked = true
      patience &-= 1
      let place = address &- 8
      let isNamed =
        !isWaiting
        && function.names(rsp: Int(bitPattern: place &- frame.low), rbp: Int(bitPattern: place &- frame.rbp))
      if patience < 0 || !function.isKnown || isNamed
        || mayHold(index, function, thread, scan.items.items[found])
      {
        scan.reach(word: word, .stack)
      }
    }
  }

  private func reach(_ registers: InlineArray<6, UInt>, _ scan: inout LeakScan) {
    var i = 0
    while i < 6 {
      scan.reach(word: registers[i], .stack)
      i &+= 1
    }
  }

  /// Whether the item was allocated under frame `index`, or nobody knows.
  private func mayHold(
    _ index: Int, _ function: FrameFunction, _ thread: Int32, _ item: LeakItem
  ) -> Bool {
    guard case .item(let place) = place(of: item.start) else { return true }
    let record = place.record
    if record.allocationThread != UInt32(bitPattern: thread) { return true }
    var allocated = FrameBuffer(repeating: 0)
    var depth = 0
    forEachFrame(record.pointee.allocationStack) { pc in
      if depth < 64 {
        allocated[depth] = pc
        depth &+= 1
      }
    }
    if depth == 0 || !stacksAreUp { return true }
    let isComplete = depth < stacks.pointee.depth
    // Both end in the same function, or one of them is not understood.
    if isComplete, isWhole, allocated[depth &- 1] != frames[count &- 1].pc { return true }
    var i = 0
    while i < depth {
      let isAtSameDepth = !isComplete || !isWhole || depth &- i == count &- index
      if isAtSameDepth, function.contains(allocated[i]), agree(allocated, i &+ 1, depth, index &+ 1) {
        return true
      }
      i &+= 1
    }
    return false
  }

  /// Whether the stacks are the same from here outwards, as far as both are known.
  private func agree(
    _ allocated: borrowing FrameBuffer, _ i: Int, _ depth: Int, _ index: Int
  ) -> Bool {
    var i = i
    var index = index
    while i < depth, index < count {
      if allocated[i] != frames[index].pc { return false }
      i &+= 1
      index &+= 1
    }
    return true
  }

  /// The code of a frame's function.
  private func function(_ index: Int) -> FrameFunction {
    var function = FrameFunction()
    guard let entry = UnwindEntry(pc: frames[index].pc) else { return function }
    function.here = FrameCode(start: entry.start, end: entry.end)
    guard let program = FrameProgram(entry, pc: entry.start) else { return function }
    // Where a function is entered, the CFA is 8 bytes above rsp.
    if program.rules.cfaRegister == KEG_RSP, program.rules.cfaValue == 8 {
      function.isKnown = true
      return function
    }
    // A cold part: its caller says where the function begins.
    guard index &+ 1 < count else { return function }
    let after = frames[index &+ 1].pc &+ 1
    let code = (after &- 5).pointer(to: UInt8.self)
    guard code[0] == 0xE8 else { return function }
    let distance = UnsafeRawPointer(code + 1).loadUnaligned(as: Int32.self)
    let target = after &+ UInt(bitPattern: Int(distance))
    guard let hot = UnwindEntry(pc: target), hot.start == target else { return function }
    function.entry = FrameCode(start: hot.start, end: hot.end)
    function.isKnown = true
    return function
  }
}

/// rbx, rbp, r12 … r15.
func preserved(_ registers: InlineArray<17, UInt>) -> InlineArray<6, UInt> {
  var kept = InlineArray<6, UInt>(repeating: registers[KEG_RBX])
  kept[1] = registers[KEG_RBP]
  var i = 0
  while i < 4 {
    kept[2 &+ i] = registers[12 &+ i]
    i &+= 1
  }
  return kept
}

// MARK: - Where a thread is

/// The calling thread at the call of exit(3), whose caller's frame begins at `frame`; nil:
/// the unwind data leads elsewhere.
func cursorAtExit(_ frame: UInt) -> FullCursor? {
  var cursor = FullCursor()
  readRegisters(&cursor.registers)
  var steps = 0
  while steps < 64, cursor.registers[KEG_RSP] < frame {
    if !cursor.step() { return nil }
    steps &+= 1
  }
  return cursor.registers[KEG_RSP] == frame ? cursor : nil
}

/// A stopped thread.
func cursor(of thread: UnsafeMutablePointer<keg_leak_thread>) -> FullCursor {
  var cursor = FullCursor()
  // From the kernel's order to DWARF's: rax, rdx, rcx, rbx, rsi, rdi, rbp, rsp, then r8 …
  let kernel = (thread.address &+ registersOffset).pointer(to: UInt.self)
  cursor.registers[0] = kernel[13]
  cursor.registers[1] = kernel[12]
  cursor.registers[2] = kernel[14]
  cursor.registers[3] = kernel[11]
  cursor.registers[4] = kernel[9]
  cursor.registers[5] = kernel[8]
  cursor.registers[6] = kernel[10]
  cursor.registers[7] = kernel[15]
  var i = 0
  while i < 8 {
    cursor.registers[8 &+ i] = kernel[i]
    i &+= 1
  }
  cursor.registers[16] = thread.pointee.pc
  return cursor
}

/// Of a thread that waits in the C library, the frame of who called it; 0: it does not, or
/// is not understood.
func frameThatWaits(_ thread: UnsafeMutablePointer<keg_leak_thread>, _ frames: inout LeakFrames) -> UInt {
  frames.walk(cursor(of: thread), limit: 16)
  var i = 0
  while i < frames.count, frames[i].isSystem, !frames.isWhole || i &+ 1 < frames.count { i &+= 1 }
  return i > 0 && i < frames.count ? frames[i].low : 0
}

/// In a keg_leak_thread.
var registersOffset: UInt { 24 }
