import Base
import DebugPlatform
import Glibc
import Testing

@testable import Debug

private typealias Backtrace =
  @convention(c) (UnsafeMutablePointer<UnsafeMutableRawPointer?>, Int32) -> Int32

/// An .eh_frame with one function, and its table, in memory.
private final class TestFrames {
  private let memory: UnsafeMutableRawPointer
  private var bytes: [UInt8] = []
  let function: UInt
  private(set) var table: UInt = 0

  /// - Parameters:
  ///   - augmentation: `zR`, `zRS` …
  ///   - program: the function's own instructions; the CIE has CFA = rsp + 8, rip at -8.
  init(_ program: [UInt8], augmentation: String = "zR", size: UInt32 = 64) {
    memory = .allocate(byteCount: 4096, alignment: 16)
    function = UInt(bitPattern: memory) + 2048
    append32(0)  // its length, below
    append32(0)
    bytes += [1] + Array(augmentation.utf8) + [0]
    bytes += [1, 0x78, 16, 1, 0x1B]  // alignments 1 and -8, rip, one byte of data: pcrel sdata4
    bytes += [0x0C, 7, 8, 0x90, 1]
    end(entry: 0)
    let entry = bytes.count
    append32(0)
    append32(UInt32(bytes.count))
    append32(UInt32(truncatingIfNeeded: function &- address(bytes.count)))
    append32(size)
    bytes += [0] + program
    end(entry: entry)
    append32(0)
    let table = bytes.count
    bytes += [1, 0x1B, 0x03, 0x3B]
    append32(UInt32(truncatingIfNeeded: 0 &- bytes.count))
    append32(1)
    append32(UInt32(truncatingIfNeeded: function &- address(table)))
    append32(UInt32(truncatingIfNeeded: entry - table))
    memory.copyMemory(from: bytes, byteCount: bytes.count)
    self.table = address(table)
  }

  deinit { memory.deallocate() }

  private func address(_ offset: Int) -> UInt { UInt(bitPattern: memory) + UInt(offset) }

  private func append32(_ value: UInt32) {
    withUnsafeBytes(of: value) { bytes += Array($0) }
  }

  private func end(entry: Int) {
    while bytes.count % 8 != 4 { bytes.append(0) }
    withUnsafeBytes(of: UInt32(bytes.count - entry - 4)) { length in
      for i in 0..<4 { bytes[entry + i] = length[i] }
    }
  }

  func row(at offset: UInt) -> StackRow? {
    guard let entry = UnwindEntry(pc: function &+ offset, table: table),
      let program = FrameProgram(entry, pc: function &+ offset)
    else { return nil }
    return Debug.row(from: program.rules)
  }

  func entry(at offset: UInt) -> UnwindEntry? { UnwindEntry(pc: function &+ offset, table: table) }
}

@Suite("Stack rules")
struct StackRulesTests {
  private func row(
    _ kind: StackRow.Kind, _ cfa: Int, _ rule: StackRow.FramePointer = .unchanged, _ offset: Int = 0
  ) -> StackRow? {
    StackRow(kind, cfaOffset: cfa, framePointer: rule, offset: offset)
  }

  @Test("a function with a frame pointer, instruction by instruction")
  func framePointer() {
    // push %rbp; mov %rsp, %rbp; …; pop %rbp, remembered before and recalled after.
    let frames = TestFrames([
      0x41, 0x0E, 16, 0x86, 2, 0x43, 0x0D, 6, 0x0A, 0x49, 0xC6, 0x0C, 7, 8, 0x41, 0x0B,
    ])
    #expect(frames.row(at: 0) == row(.stackPointer, 8))
    #expect(frames.row(at: 1) == row(.stackPointer, 16, .atCFA, -16))
    #expect(frames.row(at: 3) == row(.stackPointer, 16, .atCFA, -16))
    #expect(frames.row(at: 4) == row(.framePointer, 16, .atCFA, -16))
    #expect(frames.row(at: 12) == row(.framePointer, 16, .atCFA, -16))
    #expect(frames.row(at: 13) == row(.stackPointer, 8))
    #expect(frames.row(at: 14) == row(.framePointer, 16, .atCFA, -16))
    #expect(row(.framePointer, 16, .atCFA, -16) == StackRow.chained)
  }

  @Test("wide frames, and advances of one, two and four bytes")
  func advances() {
    let frames = TestFrames(
      [0x02, 10, 0x0E, 0x80, 0x20, 0x03, 0x00, 0x01, 0x0E, 48, 0x04, 0, 0, 1, 0, 0x0E, 56],
      size: 1 << 20)
    #expect(frames.row(at: 9) == row(.stackPointer, 8))
    #expect(frames.row(at: 10) == row(.stackPointer, 4096))
    #expect(frames.row(at: 265) == row(.stackPointer, 4096))
    #expect(frames.row(at: 266) == row(.stackPointer, 48))
    #expect(frames.row(at: 266 + 65535) == row(.stackPointer, 48))
    #expect(frames.row(at: 266 + 65536) == row(.stackPointer, 56))
  }

