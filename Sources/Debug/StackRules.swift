// StackRules.swift: runs a frame's program and keeps the rules it leaves.
//
// Registers are numbered as DWARF numbers them (shim/Debug/include/unwind.h). Only
// the seventeen integer ones and the pc are followed.

import Base
import DebugPlatform

/// Where the caller's value of a register is.
enum RegisterRule {
  static let unchanged: UInt8 = 0
  static let undefined: UInt8 = 1
  /// Stored at CFA + value.
  static let stored: UInt8 = 2
  /// It is CFA + value.
  static let isValue: UInt8 = 3
  /// In the register `value`.
  static let register: UInt8 = 4
  /// Stored where the expression at address `value` says.
  static let storedAtExpression: UInt8 = 5
  /// What the expression at address `value` says.
  static let isExpression: UInt8 = 6
}

struct FrameRules {
  static var expression: Int { -1 }

  /// The CFA is this register plus `cfaValue`, or the expression at `cfaValue`.
  var cfaRegister = 0
  var cfaValue = 0
  var kinds = InlineArray<17, UInt8>(repeating: RegisterRule.unchanged)
  var values = InlineArray<17, Int>(repeating: 0)

  mutating func set(_ register: UInt, _ kind: UInt8, _ value: Int) {
    guard register < 17 else { return }
    kinds[Int(register)] = kind
    values[Int(register)] = value
  }
}

/// The rules that hold at one pc.
struct FrameProgram {
  private let frame: UnwindEntry
  private(set) var rules = FrameRules()
  private var initial = FrameRules()
  private var saved = InlineArray<4, FrameRules>(repeating: FrameRules())
  private var savedCount = 0
  private var isValid = true

  /// Runs the program of `frame` up to `pc`.
  /// - Returns: nil when it holds an instruction this machine's compilers never emit.
  init?(_ frame: UnwindEntry, pc: UInt) {
    self.frame = frame
    run(frame.initialProgram, to: .max)
    initial = rules
    run(frame.program, to: pc)
    if !isValid { return nil }
  }

  private mutating func run(_ program: ByteReader, to pc: UInt) {
    var reader = program
    var location = frame.start
    while reader.at < reader.end, isValid {
      let code = reader.byte()
      let operand = code & 0x3F
      switch code >> 6 {
      case 1: location = location &+ operand &* frame.codeAlignment
      case 2: rules.set(operand, RegisterRule.stored, aligned(reader.unsigned()))
      case 3: restore(operand)
      default:
        guard advance(code, &reader, &location) else {
          change(code, &reader)
          continue
        }
      }
      if location > pc { return }
    }
  }

  private func aligned(_ factor: UInt) -> Int {
    Int(bitPattern: factor) &* frame.dataAlignment
  }

  private mutating func restore(_ register: UInt) {
    guard register < 17 else { return }
    rules.set(register, initial.kinds[Int(register)], initial.values[Int(register)])
  }

  /// DW_CFA_set_loc and DW_CFA_advance_loc1, 2, 4. False: another instruction.
  private func advance(
    _ code: UInt, _ reader: inout ByteReader, _ location: inout UInt
  ) -> Bool {
    switch code {
    case 0x01: location = reader.pointer(frame.pointerEncoding)
    case 0x02: location = location &+ reader.byte() &* frame.codeAlignment
    case 0x03: location = location &+ reader.half() &* frame.codeAlignment
    case 0x04: location = location &+ reader.word32() &* frame.codeAlignment
    default: return false
    }
    return true
  }

