import Foundation
import Testing

@testable import kegmalloc

/// `kegmalloc debug` around shell scripts that write the records themselves, where the
/// library would: what the command does with them, whatever the library finds.
@Suite("kegmalloc debug", .enabled(if: harmlessLibrary != nil), .serialized)
struct DebugEndToEndTests {
  let library = harmlessLibrary ?? ""
  let scratch: Scratch
  let program: DebuggedProgram
  let leak: String

  init() throws {
    scratch = try Scratch()
    program = try #require(try DebuggedProgram(in: scratch))
    leak = Canned.leak(
      stack: Canned.stack([
        Canned.frame(program.path, program.allocation, DebuggedProgram.makeLinkage)
      ]))
  }

  /// A script that appends these records and then does something.
  private func script(_ records: [String], then rest: String = "exit 0") throws -> String {
    let file = try scratch.file("records", records.map { $0 + "\n" }.joined(), mode: 0o644)
    return try scratch.file(
      "script", "#!/bin/sh\nf=${KEGMALLOC_CONF##*json_file:}\ncat \(file) >> ${f%%,*}\n\(rest)\n")
  }

  private func debug(_ arguments: [String]) throws -> Captured {
    try capture(
      commandPath, ["debug", "--lib", library] + arguments, environment: ["PATH": "/usr/bin:/bin"])
  }

