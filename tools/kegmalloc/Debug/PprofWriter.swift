// PprofWriter.swift: a heap profile in the form of profile.proto of pprof, compressed
// as that wants it. Names and lines are in it: it can be read on another machine.
//
//   sample ─▶ locations ─▶ lines ─▶ function ─▶ strings        all by number
//        └▶ alloc_objects, alloc_space, inuse_objects, inuse_space

import Foundation

struct PprofWriter {
  private var strings: [String] = [""]
  private var stringNumbers: [String: Int] = ["": 0]
  private var functions: [String: Int] = [:]
  private var locations: [String: Int] = [:]
  private var mappings: [String: Int] = [:]
  private var body = ProtoMessage()

  /// The file's contents.
  static func file(_ profile: NamedProfile) -> Data {
    var writer = PprofWriter()
    return GZip.stored(writer.encode(profile))
  }

  private mutating func encode(_ profile: NamedProfile) -> Data {
    for (type, unit) in Self.sampleTypes { body.add(1, valueType(type, unit)) }
    for sample in profile.samples {
      var message = ProtoMessage()
      message.add(1, packed: sample.locations.map { location($0) })
      let figures = sample.figures
      message.add(
        2, packed: [figures.allocations, figures.allocatedBytes, figures.held, figures.heldBytes])
      body.add(2, message)
    }
    body.add(11, valueType("space", "bytes"))
    body.add(12, 1)
    body.add(14, number(of: "inuse_space"))
    for string in strings { body.add(6, Data(string.utf8)) }
    return body.bytes
  }

  static let sampleTypes = [
    ("alloc_objects", "count"), ("alloc_space", "bytes"), ("inuse_objects", "count"),
    ("inuse_space", "bytes"),
  ]

  private mutating func valueType(_ type: String, _ unit: String) -> ProtoMessage {
    var message = ProtoMessage()
    message.add(1, number(of: type))
    message.add(2, number(of: unit))
    return message
  }

  private mutating func number(of string: String) -> Int {
    if let number = stringNumbers[string] { return number }
    stringNumbers[string] = strings.count
    strings.append(string)
    return strings.count - 1
  }

  /// The number of a location, whose frames are inlined into each other.
  private mutating func location(_ frames: [Frame]) -> Int {
    let key = frames.first.map { "\($0.module ?? "")+\($0.offset ?? $0.pc)" } ?? ""
    if let number = locations[key] { return number }
    let number = locations.count + 1
    locations[key] = number
    var message = ProtoMessage()
    message.add(1, number)
    if let module = frames.first?.module { message.add(2, mapping(module)) }
    if let address = frames.first.flatMap({ UInt64(hexadecimal: $0.offset ?? $0.pc) }) {
      message.add(3, Int(truncatingIfNeeded: address))
    }
    for frame in frames {
      var line = ProtoMessage()
      line.add(1, function(frame))
      if let number = frame.line { line.add(2, number) }
      message.add(4, line)
    }
    body.add(4, message)
    return number
  }

  private mutating func mapping(_ module: String) -> Int {
    if let number = mappings[module] { return number }
    let number = mappings.count + 1
    mappings[module] = number
    var message = ProtoMessage()
    message.add(1, number)
    // Addresses are those of the file, so that files may overlap.
    message.add(3, Int.max)
    message.add(5, self.number(of: module))
    for field in 7...10 { message.add(field, 1) }
    body.add(3, message)
    return number
  }

  private mutating func function(_ frame: Frame) -> Int {
    let name = frame.function ?? frame.pc
    let key = "\(name)|\(frame.file ?? "")"
    if let number = functions[key] { return number }
    let number = functions.count + 1
    functions[key] = number
    var message = ProtoMessage()
    message.add(1, number)
    message.add(2, self.number(of: name))
    message.add(3, self.number(of: frame.linkage ?? name))
    message.add(4, self.number(of: frame.file ?? ""))
    body.add(5, message)
    return number
  }
}

/// A message of Protocol Buffers: numbers of seven bits a byte, and pieces with their
/// lengths, each behind the number of its field.
struct ProtoMessage {
  private(set) var bytes = Data()

  mutating func add(_ field: Int, _ value: Int) {
    append(field << 3)
    append(value)
  }

  mutating func add(_ field: Int, _ piece: Data) {
    append(field << 3 | 2)
    append(piece.count)
    bytes += piece
  }

  mutating func add(_ field: Int, _ message: ProtoMessage) { add(field, message.bytes) }

  mutating func add(_ field: Int, packed values: [Int]) {
    var piece = ProtoMessage()
    for value in values { piece.append(value) }
    add(field, piece)
  }

  private mutating func append(_ value: Int) {
    var rest = UInt64(bitPattern: Int64(value))
    while rest >= 0x80 {
      bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
      rest >>= 7
    }
    bytes.append(UInt8(rest))
  }
}

/// RFC 1952 around RFC 1951's blocks without compression: readers want the form.
enum GZip {
  static func stored(_ data: Data) -> Data {
    var file = Data([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff])
    var rest = data[...]
    repeat {
      let block = rest.prefix(0xffff)
      rest = rest.dropFirst(block.count)
      let length = UInt16(block.count)
      file.append(rest.isEmpty ? 1 : 0)
      file += littleEndian(UInt64(length), 2) + littleEndian(UInt64(~length), 2) + block
    } while !rest.isEmpty
    return file + littleEndian(UInt64(checksum(data)), 4)
      + littleEndian(UInt64(UInt32(truncatingIfNeeded: data.count)), 4)
  }

  private static func littleEndian(_ value: UInt64, _ count: Int) -> Data {
    Data((0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * UInt64($0))) })
  }

  /// CRC-32 of IEEE 802.3.
  static func checksum(_ data: Data) -> UInt32 {
    var remainder: UInt32 = .max
    for byte in data {
      remainder ^= UInt32(byte)
      for _ in 0..<8 {
        remainder = remainder >> 1 ^ (remainder & 1 == 0 ? 0 : 0xedb8_8320)
      }
    }
    return ~remainder
  }
}
