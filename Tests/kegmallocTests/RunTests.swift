import Foundation
import Testing

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

  @Test("refusals and failures have their exit codes and one line")
  func exitCodes() throws {
    let scratch = try Scratch()
    let plain = try scratch.file("plain", "", mode: 0o644)
    let text = try scratch.file("text", "not a program, whatever its mode says\n")
    for (arguments, code) in [
      (["--", "no-such-command-here"], 127), ([scratch.path + "/absent"], 127),
      ([plain], 126), ([scratch.path], 126), ([text], 2),
      (["-o", "nonsense", "true"], 2), (["--lib", "/none", "true"], 2),
    ] as [([String], Int32)] {
      let result = try run(arguments)
      #expect(result.status == code, "\(arguments): \(result.errors)")
      #expect(result.errors.hasPrefix("kegmalloc: "))
      #expect(result.errors.split(separator: "\n").count == 1)
      #expect(result.output.isEmpty)
    }
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
