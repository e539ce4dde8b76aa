// DebugCommand.swift: `kegmalloc debug`: its options, and one or two runs of the
// program under the debug library.
//
//   program + libkegmalloc-debug.so ──▶ file of records ──▶ FindingLog ──▶ text, live
//                                                              │
//   llvm-symbolizer ◀── addresses, names ──▶ Symbolizer ◀──────┘──▶ JSON, HTML, exit code

import ArgumentParser
import Foundation

struct Debug: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Run a command under the debug library, and report heap bugs and leaks.",
    usage: "kegmalloc debug [options] [--] command [arguments...]",
    discussion: """
      Exit codes: 99, or --exit-code, if something was found that no suppression hides; 2, 126 \
      and 127 as for `kegmalloc run`; otherwise that of the command, 128 and the signal if one \
      ended it. See docs/debugging.md and kegmalloc-debug(1).
      """)

  @Option(
    name: .customShort("o"),
    help: ArgumentHelp("Set an option of the library; may be repeated.", valueName: "key:value"))
  var settings: [String] = []

  @Option(
    name: .customLong("guard"),
    help: ArgumentHelp(
      "Guard pages: right, left, both (two runs), sample:N, zone:NAME or size:A-B.", valueName: "where"))
  var guardValue: String?

  @Option(help: ArgumentHelp("Check one allocation in N only.", valueName: "N"))
  var sample: Int?

  @Option(help: ArgumentHelp("After a report: continue, abort or exit.", valueName: "what"))
  var onError: String?

  @Flag(help: "No leak check.")
  var noLeaks = false

  @Option(
    help: ArgumentHelp(
      "Write a heap profile for pprof: what is held at the end, and what was allocated.",
      valueName: "file"))
  var profile: String?

  @Option(
    help: ArgumentHelp("Write the allocated bytes as collapsed stacks.", valueName: "file"))
  var flameAllocated: String?

  @Option(
    help: ArgumentHelp("Write the bytes held at the end as collapsed stacks.", valueName: "file"))
  var flameHeld: String?

  @OptionGroup(title: "Reports")
  var reports: ReportOptions

  @Option(
    name: .customLong("lib"),
    help: ArgumentHelp("Preload this library instead of the one found.", valueName: "path"))
  var library: String?

  @Flag(help: "Print the table of options and exit.")
  var helpOptions = false

  @Argument(parsing: .captureForPassthrough, help: "The command and its arguments.")
  var command: [String] = []

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
    signal(SIGPIPE, SIG_IGN)
    Foundation.exit(try DebugRun(self).run())
  }
}

/// What one invocation needs, found and checked before anything runs.
private struct DebugRun {
  private let command: [String]
  private let options: DebugOptions
  private let file: String
  private let library: String
  private let output: ReportOutput
  private let profiles: ProfileFiles

  init(_ arguments: Debug) throws(Refusal) {
    command = arguments.command
    profiles = try ProfileFiles(
      pprof: arguments.profile, allocated: arguments.flameAllocated, held: arguments.flameHeld)
    var pairs: [String] = []
    for argument in arguments.settings {
      pairs += try Setting.parse(argument, known: KnownOption.all)
    }
    options = try DebugOptions(
      pairs: pairs, guardValue: arguments.guardValue, sample: arguments.sample,
      onError: arguments.onError, leaks: !arguments.noLeaks, profile: profiles.areWanted,
      exitCode: arguments.reports.exitCode, log: arguments.reports.log, known: KnownOption.all)
    file = try Launch.locate(command[0], path: ProcessInfo.processInfo.environment["PATH"])
    try Verdict.check(file)
    library = try Launch.library(
      named: Launch.debugLibraryName, chosen: arguments.library, command: Launch.ownPath)
    output = try ReportOutput(
      arguments.reports, logPath: options.log, showsStackLeaks: options.showsStackLeaks)
  }

  /// Runs the command under each side of the guard pages; returns the exit code.
  func run() throws(Refusal) -> Int32 {
    var ends: [Supervisor.End] = []
    var profile: [HeapProfile] = []
    // A file on standard input is read by every run; a pipe or a terminal by the first,
    // which leaves the second what it did not read.
    let input = lseek(0, 0, SEEK_CUR)
    for (number, side) in options.guardSides.enumerated() {
      if number > 0, input >= 0 { lseek(0, input, SEEK_SET) }
      output.log.guardSide = options.guardSides.count > 1 ? side : nil
      ends.append(try runOnce(side, &profile))
      if ends.last?.wasInterrupted == true { break }
    }
    let wasInterrupted = ends.contains { $0.wasInterrupted }
    if output.log.summaries.isEmpty && !wasInterrupted {
      complain(
        "\(file) ended without a summary of the debug library: it was killed, or left by another way than exit")
    }
    let status = options.status(ends: ends.map(\.status), errorCount: output.log.errorCount)
    profiles.write(NamedProfile(profile, symbolizer: output.symbolizer))
    output.finish(command: command, status: status, interrupted: wasInterrupted)
    return status
  }

  private func runOnce(_ side: String?, _ profile: inout [HeapProfile]) throws(Refusal) -> Supervisor.End {
    let directory = try RecordDirectory()
    let environment = ProcessInfo.processInfo.environment
    let changes = [
      "LD_PRELOAD": Launch.preload(library, before: environment["LD_PRELOAD"]),
      "KEGMALLOC_CONF": Launch.configuration(
        options.settings(side: side, file: directory.file, profile: directory.profilePattern),
        after: environment["KEGMALLOC_CONF"]) ?? "",
    ]
    let variables = environment.merging(changes) { $1 }.map { "\($0.key)=\($0.value)" }
    let end = try Supervisor.run(file, command, variables) {
      for line in directory.records.newLines() { output.log.add(line: line) }
    }
    // Of two runs the first is enough: they allocate the same.
    if profile.isEmpty { profile = directory.profiles() }
    return end
  }
}

/// The forms in which the heap profile of a run is wanted.
private struct ProfileFiles {
  private let pprof: String?
  private let allocated: String?
  private let held: String?

  init(pprof: String?, allocated: String?, held: String?) throws(Refusal) {
    self.pprof = pprof
    self.allocated = allocated
    self.held = held
    for path in [pprof, allocated, held] {
      if let path { _ = try ReportOutput.create(path) }
    }
  }

  var areWanted: Bool { pprof != nil || allocated != nil || held != nil }

  func write(_ profile: NamedProfile) {
    let files = [
      (pprof, { PprofWriter.file(profile) }),
      (allocated, { Data(profile.folded(\.allocatedBytes).utf8) }),
      (held, { Data(profile.folded(\.heldBytes).utf8) }),
    ]
    for (path, contents) in files {
      if let path, !FileManager.default.createFile(atPath: path, contents: contents()) {
        complain("cannot write \(path)")
      }
    }
  }
}
