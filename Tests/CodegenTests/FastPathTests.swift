// FastPathTests.swift: malloc and free, and a zone's, as linked, against golden text.
//
// The fast path is what the product lives on: a change to it is a decision. These
// tests disassemble the shipping library, follow the path on which every test of the
// fast path succeeds, and compare the kinds of its instructions, in order, with
// fastpath.golden. Wanted changes: `KEGMALLOC_GOLDEN=write swift test --filter Codegen`,
// and say why in the commit, with the counts.

import Foundation
import Testing

private let root = URL(fileURLWithPath: #filePath)
  .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
private let library = root.appendingPathComponent("out/lib/libkegmalloc.so").path
private let golden = root.appendingPathComponent("Tests/CodegenTests/fastpath.golden")

/// One instruction: its address, mnemonic and operands.
private struct Instruction {
  let address: String
  let mnemonic: String
  let operands: String

  /// What it does, without registers and addresses.
  var kind: String {
    let parts = operands.split(separator: ",", omittingEmptySubsequences: false)
    let lastIsMemory = operands.hasSuffix(")") || (parts.last?.contains(":(") ?? false)
    switch mnemonic {
    case "ret": return "return"
    case "lea": return "address"
    case let jump where jump.hasPrefix("j"): return "branch"
    case let move where move.hasPrefix("mov"):
      if lastIsMemory { return "store" }
      return operands.contains("(") ? "load" : "move"
    case let compare where compare.hasPrefix("cmp") || compare.hasPrefix("test"):
      return operands.contains("(") ? "compare memory" : "compare"
    case "call": return "call"
    default: return (operands.contains("lock") ? "lock " : "") + (lastIsMemory ? "rmw" : "arithmetic")
    }
  }
}

private func output(of arguments: [String]) throws -> String {
  let process = Process()
  process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
  process.arguments = arguments
  let pipe = Pipe()
  process.standardOutput = pipe
  try process.run()
  let text = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
  process.waitUntilExit()
  return text
}

/// Where the dynamic symbol `symbol` is: several may share an address, of which
/// objdump shows one.
private func address(of symbol: String) throws -> UInt {
  let line = try output(of: ["nm", "-D", "--defined-only", library])
    .split(separator: "\n").first { $0.hasSuffix(" \(symbol)") }
  return try #require(UInt(line?.prefix(16) ?? "", radix: 16), "no \(symbol) in the library")
}

/// The 256 bytes from the start of `symbol`.
private func disassemble(_ symbol: String) throws -> [Instruction] {
  let start = try address(of: symbol)
  let text = try output(of: [
    "objdump", "-d", "--no-show-raw-insn", "--start-address=\(start)",
    "--stop-address=\(start + 256)", library,
  ])
  return text.split(separator: "\n").compactMap { line in
    let columns = line.split(separator: "\t").map { $0.trimmingCharacters(in: .whitespaces) }
    guard columns.count == 2, columns[0].hasSuffix(":") else { return nil }
    let words = columns[1].split(separator: " ", maxSplits: 1).map(String.init)
    let operands = words.count > 1 ? words[1].split(separator: "#")[0] : ""
    return Instruction(
      address: String(columns[0].dropLast()), mnemonic: words[0],
      operands: operands.trimmingCharacters(in: .whitespaces))
  }
}

/// The instructions from the entry to the first return, no branch taken.
private func straightPath(_ symbol: String) throws -> [Instruction] {
  let all = try disassemble(symbol)
  let end = try #require(all.firstIndex { $0.mnemonic == "ret" }, "no return in \(symbol)")
  return Array(all[...end])
}

@Suite(.serialized, .enabled(if: FileManager.default.fileExists(atPath: library), "run make first"))
struct FastPathTests {
  @Test("malloc, free and a zone's alloc and free run the instructions of fastpath.golden")
  func goldenText() throws {
    var text = ""
    for symbol in ["malloc", "free", "_Znwm", "keg_zone_alloc", "keg_zone_free"] {
      let path = try straightPath(symbol)
      text += "\(symbol): \(path.count) instructions\n"
      text += path.map { "  \($0.kind)\n" }.joined()
    }
    if ProcessInfo.processInfo.environment["KEGMALLOC_GOLDEN"] == "write" {
      try text.write(to: golden, atomically: true, encoding: .utf8)
    }
    #expect(text == (try String(contentsOf: golden, encoding: .utf8)))
  }

  @Test(
    "no lock, no call, and no more instructions than promised",
    arguments: [("malloc", 22), ("free", 18), ("keg_zone_alloc", 15), ("keg_zone_free", 16)])
  func limits(symbol: String, most: Int) throws {
    let path = try straightPath(symbol)
    #expect(path.count <= most)
    #expect(!path.contains { $0.mnemonic.hasPrefix("lock") || $0.mnemonic.hasPrefix("xchg") })
    #expect(!path.contains { $0.kind == "call" })
  }

  @Test("pop commits before it reads the slot, push writes the slot before it commits")
  func order() throws {
    // malloc: the last store is the new top, the last load the slot.
    let pop = try straightPath("malloc").map(\.kind)
    #expect(pop.lastIndex(of: "store")! < pop.lastIndex(of: "load")!)
    // free: two stores, the slot first; the second goes to the bin.
    let push = try straightPath("free")
    let stores = push.filter { $0.kind == "store" || $0.kind == "rmw" }
    #expect(stores.count == 2)
    #expect(stores[0].operands.hasPrefix("%rdi,"))
  }

  @Test("free and operator delete are one function, and only operators made of another jump, once")
  func aliases() throws {
    #expect(try address(of: "free") == address(of: "_ZdlPv"))
    for symbol in ["_ZdlPvm", "_ZdaPv", "_Znam"] {
      #expect(try disassemble(symbol).first?.mnemonic == "jmp")
    }
    #expect(try disassemble("free").first?.mnemonic != "jmp")
    #expect(try disassemble("malloc").first?.mnemonic != "jmp")
  }
}
