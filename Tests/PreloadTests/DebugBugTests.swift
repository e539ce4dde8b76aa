// DebugBugTests.swift: every class of bug is found and named by the debug library, in C
// and C++, in small, page-sized and large blocks, from the same and another thread; and
// the same program without a bug is left in peace.

import Foundation
import Testing

@Suite("Debug bugs", .enabled(if: DebugLibrary.isUsable, "the debug library is not built"))
struct DebugBugTests {
  static let classes = ["double-free", "invalid-free", "use-after-free", "overflow", "underflow"]

  /// Runs the fixture and returns how it ended.
  func runBug(
    _ fixture: String, _ kind: String, _ size: Int, _ thread: String, conf: String = ""
  ) throws -> Outcome {
    let settings = ["leak_check:off", conf].filter { !$0.isEmpty }.joined(separator: ",")
    return try run(
      [try Fixture.build(fixture), kind, String(size), thread],
      environment: ["LD_PRELOAD": DebugLibrary.path, "KEGMALLOC_CONF": settings])
  }

  @Test("each class, named, with the functions that allocated and freed", arguments: classes)
  func found(kind: String) throws {
    for fixture in ["debug_bugs", "debug_bugs_cxx"] {
      for size in [40, 4096, 200_000] {
        for thread in ["same", "other"] {
          let outcome = try runBug(fixture, kind, size, thread)
          let what = "\(fixture) \(kind) \(size) \(thread)"
          outcome.expect(outcome.status == .exited(99), what)
          outcome.expect(outcome.stderr.hasPrefix("kegmalloc: ERROR: \(kind): "), what)
          outcome.expect(outcome.stderr.components(separatedBy: "ERROR").count == 2, what)
          outcome.expect(outcome.stderr.contains("allocating"), what)
          if kind == "double-free" || kind == "use-after-free" {
            outcome.expect(outcome.stderr.contains("freeing"), what)
          }
        }
      }
    }
  }

  @Test("without a bug nothing is said", arguments: ["", "guard:right", "guard:left", "sample:2"])
  func silent(conf: String) throws {
    for fixture in ["debug_bugs", "debug_bugs_cxx"] {
      for size in [0, 1, 40, 4096, 65536, 200_000] {
        let outcome = try runBug(fixture, "none", size, "other", conf: conf)
        outcome.expect(
          outcome.succeeded && outcome.stdout == "ok\n" && outcome.stderr == "", "\(conf) \(size)")
      }
    }
  }

  @Test("guard pages stop a write where it happens", arguments: ["right", "left"])
  func guarded(side: String) throws {
    for kind in ["use-after-free", side == "right" ? "overflow" : "underflow"] {
      for size in [40, 4096, 200_000] {
        let outcome = try runBug("debug_bugs", kind, size, "same", conf: "guard:\(side)")
        outcome.expect(outcome.status == .killed(signal: 11), "\(kind) \(size)")
        outcome.expect(outcome.stderr.hasPrefix("kegmalloc: ERROR: \(kind): "), "\(kind) \(size)")
        outcome.expect(outcome.stderr.contains("faulting"), "\(kind) \(size)")
      }
    }
  }
}
