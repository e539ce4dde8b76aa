// StackShortcut.swift: stacks that were seen from the same place before.
//
//   start: pc, sp ──▶ entry:  | pc | sp | rbp |  inner frames: (place, word) …  | frame k, its sum | id |
//                                               all words as they were?           the record's,
//                                                                                 and unchanged?  ──▶ id
//
// A walk is a function of where it starts and of the words that it reads. An entry keeps
// both for the few inner frames that were new to the record when it was made, and which
// of the record's frames they ended at. If all of that is the same, and the record's
// frames further out are where and what they were (StackRecord.swift), so is the stack:
// no row is looked up, nothing is hashed, and the depot is not asked. The record stays as
// it is.
//
// Entries lie behind the frames of the thread's record, by place of the call.

import Base
import Synchronization

struct StackShortcut {
  /// RowCache.key of the first frame's pc: with the generation of the code. 0: none.
  var key: UInt64 = 0
  var sp: UInt = 0
  /// rbp at the start and in frame `kept - 1` of the record, if `usesFramePointer`.
  var bp: UInt = 0
  var outerBP: UInt = 0
  /// The sum of that frame (StackHash): it stands for all frames further out.
  var sum: UInt = 0
  /// What asked for this entry last and in vain. Who asks twice gets it: stacks that are
  /// seen once, as of a deep recursion, leave the others alone.
  var candidate: UInt64 = 0
  /// Where in the record that frame lies, and the outermost one that the stack needs.
  var known: UInt32 = 0
  var outer: UInt32 = 0
  var id: StackID = 0
  /// How many of the record's frames the stack shares, its outermost ones.
  var kept: UInt16 = 0
  /// Whether it needs more than there are, so that the record has to be whole.
  var needsWhole = false
  var usesFramePointer = false
  /// What was read for the inner frames; the rest are words of the entry itself, which
  /// are always what they are.
  var words = InlineArray<4, StackWord>(repeating: StackWord())

  static var count: Int { 64 }
  static var mostWords: Int { 4 }
}

/// A word on the stack.
struct StackWord {
  var place: UInt = 0
  var value: UInt = 0
}

extension UnsafeMutablePointer where Pointee == StackRecord {
  @inline(__always)
  private func shortcut(_ start: StackCursor) -> UnsafeMutablePointer<StackShortcut> {
    let hash = (start.pc ^ start.sp &<< 1) &* 0x9E37_79B9_7F4A_7C15
    let index = Int(bitPattern: hash &>> 58)
    return ((frames + StackRecord.frameRoom).address.pointer(to: StackShortcut.self)) + index
  }

  /// The id of the stack that starts at `start`, if it is one of those; else 0.
  @inline(__always)
  func findShortcut(_ start: StackCursor, key: UInt64) -> StackID {
    let entry = shortcut(start)
    guard _fastPath(entry.pointee.key == key), _fastPath(entry.pointee.sp == start.sp),
      Int(entry.pointee.kept) <= pointee.count, !entry.pointee.needsWhole || pointee.isWhole
    else { return 0 }
    let known = (address &+ UInt(entry.pointee.known)).pointer(to: StackFrame.self)
    var difference = known.pointee.sum ^ entry.pointee.sum
    if _slowPath(entry.pointee.usesFramePointer) {
      difference |= entry.pointee.bp ^ start.bp
      difference |= entry.pointee.outerBP ^ known.pointee.bp
    }
    difference |= entry.pointee.words[0].place.word ^ entry.pointee.words[0].value
    difference |= entry.pointee.words[1].place.word ^ entry.pointee.words[1].value
    difference |= entry.pointee.words[2].place.word ^ entry.pointee.words[2].value
    difference |= entry.pointee.words[3].place.word ^ entry.pointee.words[3].value
    guard _fastPath(difference == 0) else { return 0 }
    let outer = (address &+ UInt(entry.pointee.outer)).pointer(to: StackFrame.self)
    if firstChange(from: known - 1, to: outer, above: known.pointee.place) != nil { return 0 }
    return entry.pointee.id
  }

  /// Remembers the stack that the record was just brought up to date with, if it was
  /// met at one of the record's frames.
  @inline(never)
  func addShortcut(
    _ start: StackCursor, key: UInt64, _ id: StackID, depth: Int,
    rows: UnsafeMutablePointer<RowCache>
  ) {
    let candidate = key ^ UInt64(start.sp) &<< 16
    if shortcut(start).pointee.candidate != candidate {
      shortcut(start).pointee.candidate = candidate
      return
    }
    let kept = pointee.kept
    let found = pointee.count &- kept
    if kept == 0 || kept > Int(UInt16.max) || found > StackShortcut.mostWords { return }
    let outer = frames + (kept &- 1)
    var uses = outer.pointee.flags & StackFrame.Flag.framePointerMatters != 0
    var frame = frames + pointee.count
    while frame > frames + kept {
      frame -= 1
      if frame.pointee.flags & StackFrame.Flag.usesFramePointer != 0 { uses = true }
    }
    var entry = StackShortcut()
    entry.candidate = candidate
    var count = 0
    var cursor = start
    var left = found
    // Without rbp it is the return addresses alone, which are in the record.
    while !uses, count < found {
      let frame = frames + (pointee.count &- 2 &- count)
      entry.words[count] = StackWord(place: frame.pointee.place, value: frame.pointee.address)
      count &+= 1
    }
    while uses, left > 0 {
      let row = rows.pointee.row(cursor.pc)
      guard cursor.step(row, &pointee.readable) == .caller,
        count &+ (row.restoresFramePointer ? 2 : 1) <= StackShortcut.mostWords
      else { return }
      entry.words[count] = StackWord(place: cursor.sp &- 8, value: cursor.pc &+ 1)
      count &+= 1
      if row.restoresFramePointer {
        entry.words[count] = StackWord(place: cursor.bpSlot, value: cursor.bp)
        count &+= 1
      }
      left &-= 1
    }
    guard !uses || cursor.sp &- 8 == outer.pointee.place else { return }
    entry.key = key
    entry.sp = start.sp
    entry.bp = start.bp
    entry.outerBP = outer.pointee.bp
    entry.sum = outer.pointee.sum
    let needed = depth &- found
    entry.known = UInt32(truncatingIfNeeded: outer.address &- address)
    entry.outer = UInt32(truncatingIfNeeded: (frames + max(kept &- needed, 0)).address &- address)
    entry.kept = UInt16(truncatingIfNeeded: kept)
    entry.needsWhole = kept <= needed
    entry.usesFramePointer = uses
    entry.id = id
    let place = shortcut(start)
    while count < StackShortcut.mostWords {
      // The key comes first.
      entry.words[count] = StackWord(place: place.address, value: UInt(key))
      count &+= 1
    }
    place.pointee = entry
  }

  /// Forgets what was found to be wrong.
  func removeShortcut(_ start: StackCursor) { shortcut(start).pointee.key = 0 }
}

/// A sampled stack has another id than the shortcut said: it is another, unless two threads
/// stored it at once.
@inline(never)
func refuteShortcut(
  _ shortcut: StackID, _ id: StackID, _ start: StackCursor,
  _ record: UnsafeMutablePointer<StackRecord>
) {
  var sums: (UInt, UInt) = (0, 0)
  forEachFrame(shortcut) { sums.0 = StackHash.adding($0, to: sums.0) }
  forEachFrame(id) { sums.1 = StackHash.adding($0, to: sums.1) }
  if sums.0 != sums.1 { stacks.pointee.failures.wrappingAdd(1, ordering: .relaxed) }
  record.removeShortcut(start)
}
