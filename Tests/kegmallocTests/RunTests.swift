import Foundation
import Testing

@testable import kegmalloc

@Suite("kegmalloc run", .enabled(if: harmlessLibrary != nil))
struct RunTests {
  let library = harmlessLibrary ?? ""

  /// `kegmalloc run` with only PATH, and what else is given, in the environment.
  func run(_ arguments: [String], _ environment: [String: String] = [:]) throws -> Captured {
    let path = ["PATH": "/usr/bin:/bin"]
    return try capture(
      commandPath, ["run"] + arguments, environment: path.merging(environment) { $1 })
  }

  @Test("the exit code and the output are the program's own")
  func passesThrough() throws {
    let result = try run(["--lib", library, "--", "sh", "-c", "echo out; echo err >&2; exit 7"])
    #expect(result.status == 7)
    #expect(result.output == "out\n")
    #expect(result.errors == "err\n")
  }

  @Test("the program's own options are not taken for ours")
  func programOptions() throws {
    for separator in [["--"], []] {
      let words = ["-o", "a:b", "--lib", "x", "--stats", "--help", "--", "-h"]
      let result = try run(["--lib", library] + separator + ["echo"] + words)
      #expect(result.output == words.joined(separator: " ") + "\n")
    }
  }

  @Test("LD_PRELOAD and KEGMALLOC_CONF are merged")
  func environment() throws {
    let script = "echo $LD_PRELOAD; echo $KEGMALLOC_CONF"
    let resolved = URL(fileURLWithPath: library).resolvingSymlinksInPath().path
    let result = try run(
      ["--lib", library, "sh", "-c", script],
      ["LD_PRELOAD": library, "KEGMALLOC_CONF": "kept:1"])
    let name = URL(fileURLWithPath: library).lastPathComponent
    let lines = result.output.split(separator: "\n").map(String.init)
    #expect(lines.first == resolved || lines.first == library)
    #expect(lines.first?.components(separatedBy: name).count == 2, "listed once")
    #expect(lines.last?.hasPrefix("kept:1") == true)
  }

  @Test("options of the library's table are accepted, and --stats is one of them")
  func options() throws {
    let script = ["sh", "-c", "echo $KEGMALLOC_CONF"]
    let result = try run(["--lib", library, "-o", "decay_ms:5", "--stats"] + script)
    #expect(result.output == "decay_ms:5,stats:exit\n")
  }

  @Test("an unknown option is refused with the nearest one, before anything runs")
  func unknownOption() throws {
    let result = try run(["--lib", library, "-o", "decayms:5", "echo", "ran"])
    #expect(result.status == 2 && result.output.isEmpty)
    #expect(result.errors.contains("did you mean decay_ms?"))
  }

  /// `kegmalloc run` of `arguments` writes one line, which has `word` in it, runs nothing and
  /// exits with `code`.
  func expectRefusal(
    _ arguments: [String], _ code: Int32, _ word: String,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let result = try run(arguments)
    let said = "\(arguments): exit \(result.status), \(result.errors)"
    #expect(result.status == code, "\(said)", sourceLocation: sourceLocation)
    #expect(result.errors.hasPrefix("kegmalloc: "), "\(said)", sourceLocation: sourceLocation)
    #expect(result.errors.contains(word), "\(said)", sourceLocation: sourceLocation)
    #expect(result.errors.hasSuffix("\n"), "\(said)", sourceLocation: sourceLocation)
    #expect(result.errors.count { $0 == "\n" } == 1, "\(said)", sourceLocation: sourceLocation)
    #expect(result.output.isEmpty, "\(said)", sourceLocation: sourceLocation)
  }

  @Test("a command that is not there or not executable: one line, 127 or 126")
  func absent() throws {
    let scratch = try Scratch()
    let plain = try scratch.file("plain", "", mode: 0o644)
    let lost = try scratch.file("lost", "#!/no/such/interpreter\necho ran\n")
    let locked = try scratch.file("locked", "#!\(plain)\necho ran\n")
    try expectRefusal(["--", "no-such-command-here"], 127, "not found")
    try expectRefusal([scratch.path + "/absent"], 127, "no such file")
    try expectRefusal([plain], 126, "is not executable")
    try expectRefusal([scratch.path], 126, "is not executable")
    try expectRefusal([lost], 127, "interpreter /no/such/interpreter not found")
    try expectRefusal([locked], 126, "interpreter \(plain) is not executable")
  }

  @Test("a program that no library can be preloaded into: one line, 2")
  func unserved() throws {
    let scratch = try Scratch()
    let text = try scratch.file("text", "not a program, whatever its mode says\n")
    try expectRefusal([text], 2, "neither an ELF program nor a script")
    let i386 = try scratch.file("i386", elfHeader(bits: 32, machine: 3))
    try expectRefusal([i386], 2, "is a 32-bit program")
    let bare = try scratch.file("bare", elfHeader(type: 2, machine: Verdict.machine))
    try expectRefusal([bare], 2, "is statically linked")
    let loader = "-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1"
    let musl = try #require(try scratch.program("musl", flags: [loader]))
    try expectRefusal([musl], 2, "is linked against musl")
    let privileged = try #require(try scratch.program("privileged", flags: []))
    try scratch.setMode(0o4755, of: privileged)
    try expectRefusal([privileged], 2, "is set-user-ID")
    if let sanitized = try scratch.program("sanitized", flags: ["-fsanitize=address"]) {
      try expectRefusal([sanitized], 2, "is built with a sanitizer")
    }
    if let whole = try scratch.program("whole", flags: ["-static"]) {
      try expectRefusal([whole], 2, "is statically linked")
      let script = try scratch.file("script", "#!\(whole)\n")
      try expectRefusal([script], 2, "is statically linked")
    }
  }

  @Test("a wrong setting or library: one line, 2, before anything runs")
  func wrongSettings() throws {
    let echo = ["--", "echo", "ran"]
    try expectRefusal(["-o", "nonsense"] + echo, 2, "expected key:value")
    try expectRefusal(["-o", "decay_ms:abc"] + echo, 2, "bad value for decay_ms")
    try expectRefusal(["-o", "stats:exit,thp:maybe"] + echo, 2, "expected system|never|always")
    try expectRefusal(["--lib", "/none"] + echo, 2, "no library at /none")
  }

  @Test("usage errors exit with 2", arguments: [[], ["--"], ["--bogus", "true"], ["--lib"]])
  func usage(arguments: [String]) throws {
    let result = try run(arguments)
    #expect(result.status == 2)
    #expect(result.errors.contains("Usage:"))
  }

  @Test("help needs no command", arguments: ["--help", "-h", "--help-options"])
  func help(flag: String) throws {
    let result = try run([flag])
    #expect(result.status == 0)
    #expect(result.output.count > 200 && result.errors.isEmpty)
  }
}
