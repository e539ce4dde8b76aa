// ELFFile+Symbols.swift: the value of an exported symbol, by the section of dynamic
// symbols. Pure: bytes in, a number out.

import Foundation

extension ELFFile {
  private static let dynamicSymbols: UInt32 = 11

  /// The address, as the linker assigned it, of a symbol that a 64-bit little-endian
  /// file defines; nil if it defines none of that name or is damaged.
  static func value(of name: String, in file: Data) -> UInt64? {
    try? find(name, ELFBytes(data: file))
  }

  private static func find(_ name: String, _ bytes: ELFBytes) throws(Failure) -> UInt64? {
    let table = try bytes.word(at: 40)
    let stride = UInt64(try bytes.half(at: 58))
    let count = UInt64(try bytes.half(at: 60))
    for index in 0..<count {
      let section = table &+ index &* stride
      guard try bytes.integer(at: section &+ 4) == dynamicSymbols else { continue }
      let symbols = try bytes.word(at: section &+ 24)
      let byteCount = try bytes.word(at: section &+ 32)
      // sh_link of a symbol section is its section of strings.
      let strings = table &+ UInt64(try bytes.integer(at: section &+ 40)) &* stride
      let stringOffset = try bytes.word(at: strings &+ 24)
      guard bytes.range(from: symbols, byteCount: byteCount) != nil else { throw .damaged }
      for symbol in Swift.stride(from: symbols, to: symbols + byteCount, by: 24) {
        let nameOffset = UInt64(try bytes.integer(at: symbol))
        let definedIn = try bytes.half(at: symbol + 6)
        let limit = UInt64(name.utf8.count + 1)
        if definedIn != 0, try bytes.string(at: stringOffset &+ nameOffset, limit: limit) == name {
          return try bytes.word(at: symbol + 8)
        }
      }
    }
    return nil
  }
}
