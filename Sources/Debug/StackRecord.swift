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
  /// Where the return address into this frame lies: below the frame, at its sp - 8.
  var place: UInt
  /// That address.
  var address: UInt
  /// Its rbp.
  var bp: UInt
  /// Where `bp` was read from, if the caller is found by it; else 0.
  var bpSlot: UInt
  /// See StackHash.
  var sum: UInt
  /// Bits of `Flag`, and above them one plus the index of the next frame with a
  /// `bpSlot`, from this one outwards; 0: none.
  var flags: UInt
  /// A stack in the depot that has this frame, how many frames further in it begins, and
  /// how many it has from this one on, itself included. 0: none.
  var owner: StackID = 0
  var ownerSkip: UInt16 = 0
  var ownerFrames: UInt16 = 0
  static var allFrames: UInt16 { .max }

  enum Flag {
    // The first two as in StackRow.
    static var usesFramePointer: UInt { 1 }
    static var restoresFramePointer: UInt { 2 }
    /// A frame further out, or this one, is found by the rbp that this one has.
    static var framePointerMatters: UInt { 4 }
    static var shift: UInt { 8 }
  }
}

/// A stack that the thread had lately: nearer than the depot's table.
struct RecentStack {
  var hash: UInt64 = 0
  var id: StackID = 0
}

struct StackRecord: ~Copyable {
  static var recentCount: Int { 2048 }
  static var capacity: Int { 256 }
  /// With room for the frames of a walk under way, twice the greatest depth.
  static var frameRoom: Int { capacity &+ 128 }
  static var byteCount: UInt {
    UInt(
      bitPattern: headerBytes &+ frameRoom &* MemoryLayout<StackFrame>.stride
        &+ StackShortcut.count &* MemoryLayout<StackShortcut>.stride
        &+ recentCount &* MemoryLayout<RecentStack>.stride
    ).roundedUp(to: 64)
  }
  /// The struct itself, in whole cache lines.
  static var headerBytes: Int { (MemoryLayout<StackRecord>.stride &+ 63) & ~63 }

  /// Frames in `frames`.
  var count = 0
  /// How many of them, the outermost ones, were there before the last walk.
  var kept = 0
  /// frames[0] is the outermost of the thread.
  var isWhole = false
  /// Set while the owner is in a capture: a handler that comes then has no record.
  var isBusy = false
  var captures: UInt = 0
  /// Where the capture under way began, and the shortcut's key for it.
  var start = StackCursor(pc: 0, sp: 0, bp: 0)
  var key: UInt64 = 0
  var readable = ReadableRange()
  var lastHash: UInt64 = 0
  var lastID: StackID = 0
}

extension UnsafeMutablePointer where Pointee == StackRecord {
  @inline(__always)
  var frames: UnsafeMutablePointer<StackFrame> {
    (address &+ UInt(bitPattern: StackRecord.headerBytes)).pointer(to: StackFrame.self)
  }

  /// Frames of the walk under way, innermost first.
  @inline(__always)
  private var fresh: UnsafeMutablePointer<StackFrame> { frames + StackRecord.capacity }

  /// Brings the record up to date with the stack that `start` is the innermost frame of.
  /// - Parameter depth: how many frames are wanted; at most a quarter of the capacity.
  /// - Returns: false when rows do not suffice; the record is empty then.
  @inline(__always)
  func update(
    from start: StackCursor, depth: Int, rows: UnsafeMutablePointer<RowCache>
  ) -> Bool {
    var cursor = start
    // One past the innermost frame of the record that may still hold.
    var known = frames + pointee.count
    var found = 0
    // Twice as many as wanted: the next stacks are often a little shorter.
    while found < depth &* 2 {
      let place = cursor.sp &- 8
      while known > frames, (known - 1).pointee.place < place { known -= 1 }
      if known > frames, matches(known - 1, cursor, place) {
        let needed = depth &- found
        let count = known - frames
        let changed = firstChange(
          from: known - 2, to: frames + max(count &- needed, 0), above: place)
        if changed != nil {
          known = changed.unsafelyUnwrapped + 1  // not nil
        } else if count > needed || pointee.isWhole, count &+ found <= StackRecord.capacity {
          append(found, onto: count)
          return true
        } else {
          known = frames  // Too short or too long: the whole stack is walked.
        }
      }
      let row = rows.pointee.row(cursor.pc)
      note(cursor, row, at: found)
      found &+= 1
      let step = cursor.step(row, &pointee.readable)
      if _fastPath(step == .caller) { continue }
      if step == .end {
        pointee.isWhole = true
        append(found, onto: 0)
        return true
      }
      pointee.count = 0
      return false
    }
    pointee.isWhole = false
    append(found, onto: 0)
    return true
  }

