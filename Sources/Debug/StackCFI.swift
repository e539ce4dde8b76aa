// StackCFI.swift: the compiler's description of a function's frames.
//
// DWARF 5 §6.4 as .eh_frame has it (Linux Standard Base, "Exception Frames"):
//
//   .eh_frame_hdr  sorted table of (function, FDE), found through the loader
//        └▶ FDE    one function: its range, and a program
//             └▶ CIE   what many functions share: alignments, the program's start
//
// The program is a list of changes with the addresses they hold from; run up to a pc
// it leaves the rules for all registers, from which the row of StackRow.swift is made.
// Everything is read where the loader put it; nothing is allocated and no lock taken.

import Base
import DebugPlatform
import Platform

/// Reads the numbers of DWARF. Past the end every byte is 0, so that a damaged
/// section ends in nonsense that the walk refuses, not in a fault.
struct ByteReader {
  var at: UInt
  let end: UInt

  private mutating func take<T: FixedWidthInteger>(_ type: T.Type) -> T {
    let size = UInt(bitPattern: MemoryLayout<T>.size)
    guard at &+ size <= end else {
      at = end
      return 0
    }
    // Never nil: inside a section the loader mapped.
    let value = UnsafeRawPointer(bitPattern: at).unsafelyUnwrapped.loadUnaligned(as: T.self)
    at = at &+ size
    return value
  }

  mutating func byte() -> UInt { UInt(take(UInt8.self)) }
  mutating func half() -> UInt { UInt(take(UInt16.self)) }
  mutating func word32() -> UInt { UInt(take(UInt32.self)) }
  mutating func word64() -> UInt { UInt(take(UInt64.self)) }
  mutating func signed8() -> Int { Int(take(Int8.self)) }
  mutating func signed16() -> Int { Int(take(Int16.self)) }
  mutating func signed32() -> Int { Int(take(Int32.self)) }

  mutating func unsigned() -> UInt {
    var value: UInt = 0
    var shift: UInt = 0
    while at < end {
      let byte = byte()
      value |= (byte & 0x7F) << shift
      shift &+= 7
      if byte < 0x80 { break }
    }
    return value
  }

  mutating func signed() -> Int {
    var value: UInt = 0
    var shift: UInt = 0
    while at < end {
      let byte = byte()
      value |= (byte & 0x7F) << shift
      shift &+= 7
      if byte < 0x80 {
        if byte & 0x40 != 0, shift < 64 { value |= UInt.max << shift }
        break
      }
    }
    return Int(bitPattern: value)
  }

  /// A pointer encoded as the DW_EH_PE_ byte `encoding` says; 0 for the forms that
  /// code for this machine never uses.
  mutating func pointer(_ encoding: UInt) -> UInt {
    let place = at
    let value: UInt
    switch encoding & 0x0F {
    case 0x00, 0x04, 0x0C: value = word64()
    case 0x01: value = unsigned()
    case 0x02: value = half()
    case 0x03: value = word32()
    case 0x09: value = UInt(bitPattern: signed())
    case 0x0A: value = UInt(bitPattern: signed16())
    case 0x0B: value = UInt(bitPattern: signed32())
    default: return 0
    }
    return encoding & 0x70 == 0x10 ? place &+ value : value
  }
}

/// One function's description.
struct UnwindEntry {
  /// The function's first address, and the first one after it.
  var start: UInt = 0
  var end: UInt = 0
  var program = ByteReader(at: 0, end: 0)
  var initialProgram = ByteReader(at: 0, end: 0)
  var codeAlignment: UInt = 1
  var dataAlignment = 1
  var pointerEncoding: UInt = 0
  var isSignalFrame = false

  /// The description of the function that `pc` lies in, or nil.
  init?(pc: UInt) {
    var module = keg_module()
    guard keg_find_module(pc, &module), module.unwind_table != 0 else { return nil }
    self.init(pc: pc, table: module.unwind_table)
  }

  /// - Parameter table: address of an .eh_frame_hdr.
  init?(pc: UInt, table: UInt) {
    var header = ByteReader(at: table, end: table &+ 64)
    let version = header.byte()
    let frameEncoding = header.byte()
    let countEncoding = header.byte()
    // Binary search needs pairs of 32 bits, relative to the table's section.
    guard version == 1, header.byte() == 0x3B, countEncoding != 0xFF else { return nil }
    _ = header.pointer(frameEncoding)
    let count = header.pointer(countEncoding)
    let entries = header.at
    func number(_ index: UInt) -> UInt {
      table &+ UInt(bitPattern: Int((entries &+ index &* 4).pointer(to: Int32.self).pointee))
    }
    // The last function that starts at or below pc.
    var low: UInt = 0
    var high = count
    while low < high {
      let middle = (low &+ high) / 2
      if number(middle &* 2) <= pc { low = middle &+ 1 } else { high = middle }
    }
    guard low > 0 else { return nil }
    guard read(number((low &- 1) &* 2 &+ 1)), pc &- start < end &- start else { return nil }
  }

  /// Reads an entry's length. Returns its content, or nil for the terminator.
  private static func content(of entry: UInt) -> ByteReader? {
    var reader = ByteReader(at: entry, end: entry &+ 12)
    var length = reader.word32()
    if length == 0xFFFF_FFFF { length = reader.word64() }
    if length == 0 { return nil }
    return ByteReader(at: reader.at, end: reader.at &+ length)
  }

  private mutating func read(_ entry: UInt) -> Bool {
    guard var reader = Self.content(of: entry) else { return false }
    let place = reader.at
    let distance = reader.word32()
    guard distance != 0, let hasData = readCommon(place &- distance) else { return false }
    start = reader.pointer(pointerEncoding)
    end = start &+ reader.pointer(pointerEncoding & 0x0F)
    if hasData {
      let size = reader.unsigned()
      reader.at = reader.at &+ size
    }
    program = reader
    return true
  }

  /// Reads a CIE. Returns whether its FDEs have augmentation data, nil when it is of
  /// an unknown kind.
  private mutating func readCommon(_ entry: UInt) -> Bool? {
    guard var reader = Self.content(of: entry), reader.word32() == 0 else { return nil }
    let version = reader.byte()
    guard version == 1 || version == 3 else { return nil }
    var augmentation = reader
    while reader.byte() != 0, reader.at < reader.end {}
    codeAlignment = reader.unsigned()
    dataAlignment = reader.signed()
    let returnColumn = version == 1 ? reader.byte() : reader.unsigned()
    guard returnColumn == UInt(bitPattern: KEG_RIP) else { return nil }
    guard augmentation.byte() == 0x7A /* z */ else {
      initialProgram = reader
      return reader.at == augmentation.at ? nil : false
    }
    let size = reader.unsigned()
    let dataEnd = reader.at &+ size
    while true {
      switch augmentation.byte() {
      case 0x52: pointerEncoding = reader.byte()  // R
      case 0x4C: _ = reader.byte()  // L
      case 0x50: _ = reader.pointer(reader.byte() & 0x7F)  // P
      case 0x53: isSignalFrame = true  // S
      case 0:
        initialProgram = ByteReader(at: dataEnd, end: reader.end)
        return true
      default: return nil
      }
    }
  }
}
