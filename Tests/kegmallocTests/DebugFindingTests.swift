import Foundation
import Testing

@testable import kegmalloc

@Suite("Debug: findings and their text")
struct DebugFindingTests {
  let stack = Canned.stack([Canned.frame("/bin/prog", 0x1010, "work"), Canned.frame("/bin/prog", 0x2020, "main")])

  @Test("a finding has the fixed first line, its facts, its stacks and its bytes")
  func text() throws {
    var reports: [String] = []
    let line = Canned.finding(
      "overflow", what: "a byte past the end was written", offset: 24,
      stacks: ["detected": stack, "allocated": stack, "freed": Canned.stack([])],
      bytes: Canned.bytes)
    _ = try findingLog([line.replacingOccurrences(of: "\"size\":40", with: "\"size\":24")]) {
      reports.append(ReportText(workingDirectory: "/src").report($0))
    }
    #expect(
      reports == [
        """
        kegmalloc: ERROR: overflow: a byte past the end was written at 0x7f0000001000
          process 10, thread 2: 24 bytes by new[] at 0x7f0000001000, offset 24, zone malloc-64, after 1,234 ms
          detected by thread 1:
            #0 0x550000001010 work (/bin/prog+0x1010)
            #1 0x550000002020 main (/bin/prog+0x2020)
          allocated by thread 1:
            #0 0x550000001010 work (/bin/prog+0x1010)
            #1 0x550000002020 main (/bin/prog+0x2020)
          bytes, [damaged], | start and end of the block:
            0x7f0000000ff0  fe fe fe fe fe fe fe fe fe fe fe fe fe fe fe fe
            0x7f0000001000 |61 61 61 61 61 61 61 61 61 61 61 61 61 61 61 61
            0x7f0000001010  61 61 61 61 61 61 61 61|[00] 9b 9b 9b 9b 9b 9b 9b

        """
      ])
  }

  @Test("inlined functions are frames, innermost first, with demangled names")
  func inlining() throws {
    let symbols = FixedSymbols()
    symbols.answers[0x1010] = [
      SymbolizedFrame(function: "inner", file: "/src/a.cc", line: 3, column: 7),
      SymbolizedFrame(function: "_Z5outeri", start: 0x1000, file: "/src/a.cc", line: 9, column: 1),
    ]
    let frames = Canned.stack([Canned.frame("/bin/prog", 0x1010, "_Z5outeri")])
    let log = try findingLog([Canned.leak(stack: frames)], symbols: symbols)
    let named = try #require(log.findings.first?.stacks.allocated?.frames)
    #expect(named.map(\.function) == ["inner", "outer(int)"])
    #expect(named.map(\.linkage) == [nil, "_Z5outeri"])
    #expect(named.map(\.inlined) == [true, nil])
    #expect(named.last?.distance == 0x10)
    let text = ReportText(workingDirectory: "/src")
    #expect(text.line(named[0]) == "0x550000001010 inner a.cc:3:7 (inlined)")
    #expect(text.line(named[1]) == "0x550000001010 outer(int) a.cc:9:1")
  }

  @Test("the allocator's own frames and what starts the program are not shown")
  func cutting() throws {
    let frames = [
      Canned.frame("/opt/lib/libkegmalloc-debug.so", 1, "keg_debug_malloc"),
      Canned.frame("/bin/prog", 2, "_Znwm"), Canned.frame("/bin/prog", 0x30, "work"),
      Canned.frame("/bin/prog", 0x40, "main"), Canned.frame("/lib/libc.so.6", 5, "__libc_start_main_impl"),
      Canned.frame("/bin/prog", 0x60, "_start"),
    ]
    let log = try findingLog([Canned.leak(stack: Canned.stack(frames))])
    let stack = try #require(log.findings.first?.stacks.allocated)
    #expect(ReportText().shown(stack).map(\.function) == ["work", "main"])
  }

  @Test("the same finding again is counted, from other addresses, processes and sides")
  func merging() throws {
    let double = Canned.finding(stacks: ["detected": stack, "freed": stack])
    var fresh = 0
    let log = try findingLog(
      [
        double, double.replacingOccurrences(of: "\"pid\":10", with: "\"pid\":11"),
        double.replacingOccurrences(of: "0x55", with: "0x56"),
        Canned.finding("invalid-free", stacks: ["detected": stack]),
      ]) { _ in fresh += 1 }
    #expect(log.findings.count == 2 && fresh == 2)
    #expect(log.findings[0].count == 3 && log.findings[0].pids == [10, 11])
    log.guardSide = "left"
    log.add(line: Data(double.utf8))
    #expect(log.findings[0].count == 4)
  }

  @Test("damage found late is one finding wherever it is found; faults are told apart")
  func identity() throws {
    let other = Canned.stack([Canned.frame("/bin/prog", 0x3030, "other")])
    func lines(fault: Bool) -> [String] {
      [stack, other].map {
        Canned.finding("use-after-free", fault: fault, stacks: ["detected": $0, "allocated": stack])
      }
    }
    #expect(try findingLog(lines(fault: false)).findings.count == 1)
    #expect(try findingLog(lines(fault: true)).findings.count == 2)
  }

  @Test("the library counts repeated findings at the end")
  func repeated() throws {
    let log = try findingLog([
      Canned.finding(stacks: ["detected": stack]),
      #"{"kind":"repeated","pid":10,"id":3,"class":"double-free","count":5}"#,
      #"{"kind":"repeated","pid":11,"id":3,"class":"double-free","count":5}"#,
    ])
    #expect(log.findings.map(\.count) == [5] && log.damagedLines == 0)
  }

  @Test("a forked child repeats its parent's leaks: the same items, not more")
  func forkedLeaks() throws {
    let log = try findingLog(
      [
        Canned.leak(bytes: 100, count: 2, pid: 10, stack: stack),
        Canned.leak(bytes: 100, count: 2, pid: 11, stack: stack),
        Canned.leak("reachable", bytes: 7, count: 1, stack: stack),
      ])
    #expect(log.findings.map(\.leakedBytes) == [100, 7])
    #expect(log.findings[0].pids == [10, 11])
    #expect(log.findings.map(\.isError) == [true, false])
    #expect(log.errorCount == 1)
  }

  @Test("items that are not lost are notes, and those that a stack holds are shown when asked for")
  func notes() throws {
    let log = try findingLog(["definite", "stack", "reachable"].map { Canned.leak($0, stack: stack) })
    let text = ReportText()
    #expect(
      log.findings.map { text.report($0).prefix { $0 != "\n" } } == [
        "kegmalloc: ERROR: leak: definite: 100 bytes in 2 blocks, oldest at 0x7f0000002000",
        "kegmalloc: NOTE: leak: stack: 100 bytes in 2 blocks, oldest at 0x7f0000002000",
        "kegmalloc: NOTE: leak: reachable: 100 bytes in 2 blocks, oldest at 0x7f0000002000",
      ])
    #expect(log.findings.map { $0.isReported(stackLeaks: false) } == [true, false, true])
    #expect(log.findings.allSatisfy { $0.isReported(stackLeaks: true) })
  }

  @Test("lines that are no records are counted, later kinds too; bytes that are not UTF-8 are kept readable")
  func damaged() throws {
    let log = try findingLog(["", "{", "{\"kind\":\"novelty\"}", Canned.summary()])
    #expect(log.damagedLines == 3 && log.findings.isEmpty && log.summaries.count == 1)
    var line = Data(Canned.finding(what: "X").utf8)
    if let index = line.firstIndex(of: UInt8(ascii: "X")) { line[index] = 0xff }
    log.add(line: line)
    #expect(log.findings.first?.what == "\u{FFFD}")
  }

  @Test("the summary counts errors, leaks and processes apart")
  func summary() throws {
    let log = try findingLog([
      Canned.finding(stacks: ["detected": stack]), Canned.leak(stack: stack),
      Canned.leak("reachable", bytes: 2048, stack: stack), Canned.summary(pid: 10),
      Canned.summary(pid: 11),
    ])
    #expect(
      DebugSummary(log).text
        == "kegmalloc: 1 error, 100 bytes leaked in 2 blocks from 1 place, 2,048 bytes reachable; "
        + "2,000 allocations, 1,996 frees in 2 processes\n")
  }

  @Test(
    "C++ and Swift names are demangled, others left alone",
    arguments: [
      ("_Z4copyPKc", "copy(char const*)"), ("_Z4copyPKc.cold", "copy(char const*).cold"),
      ("_ZN1AB5cxx113getB5cxx11EPKc", "A::get(char const*)"),
      (
        "_Z1fRSt6vectorINSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEESaIS5_EE",
        "f(std::vector<std::string>&)"
      ),
      ("_Z1gSt3mapIiSt6vectorIiSaIiEESt4lessIiESaISt4pairIKiS2_EEE",
        "g(std::map<int, std::vector<int>, std::less<int>>)"),
      ("_Z1hSaIiE", "h(std::allocator<int>)"), ("$s4main6parserySiSSF", "main.parser(String) -> Int"), ("main", "main"), ("_Z!", "_Z!"),
    ])
  func demangling(name: String, readable: String) {
    #expect(Demangler.readable(name) == readable)
  }
}

