// ZoneAPITests.swift: kegmalloc.h as a C program uses it, one test an id of the feature
// list. Each fixture runs linked to the library, as pkg-config says, and a second time
// with the library under test preloaded: then there must be one allocator.

import Foundation
import Testing

@Suite("Zone API", .libraryPresent, .ours)
struct ZoneAPITests {
  /// What pkg-config says for the library in out/, and where the loader finds it.
  static let flags: [String] = {
    let out = Repository.root + "/out"
    let asked = try? run(
      ["pkg-config", "--define-variable=prefix=\(out)", "--cflags", "--libs", "kegmalloc"],
      environment: ["PKG_CONFIG_PATH": out + "/lib/pkgconfig"], preload: false)
    let words = asked?.stdout.split(whereSeparator: \.isWhitespace).map(String.init) ?? []
    return words + ["-Wl,-rpath,\(out)/lib"]
  }()

  /// Runs a test of a fixture linked, and linked and preloaded; both must print `ok`.
  func passes(
    _ fixture: String, _ arguments: [String], stderr: (String) -> Bool = { $0.isEmpty },
    environment: [String: String?] = [:], sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let binary = try Fixture.build(fixture, flags: Self.flags)
    for preload in [false, true] {
      let outcome = try run(
        [binary] + arguments, environment: environment, preload: preload, timeout: 120)
      outcome.expect(
        outcome.succeeded && outcome.stdout.hasSuffix("ok\n") && stderr(outcome.stderr),
        "\(fixture) \(arguments.joined(separator: " "))\(preload ? ", preloaded" : "")",
        sourceLocation)
    }
  }

  @Test(
    "what zones are made of",
    arguments: [
      "names", "hooks", "argument", "zero", "cache", "secondary", "nofree", "foreach", "churn", "crowd",
      "refcnt", "notouch", "backend", "watermarks", "nodump", "arguments", "threads", "reclaim", "trim",
    ])
  func zones(test: String) throws { try passes("zones", [test]) }

  @Test("U33, D10: destroy refuses a zone in use, and lists what is", arguments: [
    ("destroy", "zone leaky is not empty: 2 items in use: 0x", 1),
    ("allfini", "zone allfini is not empty: 3 items in use: 0x", 2),
    ("allfini_of_100", "zone hundred is not empty: 3 items in use: 0x", 1),
  ])
  func destroy(test: String, line: String, times: Int) throws {
    try passes("zones", [test], stderr: { text in
      let lines = text.split(separator: "\n")
      // Each item that is in use, and no other.
      let items = line.contains("2 items") ? 2 : 3
      return lines.count == times && lines.allSatisfy {
        $0.hasPrefix("kegmalloc: " + line) && $0.components(separatedBy: " 0x").count == items + 1
      }
    })
  }

  @Test("U34, U35: reserves and what is made in advance")
  func reserves() throws { try passes("zones", ["reserves"], stderr: { _ in true }) }

  @Test("misuse ends the process with a line that says what it was", arguments: [
    ("wrong_zone", "invalid free of 0x", "(zone b)"),
    ("wrong_zone_later", "invalid free of 0x", "(zone b)"), ("double_free", "double free of 0x", "(zone a)"),
    ("interior", "invalid free of 0x", "(zone a)"),
    ("by_free", "free(3) of an item of a zone, which keg_zone_free takes, 0x", "(zone a)"),
    ("destroyed", "use of a destroyed zone at 0x", ""),
    ("null_item", "NULL among items that are freed, at 0x", "(zone a)"),
  ])
  func misuse(test: String, line: String, end: String) throws {
    let binary = try Fixture.build("zones", flags: Self.flags)
    let outcome = try run([binary, test])
    outcome.expect(
      outcome.status == .killed(signal: SIGABRT) && outcome.stderr.hasPrefix("kegmalloc: " + line)
        && outcome.stderr.hasSuffix(end + "\n"), test)
  }

  @Test("NULL for a zone: a fault where the array is looked at first, else a line and the end")
  func nullZone() throws {
    try passes("zones", ["null_zone"], stderr: { text in
      let lines = text.split(separator: "\n")
      return lines.count == 21 && lines.allSatisfy { $0 == "kegmalloc: call for a zone that is NULL" }
    })
  }

  @Test(
    "limits, and who waits at them",
    arguments: ["max", "malloc", "waiters", "fifo", "timeouts", "wait", "others", "drain_hook", "novm"])
  func limits(test: String) throws { try passes("zone_limits", [test]) }

  @Test("U38: the warning is printed once in 300 s")
  func warning() throws {
    try passes("zone_limits", ["warning"], stderr: {
      $0 == "kegmalloc: [zone: warned] too many of them\n"
    })
  }

