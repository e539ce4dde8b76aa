// DebugCaseTests.swift: bugs that are hard to see or to name (Fixtures/debug_cases.cc).
// Each is told once, as what it is, with the function that allocated; its program
// without the bug is left in peace.

import Foundation
import Testing

struct DebugCase: Sendable, CustomTestStringConvertible {
  var name: String
  var kind: String
  var functions: [String]
  var testDescription: String { name }

  init(_ name: String, _ kind: String, _ functions: [String] = ["allocating"]) {
    self.name = name
    self.kind = kind
    self.functions = functions
  }
}

@Suite("Debug cases", .enabled(if: DebugLibrary.isUsable, "the debug library is not built"))
struct DebugCaseTests {
  /// Far past a block and far before it, into memory that nobody has.
  static let strays: [DebugCase] = [10, 100, 1000, 4096, 20000, 100_000, 1 << 20].flatMap { size in
    [16, 256, 4096, 16384].map { DebugCase("far-\(size)-\(size + $0)", "overflow") }
      + [16, 24, 256, 4096].map { DebugCase("far-\(size)--\($0)", "underflow") }
      + [8, 64, 4096].map { DebugCase("run-\(size)-\(size + $0)", "overflow") }
  }

  static let others = [
    DebugCase("large-write-after-free", "use-after-free", ["allocating", "freeing"]),
    DebugCase("large-double-free", "double-free", ["allocating", "freeing"]),
    DebugCase("live-neighbours", "overflow"),
    DebugCase("array-to-free", "mismatch", ["run", "freeing"]),
    DebugCase("array-to-delete", "mismatch", ["run"]),
    DebugCase("malloc-as-array", "mismatch", ["allocating", "run"]),
    DebugCase("one-string", "mismatch", ["one_as_array"]),
    DebugCase("one-counted", "mismatch", ["one_as_array"]),
    DebugCase("one-large", "mismatch", ["one_as_array"]),
    DebugCase("one-aligned", "mismatch", ["one_as_array"]),
    DebugCase("array-twice", "double-free", ["array_twice"]),
    DebugCase("array-twice-counted", "double-free", ["array_twice"]),
    DebugCase("array-twice-large", "double-free", ["array_twice"]),
    DebugCase("before-one", "underflow", ["run"]),
    DebugCase("past-one", "overflow", ["run"]),
    DebugCase("freed-count", "use-after-free", ["run"]),
    DebugCase("freed-pointer", "use-after-free", ["run"]),
    DebugCase("stream-close", "double-free", ["closed_stream"]),
    DebugCase("stream-read", "use-after-free", ["closed_stream"]),
    DebugCase("stream-write", "use-after-free", ["closed_stream"]),
    DebugCase("stream-line", "use-after-free", ["closed_stream"]),
    DebugCase("stream-text", "use-after-free", ["closed_stream"]),
    DebugCase("stream-format", "use-after-free", ["closed_stream"]),
    DebugCase("stream-flush", "use-after-free", ["closed_stream"]),
    DebugCase("pipe-close", "double-free", ["closed_pipe"]),
    DebugCase("directory-close", "double-free", ["closed_directory"]),
    DebugCase("directory-read", "use-after-free", ["closed_directory"]),
    DebugCase("directory-rewind", "use-after-free", ["closed_directory"]),
    DebugCase("mismatch-once", "mismatch", ["run"]),
    DebugCase("negative-new", "bad-size", ["run"]),
    DebugCase("terabytes", "overflow"), DebugCase("underflow-kept", "underflow"),
    DebugCase("lost-_exit", "leak", ["allocating", "lose"]),
    DebugCase("lost-quick_exit", "leak", ["allocating", "lose"]),
    DebugCase("overflow-quick_exit", "overflow"),
    DebugCase("lost-dlclose", "leak", ["allocating_in_library", "losing_in_library"]),
  ]

  func build() throws -> String {
    let loser = try Fixture.build(
      "debug_loser", output: "debug_loser.so", flags: ["-shared", "-fPIC"])
    return try Fixture.build("debug_cases", flags: ["-DLOSER=\"\(loser)\""])
  }

  func run(_ name: String, good: Bool) throws -> Outcome {
    try PreloadTests.run(
      [try build(), name] + (good ? ["good"] : []),
      environment: ["LD_PRELOAD": DebugLibrary.path, "KEGMALLOC_CONF": nil])
  }