  @Test("a function that aligns its stack finds its caller through rbp")
  func aligned() {
    // CFA: *(rbp - 8); rbp: at rbp + 0.
    let frames = TestFrames([0x0F, 3, 0x76, 0x78, 0x06, 0x10, 6, 2, 0x76, 0])
    #expect(frames.row(at: 5) == row(.throughFramePointer, -8, .atFramePointer, 0))
    #expect(frames.row(at: 5)?.framePointerFlags == 3)
  }

  @Test("what does not fit into a row is complex")
  func complex() {
    let complex = StackRow(.complex)
    #expect(TestFrames([0x0C, 3, 16]).row(at: 0) == complex)  // CFA: rbx + 16
    #expect(TestFrames([0x0F, 2, 0x77, 8]).row(at: 0) == complex)  // an expression of rsp
    #expect(TestFrames([0x90, 3]).row(at: 0) == complex)  // rip elsewhere
    #expect(TestFrames([0x09, 6, 3]).row(at: 0) == complex)  // rbp in rbx
  }

  @Test("the outermost function has no caller; a signal's frame is known by its letter")
  func ends() {
    #expect(TestFrames([0x07, 16]).row(at: 0) == StackRow(.end))
    #expect(TestFrames([], augmentation: "zRS").entry(at: 0)?.isSignalFrame == true)
    #expect(TestFrames([]).entry(at: 0)?.isSignalFrame == false)
  }

  @Test("addresses outside the function, and unknown instructions, give nothing")
  func nothing() {
    let frames = TestFrames([], size: 64)
    #expect(frames.entry(at: 63) != nil)
    #expect(frames.entry(at: 64) == nil)
    #expect(frames.entry(at: 0 &- 1) == nil)
    #expect(TestFrames([0x3F]).row(at: 0) == nil)
    #expect(TestFrames([0x0B]).row(at: 0) == nil)  // recalls what was not remembered
  }

  @Test("offsets come back from a row with their signs")
  func offsets() {
    for (cfa, offset) in [(8, -16), (-8, 0), (1 << 30, -(1 << 23)), (-(1 << 31), (1 << 23) - 1)] {
      let row = StackRow(.stackPointer, cfaOffset: cfa, framePointer: .atCFA, offset: offset)
      #expect(row?.cfaOffset == UInt(bitPattern: cfa))
      #expect(row?.framePointerOffset == UInt(bitPattern: offset))
    }
    #expect(StackRow(.stackPointer, cfaOffset: 1 << 31, framePointer: .atCFA, offset: 0) == nil)
    #expect(StackRow(.stackPointer, cfaOffset: 8, framePointer: .atCFA, offset: 1 << 23) == nil)
  }

  @Test("numbers of DWARF")
  func numbers() {
    let bytes: [UInt8] = [0xE5, 0x8E, 0x26, 0x9B, 0xF1, 0x59, 0x7F, 0x80, 0x7F]
    bytes.withUnsafeBytes {
      let start = UInt(bitPattern: $0.baseAddress)
      var reader = ByteReader(at: start, end: start + 9)
      #expect(reader.unsigned() == 624_485)
      #expect(reader.signed() == -624_485)
      #expect(reader.signed() == -1)
      #expect(reader.signed() == -128)
      #expect(reader.unsigned() == 0 && reader.byte() == 0)
    }
  }

  @Test("a walk with all registers is that of backtrace(3)")
  func wholeStack() {
    #expect(descend(20))
  }

  /// Compares this stack at some depth; every level has its own frame.
  @inline(never)
  private func descend(_ depth: Int) -> Bool {
    if depth > 0 { return descend(depth - 1) && depth < 100 }
    var cursor = FullCursor()
    let registers = UnsafeMutablePointer<UInt>.allocate(capacity: 17)
    defer { registers.deallocate() }
    registers.initialize(repeating: 0, count: 17)
    keg_read_registers(registers)
    for i in 0..<17 { cursor.registers[i] = registers[i] }
    var own: [UInt] = []
    repeat { own.append(cursor.pc) } while cursor.step() && own.count < 200
    var addresses = [UnsafeMutableRawPointer?](repeating: nil, count: 200)
    guard let backtrace = dlsym(nil, "backtrace") else { return false }
    let found = Int(unsafeBitCast(backtrace, to: Backtrace.self)(&addresses, 200))
    let theirs = addresses[..<found].map { UInt(bitPattern: $0) - 1 }
    // The calls in this function differ; what lies above is the same.
    guard let start = theirs.firstIndex(where: { own.contains($0) }),
      let match = own.firstIndex(of: theirs[start])
    else { return false }
    let count = min(own.count - match, theirs.count - start)
    return count >= 20 && own[match..<match + count] == theirs[start..<start + count]
  }
}
