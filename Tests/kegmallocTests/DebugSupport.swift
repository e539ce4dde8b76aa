// DebugSupport.swift: records as the debug library writes them, made by hand, and
// programs with debug information whose addresses the records can name.

import Foundation
import Testing

@testable import kegmalloc

/// Made-up records.
enum Canned {
  static func frame(_ module: String, _ offset: UInt64, _ function: String? = nil) -> String {
    let name = function.map { "\"\($0)\"" } ?? "null"
    return #"{"pc":"0x\#(String(0x5500_0000_0000 + offset, radix: 16))","module":"\#(module)","#
      + #""offset":"0x\#(String(offset, radix: 16))","function":\#(name)}"#
  }

  static func stack(_ frames: [String], thread: Int = 1) -> String {
    #"{"thread":\#(thread),"frames":[\#(frames.joined(separator: ","))]}"#
  }

  static func finding(
    _ findingClass: String = "double-free", what: String = "free of a free item", pid: Int = 10,
    fault: Bool = false, offset: Int = 0, stacks: [String: String] = [:], bytes: String? = nil
  ) -> String {
    let stacks = stacks.map { "\"\($0)\":\($1)" }.sorted().joined(separator: ",")
    return #"{"kind":"finding","id":3,"class":"\#(findingClass)","what":"\#(what)","address":"0x7f0000001000","#
      + #""pid":\#(pid),"thread":2,"time_ms":1234,"zone":"malloc-64","size":40,"offset":\#(offset),"#
      + #""block":"0x7f0000001000","allocation":"new[]","access":"write","fault":\#(fault),"count":1,"#
      + #""stacks":{\#(stacks)}\#(bytes.map { ",\"bytes\":\($0)" } ?? "")}"#
  }

  static func leak(
    _ kind: String = "definite", bytes: Int = 100, count: Int = 2, pid: Int = 10, stack: String
  ) -> String {
    #"{"kind":"leak","leak":"\#(kind)","bytes":\#(bytes),"count":\#(count),"address":"0x7f0000002000","#
      + #""pid":\#(pid),"stacks":{"allocated":\#(stack)}}"#
  }

  static func summary(pid: Int = 10) -> String {
    #"{"kind":"summary","pid":\#(pid),"errors":1,"leaks":1,"leaked_bytes":100,"allocations":1000,"#
      + #""frees":998,"quarantine_bytes":0,"sampled":null,"guarded":0,"message":"done"}"#
  }

  /// 48 bytes from 16 before an item of 24.
  static let bytes =
    #"{"address":"0x7f0000000ff0","hex":""# + String(repeating: "fe", count: 16)
    + String(repeating: "61", count: 24) + "00" + String(repeating: "9b", count: 7)
    + #"","item_offset":-16,"damage_start":"0x7f0000001018","damage_end":"0x7f0000001019"}"#
}

/// A symboliser with fixed answers, which records what it was asked.
final class FixedSymbols: Symbolizing {
  var answers: [UInt64: [SymbolizedFrame]] = [:]
  private(set) var questions: [UInt64] = []

  func frames(module: String, address: UInt64) -> [SymbolizedFrame] {
    questions.append(address)
    return answers[address] ?? []
  }
}

/// A log of these records, with names from `symbols`.
func findingLog(
  _ lines: [String], symbols: FixedSymbols? = nil, suppressions: [String] = [],
  onNew: @escaping (Finding) -> Void = { _ in }
) throws -> FindingLog {
  let log = FindingLog(
    symbolizer: Symbolizer(backend: symbols), rules: try SuppressionRules(suppressions), onNew: onNew)
  for line in lines { log.add(line: Data(line.utf8)) }
  return log
}

/// A C++ program with an inlined function, and the addresses behind its calls of malloc.
struct DebuggedProgram {
  static let source = """
    #include <cstdlib>
    struct Node { int value; };
    static inline __attribute__((always_inline)) Node *fresh(size_t size) {
      return static_cast<Node *>(malloc(size));
    }
    template <class T> __attribute__((noinline)) T *make(size_t size) {
      return fresh(size);
    }
    int main(int count, char **) {
      Node *node = make<Node>(count * 40);
      bool none = node == nullptr;
      free(node);
      return none;
    }
    """

  let path: String
  /// In the call of malloc in make<Node>, which inlines fresh: as the library names it,
  /// one less than the return address.
  let allocation: UInt64
  static let makeLinkage = "_Z4makeI4NodeEPT_m"

  init?(in scratch: Scratch) throws {
    let file = try scratch.file("node.cc", Self.source, mode: 0o644)
    path = scratch.path + "/node"
    let built = try capture("/usr/bin/c++", ["-g", "-O1", "-fno-optimize-sibling-calls", file, "-o", path])
    guard built.status == 0 else { return nil }
    let listing = try capture(
      "/usr/bin/objdump", ["-d", "--no-show-raw-insn", "--disassemble=\(Self.makeLinkage)", path])
    let lines = listing.output.split(separator: "\n")
    guard let call = lines.firstIndex(where: { $0.contains("<malloc@plt>") }),
      let next = lines[(call + 1)...].first?.split(separator: ":").first,
      let address = UInt64(next.trimmingCharacters(in: .whitespaces), radix: 16)
    else { return nil }
    allocation = address - 1
  }
}
