// StackTests.swift: the stacks of the debug library, against the C library's own and
// in every place that is hard to unwind; and that libunwind stays out of the way.

import Foundation
import Testing

private let debugLibrary: String =
  (Library.path as NSString).deletingLastPathComponent + "/libkegmalloc-debug.so"

private func runDebug(
  _ command: [String], options: String? = nil, directory: String? = nil
) throws -> Outcome {
  try run(
    command, environment: ["LD_PRELOAD": debugLibrary, "KEGMALLOC_CONF": options],
    preload: false, timeout: 120, directory: directory)
}

/// The functions of the frames below the first line that contains `title`.
private func functions(_ report: String, below title: String) -> [String] {
  var names: [String] = []
  var isBelow = false
  for line in report.split(separator: "\n") {
    let words = line.split(separator: " ")
    if isBelow {
      guard let first = words.first, first.hasPrefix("#") else { break }
      // Code made at run time has no name.
      names.append(words.count > 2 ? String(words[2].prefix { $0 != "+" }) : "")
    }
    if line.contains(title) { isBelow = true }
  }
  return names
}

private let chain = (0..<10).map(String.init)

@Suite(
  "Stacks",
  .enabled(if: Library.isOurs && access(debugLibrary, R_OK) == 0, "the debug library is not built"))
struct StackTests {
  private func samples() throws -> String {
    try Fixture.build("stack_samples", flags: ["-O2", "-fomit-frame-pointer"])
  }

  private func stacks(_ mode: String, options: String? = nil) throws -> Outcome {
    let binary = try Fixture.build("stacks", flags: ["-O2", "-fomit-frame-pointer"])
    return try runDebug([binary, mode], options: options, directory: "/tmp")
  }

  /// The report must name both chains in order; then what `outer` says.
  private func expectChains(
    _ outcome: Outcome, outer: [String], _ sourceLocation: SourceLocation = #_sourceLocation
  ) {
    let allocated = functions(outcome.stderr, below: "allocated by")
    let freed = functions(outcome.stderr, below: "freed by")
    let detected = functions(outcome.stderr, below: "detected by")
    outcome.expect(
      Array(allocated.prefix(11)) == chain.map { "allocate_" + $0 } + ["free_twice"],
      "allocated by \(allocated)", sourceLocation)
    for stack in [freed, detected] {
      outcome.expect(
        Array(stack.prefix(11)) == chain.map { "release_" + $0 } + ["free_twice"],
        "freed by \(stack)", sourceLocation)
    }
    for name in outer {
      outcome.expect(allocated.contains(name), "no \(name) in \(allocated)", sourceLocation)
    }
  }

  @Test("forty thousand stacks are those of backtrace(3), frame by frame")
  func samplesAgree() throws {
    let outcome = try runDebug([samples(), "10000"])
    outcome.expect(outcome.succeeded && outcome.stdout == "ok\n" && !outcome.stderr.contains("ERROR"))
  }

  @Test("so are they while another thread loads and unloads a library")
  func samplesDuringDlopen() throws {
    let plugin = try Fixture.build("plugin", output: "libplugin.so", flags: ["-shared", "-fPIC"])
    let outcome = try runDebug([samples(), "5000", plugin])
    outcome.expect(outcome.succeeded && outcome.stdout == "ok\n" && !outcome.stderr.contains("ERROR"))
  }

  @Test("libunwind alone gives the same stacks")
  func libunwindAlone() throws {
    let outcome = try runDebug([samples(), "300"], options: "unwind:libunwind")
    outcome.expect(outcome.succeeded && outcome.stdout == "ok\n")
  }

  @Test("ten functions deep, without frame pointers", arguments: ["chain", "closed", "small"])
  func chains(mode: String) throws {
    expectChains(try stacks(mode), outer: mode == "small" ? ["in_thread"] : ["main", "_start"])
  }

  @Test("through a signal frame and from another stack")
  func signal() throws {
    expectChains(try stacks("signal"), outer: ["interrupted", "main", "_start"])
  }

  @Test("across machine code without unwind data")
  func jit() throws {
    expectChains(try stacks("jit"), outer: ["main", "_start"])
    expectChains(try stacks("bare"), outer: [])
  }

  @Test("in the children of a threaded process")
  func forked() throws {
    let outcome = try stacks("forked")
    expectChains(outcome, outer: ["main"])
    let reports = outcome.stderr.components(separatedBy: "ERROR: double-free").count - 1
    outcome.expect(reports == 20, "\(reports) reports")
  }

  @Test("a fault: the faulting instruction first; after a wild call, its target and the caller")
  func fault() throws {
    let read = try stacks("fault", options: "guard:right")
    let reader = functions(read.stderr, below: "detected by")
    read.expect(Array(reader.prefix(3)) == ["touch", "reach", "main"], "\(reader)")
    let wild = try stacks("wild", options: "guard:right")
    let caller = functions(wild.stderr, below: "detected by")
    wild.expect(Array(caller.prefix(3)) == ["", "call", "main"], "\(caller)")
  }

  @Test("stack_depth and unwind:off are obeyed")
  func options() throws {
    let short = try stacks("chain", options: "stack_depth:3")
    short.expect(functions(short.stderr, below: "allocated by") == ["allocate_0", "allocate_1", "allocate_2"])
    let none = try stacks("chain", options: "unwind:off")
    none.expect(none.stderr.contains("double-free") && !none.stderr.contains("#0"))
  }

  @Test("a stripped program is named by its module and its offset")
  func stripped() throws {
    let binary = try Fixture.build("stacks", output: "stacks_stripped", flags: ["-O2", "-s"])
    let outcome = try runDebug([binary, "chain"])
    let first = try #require(
      outcome.stderr.split(separator: "\n").first { $0.contains("#0 ") }, "\(outcome.report)")
    outcome.expect(first.contains("(\(binary)+0x"), "\(first)")
  }

  @Test("a C++ exception in a dlopened library is libgcc's business")
  func exception() throws {
    let thrower = try Fixture.build(
      "thrower", output: "libthrower.so", flags: ["-shared", "-fPIC"])
    let outcome = try runDebug([try Fixture.build("throw_host"), thrower])
    outcome.expect(outcome.succeeded && outcome.stdout == "ok\n" && outcome.stderr == "")
  }

  @Test("without libunwind one line says so, and stacks are the same")
  func absent() throws {
    // An empty file is found first, and is no library.
    let scratch = try Scratch()
    _ = try scratch.file("libunwind-x86_64.so.8", "")
    let binary = try Fixture.build("stacks", flags: ["-O2", "-fomit-frame-pointer"])
    let outcome = try run(
      [binary, "chain"],
      environment: ["LD_PRELOAD": debugLibrary, "LD_LIBRARY_PATH": scratch.path],
      preload: false)
    let lines = outcome.stderr.components(separatedBy: "libunwind-x86_64.so.8 cannot be loaded").count - 1
    outcome.expect(lines == 1, "\(lines) lines")
    expectChains(outcome, outer: ["main", "_start"])
  }
}
