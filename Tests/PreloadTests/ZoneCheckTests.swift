// ZoneCheckTests.swift: zones under the debug library: each misuse is one report of the
// right class with the right functions in its stacks, and what is right is not reported.

import Foundation
import Testing

@Suite("Zones, checked", .enabled(if: DebugLibrary.isUsable))
struct ZoneCheckTests {
  func outcome(_ fixture: String, _ arguments: [String]) throws -> Outcome {
    let binary = try Fixture.build(fixture, flags: ZoneAPITests.flags)
    return try run(
      [binary] + arguments,
      environment: ["LD_PRELOAD": DebugLibrary.path, "KEGMALLOC_CONF": "leak_check:off"], preload: false,
      timeout: 120)
  }

  /// The function that each stack of the first report begins with, by the stack's title.
  func functions(_ text: String) -> [String: String] {
    var found: [String: String] = [:]
    var title = ""
    for line in text.split(separator: "\n") {
      if line.hasPrefix("  "), line.contains(" by thread ") {
        title = String(line.split(separator: " ")[0])
      } else if line.hasPrefix("    #0 "), found[title] == nil {
        found[title] = line.split(separator: " ")[2].split(separator: "+").first.map(String.init)
      }
    }
    return found
  }

  @Test("misuse is reported once, with who allocated, freed and erred", arguments: [
    ("wrong_zone", "zone: item of another zone freed", "sell", "buy", nil),
    ("twice", "double-free: second free of an item of a zone", "sell", "buy", "sell"),
    ("interior", "zone: free of a pointer that is not the start of an item", "sell", "buy", nil),
    ("stranger", "zone: free of an item that the zone never gave", "sell", nil, nil),
    ("of_malloc", "zone: memory of malloc given to keg_zone_free", "sell", "of_malloc", nil),
    ("by_free", "zone: item of a zone given to free", "discard", "buy", nil),
    ("after_free", "use-after-free: write to a freed item of a zone", "buy", "buy", "sell"),
    ("in_use", "zone: item in use in a zone that is destroyed", "shut", "buy", nil),
    ("flags", "zone: allocation with neither KEG_WAITOK nor KEG_NOWAIT", "flags", nil, nil),
  ] as [(String, String, String, String?, String?)])
  func misuse(test: String, line: String, detected: String, allocated: String?, freed: String?) throws {
    let outcome = try outcome("zone_misuse", [test])
    let errors = outcome.stderr.split(separator: "\n").filter { $0.hasPrefix("kegmalloc: ERROR: ") }
    // Five items of one stack are one finding.
    outcome.expect(
      errors.count == 1 && errors[0].hasPrefix("kegmalloc: ERROR: \(line) at 0x")
        && outcome.status == .exited(99) && outcome.stdout == "ok\n", test)
    let functions = functions(outcome.stderr)
    #expect(functions["detected"] == detected && functions["allocated"] == allocated && functions["freed"] == freed)
    if allocated == "buy" { outcome.expect(outcome.stderr.contains("64 bytes by keg_zone_alloc at 0x"), test) }
  }

  @Test("reports name the zone, and the one that the item was given to")
  func names() throws {
    let outcome = try outcome("zone_misuse", ["wrong_zone"])
    outcome.expect(outcome.stderr.contains(", offset 0, zone apples, given to zone pears\n"))
  }

  @Test("the use of a destroyed zone is reported before it ends the process")
  func destroyed() throws {
    let outcome = try outcome("zones", ["destroyed"])
    outcome.expect(
      outcome.status == .killed(signal: SIGABRT)
        && outcome.stderr.hasPrefix("kegmalloc: ERROR: zone: use of a destroyed zone at 0x")
        && functions(outcome.stderr)["detected"] == "destroyed")
  }

  @Test("what is right is not reported", arguments: [
    ("zone_misuse", "clean"), ("zones", "hooks"), ("zones", "cache"), ("zones", "secondary"),
    ("zones", "nofree"), ("zones", "foreach"), ("zones", "churn"), ("zones", "refcnt"),
    ("zones", "notouch"), ("zones", "backend"), ("zones", "threads"), ("zone_limits", "waiters"),
    ("zone_limits", "others"), ("zone_guarantees", "handler"), ("zone_guarantees", "bulk"),
    ("zone_guarantees", "sheaf"),
  ])
  func clean(fixture: String, test: String) throws {
    let outcome = try outcome(fixture, test == "sheaf" ? [test, "limit"] : [test])
    outcome.expect(outcome.succeeded && outcome.stdout == "ok\n" && outcome.stderr.isEmpty, test)
  }
}
