// ProgramTests.swift: real programs, run with and without the library. Their exit
// status and everything they print must be the same.
//
// Each program is a shell script in Programs/, started in an empty directory; the
// shell and all it starts run under the library. Scripts print nothing that depends
// on time, place or process. The long ones run with KEGMALLOC_TEST_PROGRAMS=1.

import Foundation
import Testing

/// Runs a script with and without the library and compares.
/// - Parameters:
///   - isDebug: with the debug library, which must find nothing but leaks; those of other
///     people's programs are real.
///   - knownBug: a class of findings that the program is known to deserve.
///   - knownComplaint: a part of lines that the program may write to stderr because of it.
func expectSameOutput(
  _ script: String, needs programs: [String], environment: [String: String?] = [:],
  isDebug: Bool = false, knownBug: String = "-",
  knownComplaint: String? = nil, timeout: Double = 120, sourceLocation: SourceLocation = #_sourceLocation
) throws {
  for program in programs where findProgram(program) == nil {
    print("skipped \(script): \(program) is not installed")
    return
  }
  let path = Repository.root + "/Tests/PreloadTests/Programs/\(script).sh"
  let results = try Scratch()
  let findings = results.path + "/findings"
  func outcome(preload: Bool) throws -> Outcome {
    let scratch = try Scratch()
    var environment = environment
    if preload, isDebug {
      environment["LD_PRELOAD"] = DebugLibrary.path
      environment["KEGMALLOC_CONF"] = "exit_code:0,json_file:\(findings)"
    }
    return try run(
      ["bash", path], environment: environment, preload: preload,
      timeout: isDebug ? timeout * 4 : timeout, directory: scratch.path)
  }
  let without = try outcome(preload: false)
  try #require(
    without.succeeded, "\(script) fails without the library: \(without.report)",
    sourceLocation: sourceLocation)
  var with = try outcome(preload: true)
  if let knownComplaint {
    with.stderr = with.stderr.split(separator: "\n", omittingEmptySubsequences: false)
      .filter { !$0.contains(knownComplaint) }.joined(separator: "\n")
  }
  let same =
    with.status == without.status && with.stdout == without.stdout && with.stderr == without.stderr
  with.expect(same, "\(script), expected \(without.report)\nbut got", sourceLocation)
  if !isDebug { return }
  let lines = String(decoding: FileManager.default.contents(atPath: findings) ?? Data(), as: UTF8.self)
    .split(separator: "\n")
  #expect(lines.contains { $0.contains("\"kind\":\"summary\"") }, "\(script): no process reported")
  for line in lines where line.contains("\"kind\":\"finding\"")
    && !line.contains("\"class\":\"\(knownBug)\"")
  {
    Issue.record("\(script): \(line.prefix(2000))", sourceLocation: sourceLocation)
  }
}

@Suite("Programs", .libraryPresent)
struct ProgramTests {
  @Test("python3, with its own small-object allocator and without", arguments: ["pymalloc", "malloc"])
  func python(allocator: String) throws {
    try expectSameOutput("python", needs: ["python3"], environment: ["PYTHONMALLOC": allocator])
  }

  @Test("perl")
  func perl() throws { try expectSameOutput("perl", needs: ["perl"]) }

  @Test("bash")
  func bash() throws { try expectSameOutput("bash", needs: ["bash"]) }

  @Test("git")
  func git() throws { try expectSameOutput("git", needs: ["git"]) }

  @Test("gcc and g++")
  func compile() throws { try expectSameOutput("compile", needs: ["gcc", "g++"]) }

  @Test("make -j4")
  func make() throws { try expectSameOutput("make", needs: ["make", "cc"]) }

  @Test("sqlite3")
  func sqlite() throws { try expectSameOutput("sqlite3", needs: ["sqlite3"]) }

  @Test("sort, grep, find, tar and the like")
  func coreutils() throws { try expectSameOutput("coreutils", needs: ["awk", "tar", "gzip"]) }

  @Test("a Swift program, whose runtime must stay its own")
  func swift() throws {
    guard let binary = try buildSwiftObjects() else { return print("skipped swift: no swiftc") }
    let without = try run([binary], preload: false)
    let with = try run([binary])
    with.expect(
      without.succeeded && with.succeeded && with.stdout == without.stdout && with.stderr == "",
      "expected \(without.stdout)")
  }