  /// Whether the record's frame is the one at `cursor`.
  @inline(__always)
  private func matches(
    _ frame: UnsafeMutablePointer<StackFrame>, _ cursor: StackCursor, _ place: UInt
  ) -> Bool {
    frame.pointee.place == place && frame.pointee.address == cursor.pc &+ 1
      && (frame.pointee.bp == cursor.bp
        || frame.pointee.flags & StackFrame.Flag.framePointerMatters == 0)
  }

  /// The first frame, going outwards, that is no longer as recorded; nil when none.
  @inline(__always)
  func firstChange(
    from inner: UnsafeMutablePointer<StackFrame>, to outer: UnsafeMutablePointer<StackFrame>,
    above place: UInt
  ) -> UnsafeMutablePointer<StackFrame>? {
    if inner < outer { return nil }
    var frame = inner
    while frame >= outer + 3 {
      if _slowPath(frame.pointee.place.word != frame.pointee.address) { return frame }
      if _slowPath((frame - 1).pointee.place.word != (frame - 1).pointee.address) { return frame - 1 }
      if _slowPath((frame - 2).pointee.place.word != (frame - 2).pointee.address) { return frame - 2 }
      if _slowPath((frame - 3).pointee.place.word != (frame - 3).pointee.address) { return frame - 3 }
      frame -= 4
    }
    while frame >= outer {
      if _slowPath(frame.pointee.place.word != frame.pointee.address) { return frame }
      frame -= 1
    }
    // The few that find their callers by an rbp that lies on the stack.
    var next = inner.pointee.flags >> StackFrame.Flag.shift
    while next != 0 {
      frame = frames + Int(bitPattern: next &- 1)
      if frame < outer { return nil }
      let slot = frame.pointee.bpSlot
      if slot > place, slot.word != frame.pointee.bp { return frame }
      next = frame == frames ? 0 : (frame - 1).pointee.flags >> StackFrame.Flag.shift
    }
    return nil
  }

  @inline(__always)
  private func note(_ cursor: StackCursor, _ row: StackRow, at index: Int) {
    let flags = row.framePointerFlags
    fresh[index] = StackFrame(
      place: cursor.sp &- 8, address: cursor.pc &+ 1, bp: cursor.bp,
      bpSlot: flags & StackFrame.Flag.usesFramePointer != 0 ? cursor.bpSlot : 0, sum: 0,
      flags: flags)
  }

  /// Puts the fresh frames on top of the record's outermost `kept`.
  @inline(__always)
  private func append(_ found: Int, onto kept: Int) {
    var matters: UInt = StackFrame.Flag.framePointerMatters
    var sum: UInt = 0
    var next: UInt = 0
    var frame = frames + kept
    if kept > 0 {
      let outer = (frame - 1).pointee
      matters = outer.flags & StackFrame.Flag.framePointerMatters
      next = outer.flags >> StackFrame.Flag.shift
      sum = outer.sum
    }
    var new = fresh + found
    while new > fresh {
      new -= 1
      frame.pointee = new.pointee
      sum = StackHash.adding(new.pointee.address, to: sum)
      frame.pointee.sum = sum
      let flags = new.pointee.flags
      if flags & StackFrame.Flag.usesFramePointer != 0 {
        matters = StackFrame.Flag.framePointerMatters
      } else if flags & StackFrame.Flag.restoresFramePointer != 0 {
        matters = 0
      }
      if new.pointee.bpSlot != 0 { next = UInt(bitPattern: frame - frames) &+ 1 }
      frame.pointee.flags = flags | matters | next << StackFrame.Flag.shift
      frame += 1
    }
    pointee.count = frame - frames
    pointee.kept = kept
  }

  /// The hash of the innermost `depth` frames.
  /// - Parameter power: StackHash.power(depth).
  @inline(__always)
  func hash(depth: Int, power: UInt) -> UInt64 {
    let last = frames + (pointee.count &- 1)
    if pointee.count <= depth { return StackHash.finish(last.pointee.sum) }
    return StackHash.finish(last.pointee.sum &- power &* (last - depth).pointee.sum)
  }

  /// Where a stack with this hash is if the thread had it lately.
  @inline(__always)
  func recent(_ hash: UInt64) -> UnsafeMutablePointer<RecentStack> {
    let shortcuts = StackShortcut.count &* MemoryLayout<StackShortcut>.stride
    let start = (frames + StackRecord.frameRoom).address &+ UInt(bitPattern: shortcuts)
    return start.pointer(to: RecentStack.self)
      + Int(truncatingIfNeeded: hash & UInt64(StackRecord.recentCount &- 1))
  }

  /// Copies the innermost `depth` frames, innermost first, as stacks have them.
  /// Returns how many there were.
  func copyFrames(_ depth: Int, to destination: UnsafeMutablePointer<UInt>) -> Int {
    let total = min(depth, pointee.count)
    var i = 0
    while i < total {
      destination[i] = frames[pointee.count &- 1 &- i].address &- 1
      i &+= 1
    }
    return total
  }
}