@Suite("Debug: suppressions and options of the command")
struct DebugRulesTests {
  let frames = Canned.stack([
    Canned.frame("/bin/prog", 0x10, "_Z4copyPKc"), Canned.frame("/bin/prog", 0x20, "main"),
  ])

  @Test("a suppressed finding is kept, named and counted, but is no error")
  func suppressed() throws {
    let scratch = try Scratch()
    let file = try scratch.file("rules", "# ours\nleak:copy(char\ndouble-free:nothing\n", mode: 0o644)
    let log = try findingLog(
      [Canned.leak(stack: frames), Canned.leak("cycle", stack: frames), Canned.finding(stacks: ["freed": frames])],
      suppressions: [file])
    #expect(log.findings.map(\.suppressedBy) == ["\(file):2: leak:copy(char", "\(file):2: leak:copy(char", nil])
    #expect(log.errorCount == 1)
    #expect(DebugSummary(log).suppressed == 2)
  }

  @Test("generated blocks hide what they were made from, and nothing else")
  func generated() throws {
    let scratch = try Scratch()
    let lines = [
      Canned.leak(stack: frames), Canned.finding(stacks: ["detected": frames]),
      Canned.finding("overflow", stacks: ["detected": Canned.stack([]), "allocated": frames]),
    ]
    for (index, line) in lines.enumerated() {
      let finding = try #require(try findingLog([line]).findings.first)
      let block = SuppressionRules.block(for: finding, number: 1)
      let file = try scratch.file("rules\(index)", block, mode: 0o644)
      let hidden = try findingLog(lines, suppressions: [file]).findings.map { $0.suppressedBy != nil }
      #expect(hidden == lines.indices.map { $0 == index }, "\(block)")
    }
  }

