// StackFull.swift: the walk that follows every register.
//
// For the few functions whose frames hang on other registers than rsp and rbp: the
// loader's lazy binding, assembly, functions that align their stack for vectors. It
// reads the tables anew at each step and is a hundred times slower than a row.

import Base
import DebugPlatform
import Platform

struct FullCursor {
  /// DWARF's order; 16 is the pc: a return address, or exact.
  var registers = InlineArray<17, UInt>(repeating: 0)
  var isExact = true
  private var readable = ReadableRange()

  /// The address to record and to look up.
  var pc: UInt { registers[16] &- (isExact ? 0 : 1) }
  private var sp: UInt { registers[KEG_RSP] }

  /// Moves to the caller.
  /// - Returns: false when this was the outermost frame or nothing is known of it.
  mutating func step() -> Bool {
    guard let frame = UnwindEntry(pc: pc) else { return stepByFramePointer() }
    let isSignal = frame.isSignalFrame
    guard let program = FrameProgram(frame, pc: pc) else { return stepByFramePointer() }
    let rules = program.rules
    if rules.kinds[16] == RegisterRule.undefined { return false }
    guard let cfa = frameAddress(rules) else { return false }
    if !isSignal, cfa <= sp { return false }
    let callee = registers
    var number = 0
    while number < 17 {
      guard let value = value(number, rules, cfa, callee) else { return false }
      registers[number] = value
      number &+= 1
    }
    if rules.kinds[KEG_RSP] == RegisterRule.unchanged {
      registers[KEG_RSP] = cfa
    }
    isExact = isSignal
    if isSignal { readable = ReadableRange() }
    return registers[16] >= 4096
  }

  private mutating func frameAddress(_ rules: FrameRules) -> UInt? {
    if rules.cfaRegister == FrameRules.expression {
      return evaluate(UInt(bitPattern: rules.cfaValue), registers, nil)
    }
    guard rules.cfaRegister >= 0, rules.cfaRegister < 17 else { return nil }
    return registers[rules.cfaRegister] &+ UInt(bitPattern: rules.cfaValue)
  }

  /// The caller's value of register `number`.
  private mutating func value(
    _ number: Int, _ rules: FrameRules, _ cfa: UInt, _ callee: InlineArray<17, UInt>
  ) -> UInt? {
    let value = UInt(bitPattern: rules.values[number])
    switch rules.kinds[number] {
    case RegisterRule.stored: return load(cfa &+ value)
    case RegisterRule.isValue: return cfa &+ value
    case RegisterRule.register: return value < 17 ? callee[Int(value)] : nil
    case RegisterRule.storedAtExpression:
      guard let place = evaluate(value, callee, cfa) else { return nil }
      return load(place)
    case RegisterRule.isExpression: return evaluate(value, callee, cfa)
    default: return callee[number]
    }
  }

  private mutating func load(_ address: UInt) -> UInt? {
    readable.covers(address & ~7) && readable.covers((address &+ 7) & ~7)
      ? UnsafeRawPointer(bitPattern: address)?.loadUnaligned(as: UInt.self) : nil
  }

  private mutating func stepByFramePointer() -> Bool {
    var cursor = StackCursor(pc: pc, sp: sp, bp: registers[KEG_RBP])
    guard cursor.stepByFramePointer(&readable) == .caller else { return false }
    registers[16] = cursor.pc &+ 1
    registers[KEG_RSP] = cursor.sp
    registers[KEG_RBP] = cursor.bp
    isExact = false
    return true
  }

  // MARK: - Expressions (DWARF 5 §2.5)

  /// Runs the expression at `address`, its length first.
  /// - Parameter initial: what lies on its stack at the start: the CFA, for registers.
  private mutating func evaluate(
    _ address: UInt, _ registers: InlineArray<17, UInt>, _ initial: UInt?
  ) -> UInt? {
    var header = ByteReader(at: address, end: address &+ 16)
    let size = header.unsigned()
    let start = header.at
    var reader = ByteReader(at: start, end: start &+ size)
    var stack = ExpressionStack()
    if let initial { stack.push(initial) }
    var steps = 0
    while reader.at < reader.end {
      steps &+= 1
      let code = reader.byte()
      switch code {
      case 0x03: stack.push(reader.word64())
      case 0x06:
        guard let word = load(stack.pop()) else { return nil }
        stack.push(word)
      case 0x28:
        let distance = reader.signed16()
        if stack.pop() != 0 { reader.at = reader.at &+ UInt(bitPattern: distance) }
      case 0x2F:
        let distance = reader.signed16()
        reader.at = reader.at &+ UInt(bitPattern: distance)
      case 0x70...0x80:
        let offset = UInt(bitPattern: reader.signed())
        stack.push(registers[Int(code &- 0x70)] &+ offset)
      default:
        if !stack.apply(code, &reader) { return nil }
      }
      if steps > 200 || reader.at < start { return nil }
    }
    return stack.isValid ? stack.pop() : nil
  }
}

/// The numbers an expression works on, and the operations on them alone.
private struct ExpressionStack {
  private var values = InlineArray<16, UInt>(repeating: 0)
  private var count = 0
  private(set) var isValid = true

  mutating func push(_ value: UInt) {
    guard count < 16 else {
      isValid = false
      return
    }
    values[count] = value
    count &+= 1
  }

  mutating func pop() -> UInt {
    guard count > 0 else {
      isValid = false
      return 0
    }
    count &-= 1
    return values[count]
  }

  /// - Returns: false when `code` is no operation of the kind.
  mutating func apply(_ code: UInt, _ reader: inout ByteReader) -> Bool {
    switch code {
    case 0x08: push(reader.byte())
    case 0x09: push(UInt(bitPattern: reader.signed8()))
    case 0x0A: push(reader.half())
    case 0x0B: push(UInt(bitPattern: reader.signed16()))
    case 0x0C: push(reader.word32())
    case 0x0D: push(UInt(bitPattern: reader.signed32()))
    case 0x0E, 0x0F: push(reader.word64())
    case 0x10: push(reader.unsigned())
    case 0x11: push(UInt(bitPattern: reader.signed()))
    case 0x12:
      let top = pop()
      push(top)
      push(top)
    case 0x13: _ = pop()
    case 0x16:
      let (second, first) = (pop(), pop())
      push(second)
      push(first)
    case 0x23: push(pop() &+ reader.unsigned())
    case 0x30...0x4F: push(code &- 0x30)
    case 0x96: break
    default: return combine(code)
    }
    return true
  }

  private mutating func combine(_ code: UInt) -> Bool {
    let (second, first) = (pop(), pop())
    let (a, b) = (Int(bitPattern: first), Int(bitPattern: second))
    switch code {
    case 0x1A: push(first & second)
    case 0x1C: push(first &- second)
    case 0x1E: push(first &* second)
    case 0x21: push(first | second)
    case 0x22: push(first &+ second)
    case 0x24: push(second < 64 ? first << second : 0)
    case 0x25: push(second < 64 ? first >> second : 0)
    case 0x26: push(UInt(bitPattern: a >> min(second, 63)))
    case 0x27: push(first ^ second)
    case 0x29: push(a == b ? 1 : 0)
    case 0x2A: push(a >= b ? 1 : 0)
    case 0x2B: push(a > b ? 1 : 0)
    case 0x2C: push(a <= b ? 1 : 0)
    case 0x2D: push(a < b ? 1 : 0)
    case 0x2E: push(a != b ? 1 : 0)
    default: return false
    }
    return true
  }
}