  /// An instruction that changes a rule; their numbers are DWARF's.
  private mutating func change(_ code: UInt, _ reader: inout ByteReader) {
    switch code {
    case 0x00: break
    case 0x05: setStored(reader.unsigned(), aligned(reader.unsigned()))
    case 0x11:
      let register = reader.unsigned()
      setStored(register, reader.signed() &* frame.dataAlignment)
    case 0x2F: setStored(reader.unsigned(), 0 &- aligned(reader.unsigned()))
    case 0x06: restore(reader.unsigned())
    case 0x07: rules.set(reader.unsigned(), RegisterRule.undefined, 0)
    case 0x08: rules.set(reader.unsigned(), RegisterRule.unchanged, 0)
    case 0x09:
      let register = reader.unsigned()
      rules.set(register, RegisterRule.register, Int(bitPattern: reader.unsigned()))
    case 0x0A: remember()
    case 0x0B: recall()
    case 0x0C:
      rules.cfaRegister = Int(bitPattern: reader.unsigned())
      rules.cfaValue = Int(bitPattern: reader.unsigned())
    case 0x12:
      rules.cfaRegister = Int(bitPattern: reader.unsigned())
      rules.cfaValue = reader.signed() &* frame.dataAlignment
    case 0x0D: rules.cfaRegister = Int(bitPattern: reader.unsigned())
    case 0x0E: rules.cfaValue = Int(bitPattern: reader.unsigned())
    case 0x13: rules.cfaValue = reader.signed() &* frame.dataAlignment
    case 0x0F:
      rules.cfaRegister = FrameRules.expression
      rules.cfaValue = skipExpression(&reader)
    case 0x10:
      let register = reader.unsigned()
      rules.set(register, RegisterRule.storedAtExpression, skipExpression(&reader))
    case 0x16:
      let register = reader.unsigned()
      rules.set(register, RegisterRule.isExpression, skipExpression(&reader))
    case 0x14: rules.set(reader.unsigned(), RegisterRule.isValue, aligned(reader.unsigned()))
    case 0x15:
      let register = reader.unsigned()
      rules.set(register, RegisterRule.isValue, reader.signed() &* frame.dataAlignment)
    case 0x2E: _ = reader.unsigned()  // size of arguments: for exceptions only
    default: isValid = false
    }
  }

  private mutating func setStored(_ register: UInt, _ offset: Int) {
    rules.set(register, RegisterRule.stored, offset)
  }

  /// Steps over an expression. Returns its address, where its length stands.
  private func skipExpression(_ reader: inout ByteReader) -> Int {
    let place = reader.at
    let size = reader.unsigned()
    reader.at = reader.at &+ size
    return Int(bitPattern: place)
  }

  private mutating func remember() {
    guard savedCount < 4 else {
      isValid = false
      return
    }
    saved[savedCount] = rules
    savedCount &+= 1
  }

  private mutating func recall() {
    guard savedCount > 0 else {
      isValid = false
      return
    }
    savedCount &-= 1
    rules = saved[savedCount]
  }
}

// MARK: - From rules to a row

/// The row that holds at `pc`. Slow: reads the module's tables.
func findRow(_ pc: UInt) -> StackRow {
  guard let frame = UnwindEntry(pc: pc) else { return StackRow(.unknown) }
  if frame.isSignalFrame { return StackRow(.signal) }
  guard let program = FrameProgram(frame, pc: pc) else { return StackRow(.unknown) }
  return row(from: program.rules)
}

func row(from rules: FrameRules) -> StackRow {
  let complex = StackRow(.complex)
  let pc = KEG_RIP
  if rules.kinds[pc] == RegisterRule.undefined { return StackRow(.end) }
  guard rules.kinds[pc] == RegisterRule.stored, rules.values[pc] == -8,
    rules.kinds[KEG_RSP] == RegisterRule.unchanged
  else { return complex }

  var rule = StackRow.FramePointer.unchanged
  var offset = 0
  let place = rules.values[KEG_RBP]
  switch rules.kinds[KEG_RBP] {
  case RegisterRule.unchanged, RegisterRule.undefined: break
  case RegisterRule.stored:
    rule = .atCFA
    offset = place
  case RegisterRule.storedAtExpression:
    guard let found = framePointerOffset(place, isLoaded: false) else { return complex }
    rule = .atFramePointer
    offset = found
  default: return complex
  }

  switch rules.cfaRegister {
  case KEG_RSP:
    return StackRow(.stackPointer, cfaOffset: rules.cfaValue, framePointer: rule, offset: offset)
      ?? complex
  case KEG_RBP:
    return StackRow(.framePointer, cfaOffset: rules.cfaValue, framePointer: rule, offset: offset)
      ?? complex
  case FrameRules.expression:
    guard let cfa = framePointerOffset(rules.cfaValue, isLoaded: true) else { return complex }
    return StackRow(.throughFramePointer, cfaOffset: cfa, framePointer: rule, offset: offset)
      ?? complex
  default: return complex
  }
}

/// n of the expression "rbp + n", or of "the word at rbp + n"; nil for any other.
private func framePointerOffset(_ expression: Int, isLoaded: Bool) -> Int? {
  var reader = ByteReader(
    at: UInt(bitPattern: expression), end: UInt(bitPattern: expression) &+ 16)
  let size = reader.unsigned()
  let end = reader.at &+ size
  guard size <= 8, reader.byte() == 0x76 /* DW_OP_breg6 */ else { return nil }
  let offset = reader.signed()
  if isLoaded, reader.byte() != 0x06 /* DW_OP_deref */ { return nil }
  return reader.at == end ? offset : nil
}