  @Test("D09: both or neither of WAITOK and NOWAIT: ten warnings at most")
  func flags() throws {
    try passes("zone_limits", ["flags"], stderr: { text in
      let lines = text.split(separator: "\n")
      return lines.count == 10
        && lines.allSatisfy { $0.hasPrefix("kegmalloc: zone flags: allocation with ") }
    })
  }

  @Test("the limit of the process, by call and by option")
  func process() throws {
    try passes("zone_limits", ["process", "call"])
    try passes("zone_limits", ["process", "option"], environment: ["KEGMALLOC_CONF": "limit:64"])
  }

  @Test("L09: one in n allocations fails, by call and by option", arguments: ["zone", "all", "option"])
  func failures(kind: String) throws {
    try passes(
      "zone_limits", ["failures", kind],
      environment: kind == "option" ? ["KEGMALLOC_CONF": "mtbf:2"] : [:])
  }

  @Test(
    "what cannot fail, and bulk calls",
    arguments: [
      ["prefill"], ["prefill", "constructed"], ["sheaf", "memory"], ["sheaf", "limit"], ["handler"], ["constructed"], ["bulk"],
      ["capacity"],
    ])
  func guarantees(test: [String]) throws { try passes("zone_guarantees", test) }

  @Test(
    "without memory or the kernel: U34, P03, U29, U39, U41",
    arguments: ["reserve", "drain_hook", "buffer", "novm", "recovers"])
  func denied(test: String) throws { try passes("zone_denied", [test]) }

  @Test("U44: every leaf of every zone can be read, and figures add up")
  func control() throws { try passes("zone_control", []) }

  /// Instructions of one round of the `counted` test, by callgrind. Without a search that
  /// slow paths make for want of rseq, which valgrind does not have (Malloc/Signals.swift).
  private func instructions(_ kind: String, size: Int = 64) throws -> Int {
    let binary = try Fixture.build("zone_guarantees", flags: Self.flags)
    func total(_ rounds: Int) throws -> Int {
      let outcome = try run(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*searchStack*",
          "--collect-atstart=yes", binary, "counted", kind, "\(rounds)", "\(size)"],
        preload: false, timeout: 120)
      let line = outcome.stderr.split(separator: "\n").first { $0.contains("Collected") }
      guard let count = line?.split(separator: " ").last.flatMap({ Int($0) }) else {
        throw HarnessError("callgrind: \(outcome.report)")
      }
      return count
    }
    return try (total(110) - total(10)) / 100
  }

  @Test(
    "a zone's items cost no more than malloc's, 64 at a time and one by one",
    .enabled(if: findProgram("valgrind") != nil),
    arguments: [16, 64, 512, 2048, 8192, 32768, 65536, 131_072, 400_000, 1 << 20], ["", "-pair"])
  func cost(size: Int, kind: String) throws {
    let zone = try instructions(kind == "" ? "loop" : "pair", size: size)
    let malloc = try instructions("malloc" + kind, size: size)
    #expect(zone > 0 && zone <= malloc, "instructions for 64 pairs: zone \(zone), malloc \(malloc)")
  }

  @Test("constructor and destructor add their calls", .enabled(if: findProgram("valgrind") != nil))
  func hooks() throws {
    let hooks = try instructions("hooks")
    let byHand = try instructions("by-hand")
    // What saves registers around the calls.
    #expect(hooks <= byHand + 64 * 32, "instructions for 64 pairs: hooks \(hooks), called by hand \(byHand)")
  }

  @Test("S09: taking an item of a sheaf is one fetch-and-subtract, no loop and no call")
  func take() throws {
    let text = try run(
      ["objdump", "-d", "--no-show-raw-insn", "--disassemble=keg_sheaf_take", Library.path], preload: false
    ).stdout
    let body = text.components(separatedBy: "<keg_sheaf_take>:").last ?? ""
    let words = body.split(whereSeparator: { $0 == " " || $0 == "\t" || $0 == "\n" })
    #expect(words.count(where: { $0 == "lock" }) == 1 && words.contains("xadd"), "\(body)")
    #expect(!words.contains("call") && !words.contains("cmpxchg"), "\(body)")
  }

  @Test(
    "S12: 64 items in bulk cost a third of the loop or less", .enabled(if: findProgram("valgrind") != nil),
    arguments: ["", "-slabs"])
  func bulk(from: String) throws {
    let bulk = try instructions("bulk" + from)
    let loop = try instructions("loop" + from)
    #expect(3 * bulk <= loop, "instructions for 64 pairs: bulk \(bulk), loop \(loop)")
  }
}
