// DebugStormTests.swift: threads and forks under the debug library: programs without a
// bug that must run to their end and hear nothing.

import Foundation
import Testing

@Suite("Debug storms", .enabled(if: DebugLibrary.isUsable, "the debug library is not built"))
struct DebugStormTests {
  private func runDebug(
    _ fixture: String, _ arguments: [String] = [], conf: String? = nil
  ) throws -> Outcome {
    try run(
      [try Fixture.build(fixture)] + arguments,
      environment: [
        "LD_PRELOAD": DebugLibrary.path, "KEGMALLOC_CONF": conf,
      ], timeout: 120)
  }

  private func expectSilence(_ fixture: String, _ arguments: [String], conf: String? = nil) throws {
    let outcome = try runDebug(fixture, arguments, conf: conf)
    outcome.expect(
      outcome.succeeded && outcome.stdout.hasSuffix("ok\n") && outcome.stderr == "",
      "\(fixture) \(arguments)")
  }

  @Test(
    "threads on small and strange stacks, cancelled, and left by the first one",
    arguments: ["small-stacks", "contexts", "cancellation", "main-leaves-first", "exit-while-running"])
  func threads(name: String) throws { try expectSilence("threads", [name]) }

  @Test("small stacks with guard pages", arguments: ["right", "left"])
  func guarded(side: String) throws {
    try expectSilence("threads", ["small-stacks"], conf: "guard:\(side),guard_limit:64")
  }

  @Test("forks among allocating threads: no child reports what other threads held")
  func forks() throws { try expectSilence("fork_storm", ["40"]) }

  @Test(
    "vfork, posix_spawn, and children that no fork handler saw",
    arguments: ["vfork", "posix_spawn", "_Fork", "clone", "orphans"])
  func spawns(kind: String) throws { try expectSilence("fork_kinds", [kind]) }

  @Test(
    "forks and the end among threads that end and give memory back; handlers over fork",
    arguments: ["forks", "exit", "handlers"])
  func among(what: String) throws {
    // A finding here was one run in fifty.
    for _ in 0..<(what == "exit" ? 20 : 1) {
      try expectSilence("debug_storms", [what], conf: "quarantine:1,decay_ms:10")
    }
  }

  @Test("of two threads that end the process at once, the second waits for the report")
  func ends() throws {
    for _ in 0..<10 {
      let outcome = try runDebug("debug_storms", ["two-ends"])
      outcome.expect(
        outcome.status == .exited(99) && outcome.stdout == "ok\n"
          && outcome.stderr.contains("ERROR: leak: definite: 77 bytes in 1 block"))
    }
  }

  @Test("threads whose first call comes when pthread has let go of them")
  func late() throws { try expectSilence("debug_storms", ["late"]) }
}
