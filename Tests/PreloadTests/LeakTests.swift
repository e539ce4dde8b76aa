// LeakTests.swift: the leak check of the debug library on programs of ours that lose
// memory in one way each, to the byte, and on real programs.

import Foundation
import Testing

enum DebugLibrary {
  static let path: String = {
    let fast = URL(fileURLWithPath: Library.path)
    return fast.deletingLastPathComponent().path + "/libkegmalloc-debug.so"
  }()

  static let isUsable = Library.isOurs && access(path, R_OK) == 0
}

/// What the line with the totals says, kind by kind: bytes, blocks.
struct LeakVerdict: Equatable, CustomStringConvertible {
  struct Amount: Equatable {
    var bytes = 0
    var blocks = 0
  }
  var definite = Amount()
  var indirect = Amount()
  var cycle = Amount()
  var stack = Amount()
  /// nil: not looked at. A running thread's table of TLS counts, for one.
  var reachable: Amount?

  static func lost(_ bytes: Int, _ blocks: Int = 1) -> Self {
    Self(definite: Amount(bytes: bytes, blocks: blocks))
  }
  static let nothing = Self()

  func indirect(_ bytes: Int, _ blocks: Int) -> Self {
    var copy = self
    copy.indirect = Amount(bytes: bytes, blocks: blocks)
    return copy
  }
  func cycle(_ bytes: Int, _ blocks: Int) -> Self {
    var copy = self
    copy.cycle = Amount(bytes: bytes, blocks: blocks)
    return copy
  }
  func stack(_ bytes: Int, _ blocks: Int = 1) -> Self {
    var copy = self
    copy.stack = Amount(bytes: bytes, blocks: blocks)
    return copy
  }
  func reachable(_ bytes: Int, _ blocks: Int = 1) -> Self {
    var copy = self
    copy.reachable = Amount(bytes: bytes, blocks: blocks)
    return copy
  }

  var hasLeaks: Bool { definite.blocks + indirect.blocks + cycle.blocks > 0 }

  init(
    definite: Amount = Amount(), indirect: Amount = Amount(), cycle: Amount = Amount(),
    stack: Amount = Amount(), reachable: Amount? = nil
  ) {
    self.definite = definite
    self.indirect = indirect
    self.cycle = cycle
    self.stack = stack
    self.reachable = reachable
  }

  /// The totals of every check that `text` reports, in order.
  static func all(in text: String) -> [Self] {
    text.split(separator: "\n").filter { $0.hasPrefix("kegmalloc: leaks of process") }.map { line in
      func amount(_ kind: String) -> Amount {
        guard let range = line.range(of: " \(kind) ") else { return Amount(bytes: -1, blocks: -1) }
        let words = line[range.upperBound...].split(separator: " ")
        return Amount(bytes: Int(words[0]) ?? -1, blocks: Int(words[3]) ?? -1)
      }
      return Self(
        definite: amount("definite"), indirect: amount("indirect"), cycle: amount("cycle"),
        stack: amount("stack"), reachable: amount("reachable"))
    }
  }

  func matches(_ other: Self) -> Bool {
    var copy = self
    if other.reachable == nil { copy.reachable = nil }
    return copy == other
  }

  var description: String {
    "definite \(definite) indirect \(indirect) cycle \(cycle) stack \(stack) reachable \(String(describing: reachable))"
  }
}

private func runDebug(
  _ command: [String], options: String = "leak_show:reachable", timeout: Double = 120
) throws -> Outcome {
  try run(
    command, environment: ["LD_PRELOAD": DebugLibrary.path, "KEGMALLOC_CONF": options],
    preload: false, timeout: timeout)
}

/// Runs a scenario; its checks must find `verdicts`, and the status must follow.
private func expectVerdicts(
  _ program: String, _ scenario: [String], _ verdicts: [LeakVerdict],
  sourceLocation: SourceLocation = #_sourceLocation
) throws {
  let outcome = try runDebug([program] + scenario)
  let found = LeakVerdict.all(in: outcome.stderr)
  let isRight = found.count == verdicts.count && zip(found, verdicts).allSatisfy { $0.matches($1) }
  outcome.expect(isRight, "\(scenario): found \(found), not \(verdicts)", sourceLocation)
  let status: Int32 = verdicts.last?.hasLeaks ?? false ? 99 : 0
  outcome.expect(outcome.status == .exited(status), "\(scenario): status", sourceLocation)
}

extension Trait where Self == ConditionTrait {
  static var debugPresent: Self {
    .enabled(if: DebugLibrary.isUsable, "\(DebugLibrary.path) is not built")
  }
}

@Suite("Leaks", .debugPresent)
struct LeakTests {
  private let program: String
  private let library: String

  init() throws {
    program = try Fixture.build("leaks")
    library = try Fixture.build(
      "leaks_library", output: "libleaks_library.so", flags: ["-shared", "-fPIC"])
  }

