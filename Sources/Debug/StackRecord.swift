// StackRecord.swift: a thread's last stack, so that the next one costs the difference.
//
//   frames[0]  outermost   main
//      …                   …                 these still hold if every return address
//   frames[k]              f at +0x31   ◀──  is where and what it was
//      …                   g at +0x17
//   frames[count - 1]      innermost         gone
//
// A walk stops at the first frame that lies where one of the record's lies, in the
// same call and with the same rbp where that matters, if the return addresses
// further out, as far as the stack is kept, are still in their places on the stack;
// so is an rbp that one of those frames finds its caller by. A frame that was left
// and entered again from elsewhere at the same depth has another return address
// above it, and the walk goes on from there.

import Base
import DebugPlatform

struct StackFrame {
  var pc: UInt
  var sp: UInt
  var bp: UInt
  /// Where `bp` was read from, if the caller is found by it; else 0.
  var bpSlot: UInt
  /// See StackHash.
  var sum: UInt
  /// Bits of `Flag`.
  var flags: UInt

  enum Flag {
    /// The row finds the caller by rbp.
    static var usesFramePointer: UInt { 1 }
    /// The row reads the caller's rbp from the stack.
    static var restoresFramePointer: UInt { 2 }
    /// A frame further out, or this one, is found by the rbp that this one has.
    static var framePointerMatters: UInt { 4 }
  }
}

struct StackRecord: ~Copyable {
  static var capacity: Int { 256 }
  static var byteCount: UInt {
    UInt(bitPattern: MemoryLayout<StackRecord>.stride &+ 2 &* capacity &* MemoryLayout<StackFrame>.stride)
      .roundedUp(to: 64)
  }

  /// Frames in `frames`.
  var count = 0
  /// frames[0] is the outermost of the thread.
  var isWhole = false
  /// Set while the owner is in a capture: a handler that comes then has no record.
  var isBusy = false
  var captures: UInt = 0
  var readable = ReadableRange()
  var lastHash: UInt64 = 0
  var lastID: StackID = 0
}

extension UnsafeMutablePointer where Pointee == StackRecord {
  var frames: UnsafeMutablePointer<StackFrame> {
    (address &+ UInt(bitPattern: MemoryLayout<StackRecord>.stride)).pointer(to: StackFrame.self)
  }

  /// Frames of the walk under way, innermost first.
  private var fresh: UnsafeMutablePointer<StackFrame> { frames + StackRecord.capacity }

  /// Brings the record up to date with the stack that `start` is the innermost frame of.
  /// - Parameters:
  ///   - depth: how many frames are wanted; at most a quarter of the capacity.
  /// - Returns: false when rows do not suffice; the record is empty then.
  func update(
    from start: StackCursor, depth: Int, rows: UnsafeMutablePointer<RowCache>
  ) -> Bool {
    var cursor = start
    var known = pointee.count
    var found = 0
    var isWhole = false
    // Twice as many as wanted: the next stacks are often a little shorter.
    while found < depth &* 2 {
      while known > 0, frames[known &- 1].sp < cursor.sp { known &-= 1 }
      if known > 0, matches(frames + (known &- 1), cursor) {
        let needed = depth &- found
        let changed = firstChange(from: known &- 2, to: max(known &- needed, 0), above: cursor.sp)
        if changed < 0 {
          if known > needed || pointee.isWhole {
            append(found, onto: known)
            return true
          }
          known = 0  // Too short: the rest is walked.
        } else {
          known = changed &+ 1
        }
      }
      let row = rows.pointee.row(cursor.pc)
      note(cursor, row, at: found)
      found &+= 1
      let step = cursor.step(row, &pointee.readable)
      if step == .caller { continue }
      if step == .end {
        isWhole = true
        break
      }
      pointee.count = 0
      return false
    }
    pointee.isWhole = isWhole
    append(found, onto: 0)
    return true
  }

  /// Whether the record's frame is the one at `cursor`.
  @inline(__always)
  private func matches(
    _ frame: UnsafeMutablePointer<StackFrame>, _ cursor: StackCursor
  ) -> Bool {
    frame.pointee.sp == cursor.sp && frame.pointee.pc == cursor.pc
      && (frame.pointee.bp == cursor.bp
        || frame.pointee.flags & StackFrame.Flag.framePointerMatters == 0)
  }

  /// The first frame, going outwards, that is no longer as recorded; -1 when none.
  @inline(__always)
  private func firstChange(from inner: Int, to outer: Int, above sp: UInt) -> Int {
    var i = inner
    while i >= outer {
      let frame = frames + i
      if (frame.pointee.sp &- 8).word != frame.pointee.pc &+ 1 { return i }
      let slot = frame.pointee.bpSlot
      if slot >= sp, slot.word != frame.pointee.bp { return i }
      i &-= 1
    }
    return -1
  }

  @inline(__always)
  private func note(_ cursor: StackCursor, _ row: StackRow, at index: Int) {
    let uses = row.usesFramePointer
    fresh[index] = StackFrame(
      pc: cursor.pc, sp: cursor.sp, bp: cursor.bp, bpSlot: uses ? cursor.bpSlot : 0, sum: 0,
      flags: (uses ? StackFrame.Flag.usesFramePointer : 0)
        | (row.restoresFramePointer ? StackFrame.Flag.restoresFramePointer : 0))
  }

  /// Puts the fresh frames on top of the record's outermost `kept`.
  @inline(__always)
  private func append(_ found: Int, onto kept: Int) {
    var next = kept
    if kept &+ found > StackRecord.capacity { next = shorten(kept) }
    var matters: UInt = StackFrame.Flag.framePointerMatters
    var sum: UInt = 0
    if next > 0 {
      matters = frames[next &- 1].flags & StackFrame.Flag.framePointerMatters
      sum = frames[next &- 1].sum
    }
    var i = found
    while i > 0 {
      i &-= 1
      let frame = frames + next
      frame.pointee = fresh[i]
      sum = StackHash.adding(frame.pointee.pc, to: sum)
      frame.pointee.sum = sum
      let flags = frame.pointee.flags
      if flags & StackFrame.Flag.usesFramePointer != 0 {
        matters = StackFrame.Flag.framePointerMatters
      } else if flags & StackFrame.Flag.restoresFramePointer != 0 {
        matters = 0
      }
      frame.pointee.flags = flags | matters
      next &+= 1
    }
    pointee.count = next
  }

  /// Drops the outer half of the record's first `kept` frames. Returns how many are left.
  @inline(never)
  private func shorten(_ kept: Int) -> Int {
    let left = StackRecord.capacity / 4
    frames.update(from: frames + (kept &- left), count: left)
    pointee.isWhole = false
    return left
  }

  /// The hash of the innermost `depth` frames.
  /// - Parameter power: StackHash.power(depth).
  @inline(__always)
  func hash(depth: Int, power: UInt) -> UInt64 {
    let sum = frames[pointee.count &- 1].sum
    if pointee.count <= depth { return StackHash.finish(sum) }
    return StackHash.finish(sum &- power &* frames[pointee.count &- 1 &- depth].sum)
  }

  /// Copies the innermost `depth` frames, innermost first. Returns how many there were.
  func copyFrames(_ depth: Int, to destination: UnsafeMutablePointer<UInt>) -> Int {
    let total = min(depth, pointee.count)
    var i = 0
    while i < total {
      destination[i] = frames[pointee.count &- 1 &- i].pc
      i &+= 1
    }
    return total
  }
}
