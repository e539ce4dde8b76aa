// Record.swift: what the debug library writes, one JSON object a line.
//
//   {"kind":"finding", …}  one bug, as soon as it is detected
//   {"kind":"repeated", …} how often a finding, named by its number, was seen in all
//   {"kind":"leak", …}     one stack's leaked items of one kind, from a leak check
//   {"kind":"summary", …}  the figures of a process, at its end
//
// Addresses and offsets are hexadecimal strings: JSON's numbers lose bits of them.

import Foundation

enum Record {
  case finding(FindingRecord)
  case repeated(RepeatedRecord)
  case leak(LeakRecord)
  case summary(SummaryRecord)

  /// The record of one line; nil for a line that is none, or of a later kind.
  init?(line: Data) {
    // Names of files and functions may hold any bytes; JSON wants UTF-8.
    let text = Data(String(decoding: line, as: UTF8.self).utf8)
    guard let kind = try? Self.decoder.decode(Kind.self, from: text).kind else { return nil }
    switch kind {
    case "finding":
      guard let record = try? Self.decoder.decode(FindingRecord.self, from: text) else { return nil }
      self = .finding(record)
    case "repeated":
      guard let record = try? Self.decoder.decode(RepeatedRecord.self, from: text) else { return nil }
      self = .repeated(record)
    case "leak":
      guard let record = try? Self.decoder.decode(LeakRecord.self, from: text) else { return nil }
      self = .leak(record)
    case "summary":
      guard let record = try? Self.decoder.decode(SummaryRecord.self, from: text) else { return nil }
      self = .summary(record)
    default: return nil
    }
  }

  private struct Kind: Decodable { var kind: String }

  private static let decoder: JSONDecoder = {
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    return decoder
  }()
}

/// A frame as the library knows it: where it is in a file, and an ELF symbol.
struct FrameRecord: Codable, Equatable {
  /// In the calling or faulting instruction: one less than a return address.
  var pc: String
  var module: String?
  /// The address as the linker assigned it in `module`.
  var offset: String?
  var function: String?
}

struct StackRecord: Codable, Equatable {
  var thread: Int?
  var frames: [FrameRecord]
}

struct StacksRecord: Codable, Equatable {
  var detected: StackRecord?
  var allocated: StackRecord?
  var freed: StackRecord?
}

/// Memory around a finding.
struct BytesRecord: Codable, Equatable {
  var address: String
  /// Two digits a byte.
  var hex: String
  /// Where the first byte is, counted from the start of the item.
  var itemOffset: Int
  /// The bytes that should be others; the end is the first that is right again.
  var damageStart: String?
  var damageEnd: String?
}

struct FindingRecord: Decodable {
  /// Its number in its process.
  var id: Int?
  var `class`: String
  var what: String
  /// A number that belongs to the phrase, such as a size that was claimed.
  var number: Int?
  var address: String
  var pid: Int
  var thread: Int?
  var timeMs: Int?
  var zone: String?
  var givenTo: String?
  var size: Int?
  var offset: Int?
  /// The start of the item.
  var block: String?
  var allocation: String?
  var access: String?
  /// The access itself was caught, not its traces later.
  var fault: Bool?
  var count: Int?
  var stacks: StacksRecord?
  var bytes: BytesRecord?
}

struct RepeatedRecord: Decodable {
  var pid: Int
  var id: Int
  var count: Int
}

struct LeakRecord: Decodable {
  var leak: String
  var bytes: Int
  var count: Int
  /// The oldest item, its size, how it was allocated and when.
  var address: String
  var size: Int?
  var allocation: String?
  var timeMs: Int?
  var pid: Int
  var stacks: StacksRecord?
}

struct SummaryRecord: Codable {
  var pid: Int
  var errors: Int?
  var leaks: Int?
  var leakedBytes: Int?
  var allocations: Int?
  var frees: Int?
  var quarantineBytes: Int?
  var sampled: Int?
  var guarded: Int?
  var message: String?
}