  @Test("found, named once, with its functions", arguments: others + strays)
  func found(one: DebugCase) throws {
    let outcome = try run(one.name, good: false)
    outcome.expect(outcome.status == .exited(99), one.name)
    outcome.expect(outcome.stderr.hasPrefix("kegmalloc: ERROR: \(one.kind): "), one.name)
    outcome.expect(outcome.stderr.components(separatedBy: "ERROR").count == 2, one.name)
    for function in one.functions {
      outcome.expect(outcome.stderr.contains(function), "\(one.name): \(function)")
    }
    outcome.expect(outcome.stdout == "ok\n", one.name)
  }

  @Test("without the bug nothing is said", arguments: others + strays)
  func silent(one: DebugCase) throws {
    try expectSilence(one.name)
  }

  /// Runs a case without its bug.
  func expectSilence(_ name: String) throws {
    let outcome = try run(name, good: true)
    outcome.expect(outcome.succeeded && outcome.stdout == "ok\n" && outcome.stderr == "", name)
  }

  @Test("abort: what there is to see is seen, and the signal stays")
  func abort() throws {
    let outcome = try run("overflow-abort", good: false)
    outcome.expect(outcome.status == .killed(signal: SIGABRT), "status")
    outcome.expect(outcome.stderr.hasPrefix("kegmalloc: ERROR: overflow: "), "report")
    outcome.expect(outcome.stderr.contains("allocating"), "function")
  }

  @Test(
    "a fault by a pointer or an index out of freed memory names the block",
    arguments: ["wild-pointer", "wild-virtual", "wild-index", "wild-frame"])
  func wild(name: String) throws {
    let outcome = try run(name, good: false)
    outcome.expect(outcome.status == .killed(signal: name == "wild-frame" ? SIGBUS : SIGSEGV), name)
    outcome.expect(
      outcome.stderr.hasPrefix(
        "kegmalloc: ERROR: use-after-free: use of a pointer that was read from a freed block"), name)
    for function in ["wild", "allocating", "freeing"] {
      outcome.expect(outcome.stderr.contains(function), "\(name): \(function)")
    }
    outcome.expect(outcome.stderr.components(separatedBy: "ERROR").count == 2, name)
    try expectSilence(name)
  }

  @Test("a stream that was closed, and that the C library does not know any more")
  func badStream() throws {
    let outcome = try run("stream-letter", good: false)
    outcome.expect(outcome.status == .killed(signal: SIGABRT), "status")
    outcome.expect(outcome.stderr.contains("kegmalloc: ERROR: use-after-free: use of a stream"), "report")
    outcome.expect(outcome.stderr.contains("closed_stream"), "function")
    try expectSilence("stream-letter")
  }

  @Test("a fault that ends the process: what there is to see is seen; else nothing is said")
  func fault() throws {
    let outcome = try run("overflow-fault", good: false)
    outcome.expect(outcome.status == .killed(signal: SIGSEGV), "status")
    outcome.expect(outcome.stderr.hasPrefix("kegmalloc: ERROR: overflow: "), "report")
    let plain = try run("fault", good: false)
    plain.expect(plain.status == .killed(signal: SIGSEGV) && plain.stderr == "", "null pointer")
  }

  @Test("a program that closes every descriptor is heard, in its file too", arguments: ["", "json"])
  func closed(way: String) throws {
    let outcome = try report("closed-descriptors", way)
    outcome.expect(outcome.status == .exited(99), way)
    outcome.expect(outcome.stderr.contains("overflow"), way)
  }

  @Test(
    "a program that leaves the root directory is heard", .enabled(if: getuid() == 0, "needs root"),
    arguments: ["", "json"])
  func changedRoot(way: String) throws {
    let outcome = try report("changed-root", way)
    outcome.expect(outcome.status == .exited(99), way)
    outcome.expect(outcome.stderr.contains("overflow") && outcome.stderr.contains("definite"), way)
  }

  /// Runs a case; with `json` what the file of findings holds stands for standard error.
  private func report(_ name: String, _ way: String) throws -> Outcome {
    let scratch = try Scratch()
    let file = scratch.path + "/findings"
    var outcome = try PreloadTests.run(
      [try build(), name],
      environment: [
        "LD_PRELOAD": DebugLibrary.path, "KEGMALLOC_CONF": way == "json" ? "json_file:\(file)" : nil,
      ])
    if way == "json" {
      outcome.stderr = String(decoding: FileManager.default.contents(atPath: file) ?? Data(), as: UTF8.self)
    }
    return outcome
  }
}