  static let held: [(String, LeakVerdict)] = [
    ("kept", .nothing.reachable(264, 2)), ("main-local", .nothing.reachable(72)),
    ("main-specific", .nothing.reachable(72)), ("mapped", .nothing.reachable(72)),
    ("mapped-shared", .nothing.reachable(72)), ("break", .nothing.reachable(72)),
    ("sealed", .nothing.reachable(1152, 5)),
    ("in-large", .nothing.reachable((256 << 20) + 72, 2)), ("open", .nothing),
    ("coroutine", .nothing.reachable(72)), ("environment", .nothing.reachable(0, 0)),
    ("result", .nothing.reachable(88)), ("thread-local", .nothing),
    ("thread-specific", .nothing), ("dynamic-tls", .nothing),
  ]
  @Test("what is held is not lost", arguments: held)
  func isHeld(scenario: String, verdict: LeakVerdict) throws {
    try expectVerdicts(program, [scenario, library], [verdict])
  }

  static let lost: [(String, LeakVerdict)] = [
    ("lost", .lost(120, 3).reachable(0, 0)), ("overwritten", .lost(100).reachable(50)),
    ("list", .lost(32).indirect(288, 9)), ("tree", .lost(32).indirect(224, 7)),
    ("ring", .nothing.cycle(96, 3).indirect(48, 3)),
    ("two-rings", .nothing.cycle(192, 6).indirect(32, 1)), ("self", .lost(32)),
    ("past-end", .lost(64)), ("moved", .lost(200)), ("nothing-asked", .lost(0)),
    ("signal-stacks", .lost(8192)), ("events", .lost(40).reachable(7288, 101)),
    ("large", .lost(1 << 20).reachable(3 << 20)), ("aligned", .lost(100)),
    ("returned-stack", .lost(72)), ("unmapped", .lost(72)), ("closed", .lost(72)),
    ("ended", .lost(72)), ("ended-detached", .lost(72)), ("dynamic-tls-ended", .lost(73)),
    ("argument-lost", .lost(24).reachable(88)), ("main-left", .lost(64, 2)),
    ("mapped-large", .lost(40).reachable(72)), ("mapped-holes", .lost(40).reachable(72)),
  ]
  @Test("what is lost is found, to the byte and the kind", arguments: lost)
  func isLost(scenario: String, verdict: LeakVerdict) throws {
    try expectVerdicts(program, [scenario, library], [verdict])
  }

  @Test(
    "what only a stack or a register holds is its own kind, and no error",
    arguments: [
      "stack", "register", "thread-register", "thread-vector", "thread-frame", "heap-stack",
    ])
  func isOnStack(scenario: String) throws {
    try expectVerdicts(program, [scenario], [.nothing.stack(72)])
  }

  static let left: [(String, LeakVerdict)] = [
    ("exit", .lost(72)), ("_exit", .lost(72)), ("quick_exit", .lost(72)),
    ("thread-exit", .lost(72)), ("waiting", .lost(288, 4)), ("first-left", .lost(72)),
    ("deleted-keys", .lost(72, 2)), ("idle-stack", .lost(72)),
    ("kept-array", .nothing.stack(72)), ("kept-variables", .nothing.stack(72, 2)),
    ("kept-waiting", .nothing.stack(144, 2)),
  ]
  @Test("what functions that have returned left on a stack holds nothing", arguments: left)
  func isLeftOver(scenario: String, verdict: LeakVerdict) throws {
    // Optimised code keeps in registers what other code keeps in its frames.
    for level in ["-O0", "-O2"] {
      let program = try Fixture.build("leaks_left", output: "leaks_left\(level)", flags: [level])
      try expectVerdicts(program, [scenario], [verdict])
    }
  }

  @Test("threads in the middle of malloc, free and realloc are stopped")
  func running() throws {
    let outcome = try runDebug([program, "running"])
    let found = LeakVerdict.all(in: outcome.stderr)
    outcome.expect(found.count == 1 && found[0].definite == .init(bytes: 40, blocks: 1), "running")
    outcome.expect(found.first.map { $0.indirect.blocks + $0.cycle.blocks == 0 } ?? false, "running")
  }

  @Test("a thread that blocks every signal is named, and holds what its stack holds")
  func defiant() throws {
    let outcome = try runDebug([program, "defiant"])
    let found = LeakVerdict.all(in: outcome.stderr)
    outcome.expect(found.count == 1 && found[0].matches(.lost(40).stack(72)), "\(found)")
    outcome.expect(outcome.stderr.contains("kegmalloc: leaks: 1 threads could not be stopped"))
  }

  @Test("where ptrace and clone are forbidden")
  func sandboxed() throws {
    try expectVerdicts(program, ["sandboxed"], [.lost(40).stack(72)])
    try expectVerdicts(program, ["sandboxed-request"], [.nothing, .lost(40)])
  }

  @Test("where a handler of the program's answers calls")
  func trapped() throws { try expectVerdicts(program, ["trapped"], [.lost(40)]) }

  @Test("in a chroot without /proc", .enabled(if: geteuid() == 0, "chroot needs root"))
  func withoutProc() throws {
    try expectVerdicts(program, ["without-proc"], [.lost(112, 2).stack(72)])
  }