  @Test("nothing found: the program's own exit code and output, and a summary")
  func clean() throws {
    let result = try debug(["--", try script([Canned.summary()], then: "echo out; echo err >&2; exit 7")])
    #expect(result.status == 7 && result.output == "out\n")
    #expect(
      result.errors == "err\nkegmalloc: 0 errors, no leaks; 1,000 allocations, 998 frees\n")
  }

  @Test("something found: 99 or --exit-code, files and lines, inlined and demangled")
  func found() throws {
    let script = try script([leak, Canned.summary()])
    let result = try debug([script])
    #expect(result.status == 99)
    let text = result.errors
    #expect(text.hasPrefix("kegmalloc: ERROR: leak: definite: 100 bytes in 2 blocks, oldest at 0x7f0000002000\n"))
    #expect(text.contains("fresh \(scratch.path)/node.cc:4:36 (inlined)\n"))
    #expect(text.contains("Node* make<Node>(unsigned long) \(scratch.path)/node.cc:7:15\n"))
    #expect(text.contains("0 errors, 100 bytes leaked in 2 blocks from 1 place"))
    #expect(try debug(["--exit-code", "5", script]).status == 5)
    #expect(try debug(["--exit-code", "0", script]).status == 0)
    #expect(try debug(["-o", "exit_code:6", script]).status == 6)
  }

  @Test("suppressions, generated blocks, JSON, HTML and a log of its own")
  func outputs() throws {
    let script = try script([leak, Canned.summary()])
    let first = try debug(["--gen-suppressions", script])
    let block = try #require(first.errors.range(of: "{\n"))
    let end = try #require(first.errors.range(of: "\n}\n"))
    let rules = try scratch.file(
      "rules", String(first.errors[block.lowerBound..<end.upperBound]), mode: 0o644)
    let out = scratch.path
    let second = try debug([
      "--suppressions", rules, "--json", out + "/j", "--html", out + "/h", "--log", out + "/l", script,
    ])
    #expect(second.status == 0 && second.errors.isEmpty)
    let log = try String(contentsOfFile: out + "/l", encoding: .utf8)
    #expect(log.contains("suppressed 1×: \(rules):1: leak-1") && log.contains("1 suppressed"))
    let lines = try String(contentsOfFile: out + "/j", encoding: .utf8).split(separator: "\n")
    let objects = try lines.map { try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any] }
    #expect(objects.map { $0?["kind"] as? String } == ["leak", "summary"])
    #expect(objects[0]?["suppressed_by"] as? String == "\(rules):1: leak-1")
    #expect(try String(contentsOfFile: out + "/h", encoding: .utf8).contains("<h2>Suppressed</h2>"))
  }

  @Test("--guard both runs twice, once for each side, and merges")
  func bothSides() throws {
    let script = try script([leak, Canned.summary()], then: "echo $KEGMALLOC_CONF")
    let result = try debug(["--guard", "both", "--json", scratch.path + "/j", script])
    let sides = result.output.split(separator: "\n").map { $0.contains("guard:right,") ? "right" : "left" }
    #expect(sides == ["right", "left"])
    #expect(result.errors.components(separatedBy: "ERROR").count - 1 == 1)
    let json = try String(contentsOfFile: scratch.path + "/j", encoding: .utf8)
    #expect(json.contains(#""guards":["right","left"]"#))
  }

  @Test("--guard both: a file on standard input is read by both runs")
  func bothRead() throws {
    let script = try script([Canned.summary()], then: "cat")
    try "line\n".write(toFile: scratch.path + "/input", atomically: true, encoding: .utf8)
    let line = "\(commandPath) debug --lib \(library) --guard both \(script) < \(scratch.path)/input"
    let result = try capture("/bin/sh", ["-c", line], environment: ["PATH": "/usr/bin:/bin"])
    #expect(result.status == 0 && result.output == "line\nline\n")
  }

  @Test("findings are printed while the program runs, and a signal leaves them valid")
  func interrupted() throws {
    let script = try script([leak], then: "echo $$ > \(scratch.path)/pid; exec sleep 60")
    let process = Process()
    process.executableURL = URL(fileURLWithPath: commandPath)
    process.arguments = [
      "debug", "--lib", library, "--json", scratch.path + "/j", "--log", scratch.path + "/l", script,
    ]
    let said = scratch.path + "/said"
    try Data().write(to: URL(fileURLWithPath: said))
    process.standardError = FileHandle(forWritingAtPath: said)
    try process.run()
    var log = ""
    while !log.hasSuffix("node.cc:7:15\n") {
      try #require(process.isRunning, "\((try? String(contentsOfFile: said, encoding: .utf8)) ?? "")")
      usleep(10_000)
      log = (try? String(contentsOfFile: scratch.path + "/l", encoding: .utf8)) ?? ""
    }
    #expect(log.contains("ERROR") && !log.contains("leaked"))
    kill(process.processIdentifier, SIGTERM)
    process.waitUntilExit()
    #expect(process.terminationReason == .exit && process.terminationStatus == 99)
    let pid = try String(contentsOfFile: scratch.path + "/pid", encoding: .utf8)
    #expect(kill(Int32(pid.dropLast()) ?? 0, 0) != 0, "the program got the signal")
    let json = try String(contentsOfFile: scratch.path + "/j", encoding: .utf8)
    #expect(json.split(separator: "\n").count == 2 && json.contains(#""kind":"summary""#))
  }

  @Test("a program that a signal ends has that signal's exit code, and no summary is said")
  func killed() throws {
    let result = try debug([try script([], then: "kill -KILL $$")])
    #expect(result.status == 137)
    #expect(result.errors.contains("without a summary"))
  }

  @Test("what cannot be debugged is refused with one line, before anything runs")
  func refusals() throws {
    let dynamic = try #require(try scratch.program("dynamic", flags: []))
    var cases: [([String], Int32, String)] = [
      (["--", "no-such-command-here"], 127, "command not found"), (["--guard", "x", "--bogus", "true"], 2, "Usage"),
      (["--suppressions", "/none", "true"], 2, "cannot read /none"),
      (["--json", "/none/x", "true"], 2, "cannot write /none/x"), (["-o", "nonsense", "true"], 2, "key:value"),
      (["-o", "json_file:x", "true"], 2, "use --json"),
      (["--guard", "up", "true"], 2, "expected right, left, both"),
    ]
    for (name, flags, reason) in [
      ("static", ["-static"], "statically linked"), ("pie", ["-static-pie"], "static-pie"),
      ("asan", ["-fsanitize=address"], "sanitizer"),
    ] {
      if let path = try scratch.program(name, flags: flags) { cases.append(([path], 2, reason)) }
    }
    try scratch.setMode(0o4755, of: dynamic)
    cases.append(([dynamic], 2, "set-user-ID"))
    for (arguments, status, reason) in cases {
      let result = try debug(arguments)
      #expect(result.status == status && result.output.isEmpty, "\(arguments)")
      #expect(result.errors.contains(reason), "\(arguments): \(result.errors)")
    }
  }
}
