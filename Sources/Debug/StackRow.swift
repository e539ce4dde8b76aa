// StackRow.swift: how to get from a frame to its caller, in 64 bits, and the cache.
//
// Compilers describe for every instruction where the caller's registers are
// (.eh_frame). Of those descriptions nearly all say the same three things, and they
// fit in a word, a *row*:
//
//   CFA   the stack pointer before the call: rsp + n, rbp + n, or *(rbp + n)
//   rbp   the caller's: unchanged, or stored at CFA + n or rbp + n
//   pc    the caller's: stored at CFA - 8
//
//   63         CFA offset         32 31    rbp offset    8  7   6   5 4 3    0
//   |  signed, bytes               |  signed, bytes       | R | U | rbp | kind |
//
//   U   the caller is found by this frame's rbp      R   the caller's rbp is on the stack
//
// What does not fit is `complex` and unwound with all registers (StackFull.swift).
//
// Rows are cached by pc in a direct-mapped table that all threads share, without a
// lock: an entry's first word is key XOR row, so that half of an entry of one pc and
// half of another's is never taken for either. The key's upper 16 bits, which no
// address uses, are a generation that grows when a module leaves: other code may
// come to its addresses.

import Base
import Synchronization

struct StackRow: Equatable {
  let bits: UInt64

  enum Kind: UInt64 {
    /// No unwind data: code made at run time, or by an assembler. Frame pointers may help.
    case unknown = 0
    case stackPointer
    case framePointer
    /// The CFA is the word at rbp + offset: functions that align their stack.
    case throughFramePointer
    case complex
    /// A signal's frame: all registers are on the stack.
    case signal
    /// The outermost function.
    case end
  }

  enum FramePointer: UInt64 {
    case unchanged = 0
    case atCFA
    case atFramePointer
  }

  init(bits: UInt64) { self.bits = bits }

  init(_ kind: Kind) {
    // By frame pointers, where nothing is known.
    bits = kind.rawValue | (kind == .unknown ? Self.usesFramePointer : 0)
  }

  /// - Returns: nil when an offset does not fit.
  init?(_ kind: Kind, cfaOffset: Int, framePointer: FramePointer, offset: Int) {
    guard cfaOffset == Int(Int32(truncatingIfNeeded: cfaOffset)),
      offset >= -(1 << 23), offset < 1 << 23
    else { return nil }
    let uses =
      kind == .framePointer || kind == .throughFramePointer || framePointer == .atFramePointer
    bits =
      UInt64(UInt32(truncatingIfNeeded: cfaOffset)) << 32
      | UInt64(UInt32(truncatingIfNeeded: offset) & 0xFF_FFFF) << 8
      | (framePointer == .unchanged ? 0 : Self.restoresFramePointer)
      | (uses ? Self.usesFramePointer : 0) | framePointer.rawValue << 4 | kind.rawValue
  }

  private static var usesFramePointer: UInt64 { 0x40 }
  private static var restoresFramePointer: UInt64 { 0x80 }

  /// U and R of the picture, in bits 0 and 1: `StackFrame.Flag`.
  @inline(__always)
  var framePointerFlags: UInt { UInt(bits >> 6 & 3) }

  /// A function that begins with `push %rbp; mov %rsp, %rbp`.
  static var chained: StackRow {
    StackRow(.framePointer, cfaOffset: 16, framePointer: .atCFA, offset: -16) ?? StackRow(.end)
  }

  @inline(__always)
  var kind: UInt64 { bits & 15 }

  @inline(__always)
  var framePointerRule: UInt64 { bits >> 4 & 3 }

  @inline(__always)
  var cfaOffset: UInt { UInt(bitPattern: Int(Int64(bitPattern: bits) >> 32)) }

  @inline(__always)
  var framePointerOffset: UInt { UInt(bitPattern: Int((Int64(bitPattern: bits) << 32) >> 40)) }

  /// Whether the caller's rbp is read from the stack.
  @inline(__always)
  var restoresFramePointer: Bool { bits & Self.restoresFramePointer != 0 }
}

struct RowCache: ~Copyable {
  struct Entry: ~Copyable {
    // Written and read by anybody, relaxed: the XOR tells halves that do not belong
    // together, and a row says all there is to know.
    let check: Atomic<UInt64>
    let row: Atomic<UInt64>
  }

  /// Entries; a power of two. 256 KiB, of which a small program touches little: the
  /// index keeps neighbours in code neighbours in the table.
  static var count: Int { 16384 }

  private let entries: UnsafeMutablePointer<Entry>
  private let generation: Atomic<UInt64>

  private let followsFramePointers: Bool

  /// - Parameters:
  ///   - entries: `count` of them, all zero.
  ///   - followsFramePointers: every frame is taken to keep one; no table is read.
  init(entries: UnsafeMutablePointer<Entry>, followsFramePointers: Bool) {
    self.entries = entries
    self.followsFramePointers = followsFramePointers
    generation = Atomic(1 << 48)
  }

  /// Forgets every row.
  func invalidate() {
    generation.wrappingAdd(1 << 48, ordering: .releasing)
  }

  /// What an address is known by: it, and how many modules have left.
  @inline(__always)
  func key(_ pc: UInt) -> UInt64 {
    // An address of 2^48 or more is no code; its upper bits would be a generation.
    UInt64(pc & 0xFFFF_FFFF_FFFF) | generation.load(ordering: .relaxed)
  }

  @inline(__always)
  private func entry(_ pc: UInt) -> UnsafeMutablePointer<Entry> {
    entries + Int(bitPattern: (pc >> 1 ^ pc >> 15) & UInt(bitPattern: Self.count &- 1))
  }

  /// The row for `pc`, an address inside the call or the interrupted instruction.
  @inline(__always)
  func row(_ pc: UInt) -> StackRow {
    let entry = entry(pc)
    let bits = entry.pointee.row.load(ordering: .relaxed)
    if _fastPath(entry.pointee.check.load(ordering: .relaxed) ^ bits == key(pc)) {
      return StackRow(bits: bits)
    }
    return find(pc)
  }

  /// The row for `pc`, from the tables.
  func freshRow(_ pc: UInt) -> StackRow {
    followsFramePointers ? StackRow.chained : findRow(pc)
  }

  @inline(never)
  private func find(_ pc: UInt) -> StackRow {
    let key = key(pc)
    let entry = entry(pc)
    let row = freshRow(pc)
    entry.pointee.row.store(row.bits, ordering: .relaxed)
    entry.pointee.check.store(key ^ row.bits, ordering: .relaxed)
    return row
  }
}