  @Test("a rule that is none is refused with its place")
  func brokenRules() throws {
    let scratch = try Scratch()
    let file = try scratch.file("rules", "leak:a\nnonsense\n", mode: 0o644)
    #expect(throws: Refusal(line: "\(file):2: expected class:pattern or a block in { }")) {
      try SuppressionRules([file])
    }
    #expect(throws: Refusal(line: "cannot read /none")) { try SuppressionRules(["/none"]) }
  }

  @Test("options become settings; the exit code and the log are the command's own")
  func options() throws {
    let options = try DebugOptions(
      pairs: ["decay_ms:5", "exit_code:7", "log_file:/l"], guardValue: "size:16-64", sample: 10,
      onError: "abort", leaks: false, known: KnownOption.all)
    #expect(
      options.settings == ["decay_ms:5", "guard:size:16-64", "sample:10", "on_error:abort", "leak_check:off"])
    #expect(options.exitCode == 7 && options.log == "/l" && options.guardSides == [nil])
    let both = try DebugOptions(pairs: [], guardValue: "both", exitCode: 3, known: KnownOption.all)
    #expect(both.guardSides == ["right", "left"])
    #expect(both.settings(side: "left", file: "/f", profile: "/p") == ["guard:left", "exit_code:0", "json_file:/f"])
    #expect(throws: Refusal.self) { try DebugOptions(pairs: ["json_file:x"], known: KnownOption.all) }
  }

  @Test(
    "the exit code is ours when something was found, else the program's",
    arguments: [
      ([0], 0, 99, 0), ([3], 0, 99, 3), ([3], 1, 99, 99), ([0, 5], 0, 99, 5), ([3], 1, 0, 3),
      ([139], 2, 7, 7),
    ] as [([Int32], Int, Int32, Int32)])
  func status(ends: [Int32], errors: Int, exitCode: Int32, expected: Int32) throws {
    let options = try DebugOptions(pairs: [], exitCode: exitCode, known: KnownOption.all)
    #expect(options.status(ends: ends, errorCount: errors) == expected)
  }
}
