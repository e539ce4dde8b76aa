// DebugOptionTests.swift: the debug library's options that make allocations fail, and what
// it and a program's signals, frames and exec do to each other.

import Foundation
import Testing

@Suite("Debug options", .enabled(if: DebugLibrary.isUsable, "the debug library is not built"))
struct DebugOptionTests {
  private func runDebug(_ fixture: String, _ arguments: [String], conf: String = "") throws -> Outcome {
    try run(
      [try Fixture.build(fixture)] + arguments,
      environment: ["LD_PRELOAD": DebugLibrary.path, "KEGMALLOC_CONF": conf], timeout: 120)
  }

  private func expectSilence(_ fixture: String, _ arguments: [String], conf: String = "") throws {
    let outcome = try runDebug(fixture, arguments, conf: conf)
    outcome.expect(
      outcome.succeeded && outcome.stdout == "ok\n" && outcome.stderr == "",
      "\(fixture) \(arguments) \(conf)")
  }

  @Test("mtbf: one allocation in so many fails, with ENOMEM, and is no finding")
  func failures() throws {
    try expectSilence("debug_options", ["some-fail", "10"], conf: "mtbf:10")
    try expectSilence("debug_options", ["some-fail", "10"], conf: "mtbf:10,sample:7")
    try expectSilence("debug_options", ["some-fail", "0"])
  }

  @Test("limit: beyond it malloc fails, and what was freed comes back from the quarantine")
  func limit() throws { try expectSilence("debug_options", ["limited", "64"], conf: "limit:64") }

  @Test("signal masks and waiting signals are left alone", arguments: ["", "guard:right"])
  func masks(conf: String) throws {
    let outcome = try runDebug("debug_options", ["masks"], conf: conf)
    outcome.expect(outcome.succeeded && outcome.stdout == "ok\n" && !outcome.stderr.contains("ERROR"))
  }

  @Test("exec: the next program has the signals that it would have had", arguments: ["", "guard:left"])
  func exec(conf: String) throws { try expectSilence("debug_options", ["exec"], conf: conf) }

  @Test(
    "handlers that allocate over the allocator: told once, and no block is lost",
    arguments: ["", "guard:right,guard_limit:64"])
  func storm(conf: String) throws {
    let outcome = try runDebug("debug_options", ["storm", "2000"], conf: conf)
    let reports = outcome.stderr.components(separatedBy: "kegmalloc: ERROR: ").dropFirst()
    outcome.expect(outcome.stdout == "ok\n" && reports.count <= 1)
    outcome.expect(reports.allSatisfy { $0.hasPrefix("signal: allocation by a signal handler") })
  }

  @Test(
    "a frame pointer may hold anything while the program allocates",
    arguments: ["auto", "tables", "fp", "libunwind"])
  func frames(unwind: String) throws {
    try expectSilence("wild_frames", [], conf: "unwind:\(unwind)")
  }

  @Test("the first file that a program opens has the number that it has without the library")
  func firstDescriptor() throws {
    let fixture = try Fixture.build("debug_descriptors")
    let without = try run([fixture, "first"], preload: false)
    let with = try runDebug("debug_descriptors", ["first"])
    with.expect(with.succeeded && with.stderr == "" && with.stdout == without.stdout, "without: \(without.stdout)")
  }

  @Test(
    "a program that closes all descriptors and opens its own: reports go elsewhere",
    arguments: [("reused", 1), ("reused-late", 2)], [false, true])
  func reusedDescriptors(fixtureCase: (name: String, findings: Int), isFile: Bool) throws {
    let scratch = try Scratch()
    let file = scratch.path + "/findings"
    let outcome = try runDebug(
      "debug_descriptors", [fixtureCase.name], conf: isFile ? "json_file:\(file)" : "")
    outcome.expect(outcome.status == .exited(99) && outcome.stdout == "ok\n")
    let reports =
      isFile
      ? try String(contentsOfFile: file, encoding: .utf8).components(separatedBy: "\"kind\":\"finding\"")
      : outcome.stderr.components(separatedBy: "kegmalloc: ERROR: double-free")
    outcome.expect(reports.count - 1 == fixtureCase.findings, "\(reports)")
    if isFile { outcome.expect(outcome.stderr == "") }
  }

  @Test("functions that jump to malloc and free are named although they have no frame")
  func jumps() throws {
    let outcome = try runDebug("tail_calls", [])
    outcome.expect(outcome.status == .exited(99) && outcome.stdout == "ok\n")
    // Innermost first; a jump at its first byte, a frame inside.
    let chain = ["jumps_to_malloc+0x0 ", "jumps_twice+0x0 ", "keeps_a_frame+0x", "jumps_to_a_frame+0x0 ", "main+0x"]
    for (index, function) in chain.enumerated() {
      let line = outcome.stderr.split(separator: "\n").filter { $0.contains("#\(index) ") }
      outcome.expect(line.contains { $0.contains(" \(function)") }, function)
    }
    for function in ["jumps_to_free", "jumps_again"] {
      outcome.expect(outcome.stderr.contains("#0 ") && outcome.stderr.contains(" \(function)+0x0 "), function)
    }
    // Of two ways neither is said.
    let either = outcome.stderr.split(separator: "\n").filter { $0.contains("jumps_either_way+0x0 ") }
    outcome.expect(!either.isEmpty && either.allSatisfy { $0.contains("#0 ") }, "either")
    outcome.expect(outcome.stderr.contains(" main+0x"))
  }
}