  @Test("a child reports its own; one that leaves by _exit says nothing")
  func children() throws {
    try expectVerdicts(program, ["child"], [.lost(56), .nothing])
    try expectVerdicts(program, ["child-of-threads"], [.lost(56).reachable(72), .nothing.stack(72)])
    try expectVerdicts(program, ["child-execs"], [.lost(40)])
    try expectVerdicts(program, ["leaves-at-once"], [.lost(40).stack(72)])
  }

  @Test("keg_leak_check looks at what came since keg_leak_mark")
  func marked() throws {
    try expectVerdicts(
      program, ["marked"], [.lost(40, 2).reachable(30), .nothing, .lost(50, 3).reachable(30)])
  }

  @Test("keg_leak_request answers in a file while the program runs")
  func requested() throws {
    let scratch = try Scratch()
    try expectVerdicts(program, ["requested", scratch.path + "/report"], [.lost(112, 2)])
  }

  @Test("option leak_signal")
  func signalled() throws {
    let scratch = try Scratch()
    let log = scratch.path + "/log"
    let outcome = try runDebug([program, "signalled", log], options: "leak_signal:10,log_file:\(log)")
    outcome.expect(outcome.status == .exited(99) && outcome.stderr.isEmpty)
    let found = LeakVerdict.all(in: try String(contentsOfFile: log, encoding: .utf8))
    #expect(found.count == 2 && found.allSatisfy { $0.matches(.lost(40)) })
  }

  @Test("no system call of a program that goes on ends with EINTR")
  func interrupted() throws {
    let outcome = try runDebug([program, "interrupted"])
    outcome.expect(outcome.succeeded, "interrupted")
  }

  @Test("leak_check:off, and exit_code:0")
  func options() throws {
    let off = try runDebug([program, "lost"], options: "leak_check:off")
    off.expect(off.succeeded && off.stderr.isEmpty, "off")
    let own = try runDebug([program, "overwritten"], options: "exit_code:0")
    own.expect(own.succeeded && own.stderr.contains("kegmalloc: ERROR: leak: definite: 100 bytes"), "own status")
  }

  @Test("the report names kind, amount, address and the function that allocated")
  func report() throws {
    let outcome = try runDebug([program, "list"], options: "leak_check:exit")
    let lines = outcome.stderr.split(separator: "\n")
    let first = lines.first { $0.hasPrefix("kegmalloc: ERROR: leak: definite: 32 bytes in 1 block at 0x") }
    outcome.expect(first != nil, "first line")
    outcome.expect(lines.contains { $0.contains("#0 0x") && $0.contains(program) }, "frame")
  }

  @Test("the JSON report has one object for each stack and kind")
  func json() throws {
    let scratch = try Scratch()
    let file = scratch.path + "/report"
    _ = try runDebug([program, "ring"], options: "json_file:\(file)")
    let objects = try String(contentsOfFile: file, encoding: .utf8).split(separator: "\n").map {
      try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any]
    }
    let leaks = objects.filter { $0?["kind"] as? String == "leak" }
    #expect(Set(leaks.compactMap { $0?["leak"] as? String }) == ["cycle", "indirect"])
    #expect(leaks.reduce(0) { $0 + (($1?["bytes"] as? Int) ?? 0) } == 144)
    #expect(objects.last??["kind"] as? String == "summary" && objects.last??["leaks"] as? Int == 6)
  }
}

@Suite("Leaks of C++", .debugPresent)
struct LeakCxxTests {
  static let scenarios: [(String, LeakVerdict)] = [
    ("clean", .nothing), ("cookie", .nothing.reachable(8 + 3 * 32 + 3 * 46, 4)),
    ("lost-cookie", .lost(8 + 3 * 32).indirect(3 * 46, 3)),
    ("map", .nothing.cycle(48 + 100 * 40, 101)), ("vector", .lost(24).indirect(80 + 40, 11)),
    ("ring", .nothing.cycle(64, 2)),
  ]
  @Test("containers, cookies, exceptions", arguments: scenarios)
  func cxx(scenario: String, verdict: LeakVerdict) throws {
    try expectVerdicts(try Fixture.build("leaks_cxx"), [scenario], [verdict])
  }
}

@Suite("Leaks of real programs", .debugPresent)
struct LeakProgramTests {
  static let commands: [[String]] = [
    ["ls", "-l", "/"], ["git", "--version"], ["bash", "-c", "x=$(echo a | cat); echo $x"],
    ["sqlite3", ":memory:", "create table t(a); insert into t values(1); select * from t"],
    ["python3", "-c", "import json, threading; print(json.dumps([1, 2]))"],
  ]
  @Test("none where valgrind finds none", arguments: commands)
  func clean(command: [String]) throws {
    guard let program = findProgram(command[0] == "python3" ? "/usr/bin/python3" : command[0]) else { return }
    let outcome = try runDebug([program] + command.dropFirst())
    outcome.expect(outcome.succeeded, "\(command)")
    outcome.expect(LeakVerdict.all(in: outcome.stderr).allSatisfy { !$0.hasLeaks }, "\(command)")
  }
}
