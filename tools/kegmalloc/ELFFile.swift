// ELFFile.swift: the few facts of an ELF file that decide whether a preloaded
// library can serve it. Pure: bytes in, values out, no file access.
//
//   header ─▶ class, byte order, type, machine
//   program headers ─▶ PT_INTERP (the dynamic loader), PT_LOAD (address → offset),
//                      PT_DYNAMIC ─▶ DT_NEEDED, and the string table that holds
//                                    the name of every dynamic symbol
//
// Section headers are not used: `strip` and packers may remove them. Every read
// is checked against the length of the file; reference: System V gABI, chapters 4-5.

import Foundation

struct ELFFile: Equatable {
  enum Failure: Error, Equatable {
    case notELF
    /// The header is ELF but something it points at lies outside the file.
    case damaged
  }

  /// EI_CLASS: true for 64-bit files.
  var is64Bit: Bool
  /// EI_DATA: true for little-endian files.
  var isLittleEndian: Bool
  /// e_type: 2 is a fixed-address executable, 3 a shared object or PIE.
  var type: UInt16
  /// e_machine: 62 is x86-64, 183 AArch64, 3 i386.
  var machine: UInt16
  /// The path in PT_INTERP, nil when the kernel starts the file by itself.
  var interpreter: String?
  /// True when there is a PT_DYNAMIC segment; static-pie files have one too.
  var isDynamic = false
  /// DT_NEEDED, in order.
  var needed: [String] = []
  /// The dynamic string table: NUL-terminated names, empty when there is none.
  var dynamicStrings = Data()

  static let x86_64: UInt16 = 62
  static let aarch64: UInt16 = 183

  /// Reads the header, and the rest too if this is a 64-bit little-endian file:
  /// other files are refused on their header alone.
  init(_ file: Data) throws(Failure) {
    let bytes = ELFBytes(data: file)
    guard file.count >= 20, file.prefix(4).elementsEqual([0x7f, 0x45, 0x4c, 0x46]) else {
      throw .notELF
    }
    is64Bit = try bytes.byte(at: 4) == 2
    isLittleEndian = try bytes.byte(at: 5) == 1
    type = try bytes.half(at: 16, swapped: !isLittleEndian)
    machine = try bytes.half(at: 18, swapped: !isLittleEndian)
    guard is64Bit, isLittleEndian else { return }

    let segments = try Segment.all(in: bytes)
    if let path = segments.first(where: { $0.type == Segment.interpreter }) {
      interpreter = try bytes.string(at: path.offset, limit: path.byteCount)
    }
    guard let dynamic = segments.first(where: { $0.type == Segment.dynamic }) else { return }
    isDynamic = true
    try readDynamic(dynamic, segments, bytes)
  }

  /// Whether some dynamic symbol, imported or exported, has exactly this name.
  /// The string table also holds library names, which never look like symbols.
  func mentionsSymbol(_ name: String) -> Bool {
    dynamicStrings.range(of: Data([0] + Array(name.utf8) + [0])) != nil
  }

  private mutating func readDynamic(
    _ dynamic: Segment, _ segments: [Segment], _ bytes: ELFBytes
  ) throws(Failure) {
    var neededOffsets: [UInt64] = []
    var stringAddress: UInt64 = 0
    var stringByteCount: UInt64 = 0
    var entry = dynamic.offset
    let end = entry + min(dynamic.byteCount, UInt64(bytes.data.count))
    while entry + 16 <= end {
      let value = try bytes.word(at: entry + 8)
      switch try bytes.word(at: entry) {
      case 0: entry = end  // DT_NULL
      case 1: neededOffsets.append(value)
      case 5: stringAddress = value
      case 10: stringByteCount = value
      default: break
      }
      entry += 16
    }
    guard stringByteCount > 0 else { return }
    guard
      let offset = segments.fileOffset(of: stringAddress),
      let range = bytes.range(from: offset, byteCount: stringByteCount)
    else { throw .damaged }
    dynamicStrings = bytes.data.subdata(in: range)
    for nameOffset in neededOffsets {
      guard nameOffset < stringByteCount else { throw .damaged }
      needed.append(try bytes.string(at: offset + nameOffset, limit: stringByteCount - nameOffset))
    }
  }
}

/// One program header.
private struct Segment {
  static let load: UInt32 = 1
  static let dynamic: UInt32 = 2
  static let interpreter: UInt32 = 3

  var type: UInt32
  var offset: UInt64
  var address: UInt64
  var byteCount: UInt64

  static func all(in bytes: ELFBytes) throws(ELFFile.Failure) -> [Segment] {
    let table = try bytes.word(at: 32)
    let stride = UInt64(try bytes.half(at: 54))
    let count = UInt64(try bytes.half(at: 56))
    guard count == 0 || (stride >= 56 && bytes.range(from: table, byteCount: stride * count) != nil)
    else { throw .damaged }
    var segments: [Segment] = []
    for index in 0..<count {
      let header = table + index * stride
      segments.append(
        Segment(
          type: try bytes.integer(at: header), offset: try bytes.word(at: header + 8),
          address: try bytes.word(at: header + 16), byteCount: try bytes.word(at: header + 32)))
    }
    return try segments.map { segment throws(ELFFile.Failure) in
      let kept = segment.type == dynamic || segment.type == interpreter
      guard !kept || bytes.range(from: segment.offset, byteCount: segment.byteCount) != nil
      else { throw .damaged }
      return segment
    }
  }
}

extension [Segment] {
  /// Where in the file the byte at a virtual address comes from.
  fileprivate func fileOffset(of address: UInt64) -> UInt64? {
    for segment in self where segment.type == Segment.load && address >= segment.address {
      let distance = address - segment.address
      guard distance < segment.byteCount else { continue }
      let (offset, overflow) = segment.offset.addingReportingOverflow(distance)
      return overflow ? nil : offset
    }
    return nil
  }
}

/// Checked little-endian reads.
struct ELFBytes {
  var data: Data

  func range(from offset: UInt64, byteCount: UInt64) -> Range<Int>? {
    let (end, overflow) = offset.addingReportingOverflow(byteCount)
    guard !overflow, end <= UInt64(data.count) else { return nil }
    return data.startIndex + Int(offset)..<data.startIndex + Int(end)
  }

  func read(at offset: UInt64, byteCount: UInt64) throws(ELFFile.Failure) -> UInt64 {
    guard let range = range(from: offset, byteCount: byteCount) else { throw .damaged }
    var value: UInt64 = 0
    for byte in data[range].reversed() { value = value << 8 | UInt64(byte) }
    return value
  }

  func byte(at offset: UInt64) throws(ELFFile.Failure) -> UInt8 {
    UInt8(try read(at: offset, byteCount: 1))
  }

  func half(at offset: UInt64, swapped: Bool = false) throws(ELFFile.Failure) -> UInt16 {
    let value = UInt16(try read(at: offset, byteCount: 2))
    return swapped ? value.byteSwapped : value
  }

  func integer(at offset: UInt64) throws(ELFFile.Failure) -> UInt32 {
    UInt32(try read(at: offset, byteCount: 4))
  }

  func word(at offset: UInt64) throws(ELFFile.Failure) -> UInt64 {
    try read(at: offset, byteCount: 8)
  }

  /// The bytes up to the first NUL, at most `limit` of them.
  func string(at offset: UInt64, limit: UInt64) throws(ELFFile.Failure) -> String {
    guard let range = range(from: offset, byteCount: limit) else { throw .damaged }
    return String(decoding: data[range].prefix { $0 != 0 }, as: UTF8.self)
  }
}
