// Run.swift: `kegmalloc run`: find the library, judge the program, set the
// environment, become the program.

import ArgumentParser
import Foundation

struct Run: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Run a command with the allocator preloaded.",
    usage: "kegmalloc run [-o key:value]... [--lib path] [--stats] [--] command [arguments...]",
    discussion: """
      Exit codes: 2 for a usage error, a bad value of an option or a program that cannot be served (set-user-ID, \
      static, musl, 32-bit, sanitizer-built); 126 if the command is not executable; 127 \
      if it was not found; otherwise that of the command.
      """)

  @Option(
    name: .customShort("o"),
    help: ArgumentHelp("Set an option of the allocator; may be repeated.", valueName: "key:value"))
  var settings: [String] = []

  @Option(
    name: .customLong("lib"),
    help: ArgumentHelp("Preload this library instead of the one found.", valueName: "path"))
  var library: String?

  @Flag(help: "Print the zone table when the program exits.")
  var stats = false

  @Flag(help: "Print the table of options and exit.")
  var helpOptions = false

  @Argument(parsing: .captureForPassthrough, help: "The command and its arguments.")
  var command: [String] = []

  /// The parser hands over whatever is not one of our options, so that none of
  /// the command's own options is taken for ours; what is wrong shows here.
  mutating func validate() throws {
    if helpOptions { return }
    if command.first == "--" {
      command.removeFirst()
    } else if let word = command.first, word.hasPrefix("-") {
      if word == "--help" || word == "-h" { throw CleanExit.helpRequest(self) }
      throw ValidationError("unknown option \(word)")
    }
    if command.isEmpty { throw ValidationError("missing command") }
  }

  func run() throws {
    guard !helpOptions else {
      print(Setting.table(KnownOption.all), terminator: "")
      return
    }
    throw become(try prepare(command[0]))
  }

  private struct Prepared {
    var file: String
    var library: String
    var configuration: String?
  }

  private func prepare(_ name: String) throws(Refusal) -> Prepared {
    var pairs: [String] = []
    for argument in settings { pairs += try Setting.parse(argument, known: KnownOption.all) }
    if stats { pairs.append(KnownOption.statisticsAtExit) }
    let environment = ProcessInfo.processInfo.environment
    let file = try Launch.locate(name, path: environment["PATH"])
    try Verdict.check(file)
    return Prepared(
      file: file,
      library: try Launch.library(chosen: library, command: Launch.ownPath),
      configuration: Launch.configuration(pairs, after: environment["KEGMALLOC_CONF"]))
  }

  /// Replaces this process by the program; returns only to say why it could not.
  private func become(_ prepared: Prepared) -> Refusal {
    setenv("LD_PRELOAD", Launch.preload(prepared.library, before: getenvString("LD_PRELOAD")), 1)
    if let configuration = prepared.configuration {
      setenv("KEGMALLOC_CONF", configuration, 1)
    }
    var vector = command.map { strdup($0) }
    vector.append(nil)
    execv(prepared.file, vector)
    let code = errno
    return Refusal(
      line: "\(prepared.file): \(String(cString: strerror(code)))",
      exitCode: code == ENOENT ? Refusal.notFound : Refusal.notExecutable)
  }

  private func getenvString(_ name: String) -> String? {
    getenv(name).map { String(cString: $0) }
  }
}