  @Test("the Swift runtime binds nothing to the library but malloc's own names", .ours)
  func swiftBindings() throws {
    guard let program = findProgram("swiftc") else { return print("skipped: no swiftc") }
    let outcome = try run([program, "--version"], environment: ["LD_DEBUG": "bindings"])
    let bound = outcome.stderr.split(separator: "\n").filter {
      $0.contains("to \(Library.path) ") && $0.contains("`swift_")
    }
    #expect(bound.isEmpty, "\(bound.prefix(3))")
  }
}

private let swiftLock = NSLock()

/// Compiles Fixtures/objects.swift; nil: there is no Swift compiler.
func buildSwiftObjects() throws -> String? {
  guard let compiler = findProgram("swiftc") else { return nil }
  swiftLock.lock()
  defer { swiftLock.unlock() }
  let directory = Repository.root + "/out/fixtures"
  let binary = directory + "/objects"
  try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
  let source = Repository.fixtureSources + "/objects.swift"
  let built = try run(
    [compiler, "-swift-version", "5", source, "-o", binary + ".new"], preload: false, timeout: 300)
  try #require(built.succeeded, "\(built.report)")
  try #require(rename(binary + ".new", binary) == 0)
  return binary
}

@Suite(
  "Programs under the debug library", .enabled(if: DebugLibrary.isUsable, "the debug library is not built"))
struct DebugProgramTests {
  @Test(
    "no finding, no hang, same output",
    arguments: [
      ("python", ["python3"]), ("perl", ["perl"]), ("bash", ["bash"]), ("git", ["git"]),
      ("compile", ["gcc", "g++"]), ("make", ["make", "cc"]), ("sqlite3", ["sqlite3"]),
      ("coreutils", ["awk", "tar", "gzip"]),
    ])
  func program(script: String, needs: [String]) throws {
    try expectSameOutput(
      script, needs: needs, environment: ["PYTHONMALLOC": "malloc"], isDebug: true)
  }
}

@Suite(
  "Long-running programs", .libraryPresent, .serialized,
  .enabled(
    if: ProcessInfo.processInfo.environment["KEGMALLOC_TEST_PROGRAMS"] == "1",
    "set KEGMALLOC_TEST_PROGRAMS=1"))
struct LongProgramTests {
  @Test("python3 -m test on some twenty modules", arguments: ["pymalloc", "malloc"])
  func pythonTests(allocator: String) throws {
    for name in ["/usr/bin/python3", "python3"] {
      guard let python = findProgram(name),
        try run([python, "-c", "import test.test_dict, test.test_ctypes"], preload: false).succeeded
      else { continue }
      // ENOMEM is expected of sizes near SIZE_MAX; nothing here needs much memory.
      let environment = ["PYTHON": python, "PYTHONMALLOC": allocator]
      return try expectSameOutput("python-tests", needs: [], environment: environment, timeout: 900)
    }
    print("skipped python-tests: no python3 with its test package")
  }

  @Test(
    "under the debug library: no finding, no hang, same output",
    .enabled(if: DebugLibrary.isUsable, "the debug library is not built"),
    arguments: [
      ("redis", ["redis-server", "redis-benchmark"]), ("node", ["node"]),
      ("stress-ng", ["stress-ng"]), ("swiftc", ["swiftc"]),
    ])
  func debug(script: String, needs: [String]) throws {
    // stress-ng 0.15 notes a block's address in it, also in blocks of 0 and 6 bytes, as
    // valgrind sees, too. It misses what it wrote behind one when the slot there is used.
    let isStress = script == "stress-ng"
    try expectSameOutput(
      script, needs: needs, isDebug: true, knownBug: isStress ? "overflow" : "-",
      knownComplaint: isStress ? "does not contain correct value" : nil, timeout: 600)
  }

  @Test("redis-server under redis-benchmark")
  func redis() throws {
    try expectSameOutput("redis", needs: ["redis-server", "redis-benchmark"], timeout: 300)
  }

  @Test("nodejs")
  func node() throws { try expectSameOutput("node", needs: ["node"], timeout: 300) }

  @Test("java")
  func java() throws { try expectSameOutput("java", needs: ["java"], timeout: 300) }

  @Test("swiftc")
  func swiftc() throws { try expectSameOutput("swiftc", needs: ["swiftc"], timeout: 600) }

  @Test("stress-ng --malloc")
  func stress() throws { try expectSameOutput("stress-ng", needs: ["stress-ng"], timeout: 300) }

  @Test("php with its extensions")
  func php() throws { try expectSameOutput("php", needs: ["php"], timeout: 300) }
}
