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

  @Option(help: ArgumentHelp("Write findings as JSON, one object a line.", valueName: "file"))
  var json: String?

  @Option(help: ArgumentHelp("Write findings as one HTML page.", valueName: "file"))
  var html: String?

  @Option(
    help: ArgumentHelp(
      "Hide findings that match the rules in this file; may be repeated.", valueName: "file"))
  var suppressions: [String] = []

  @Flag(help: "Print suppression blocks for what was found.")
  var genSuppressions = false

  @Option(
    help: ArgumentHelp("The exit code when something was found; 0: the command's own.", valueName: "N"))
  var exitCode: Int32?

  @Option(help: ArgumentHelp("Write the text report here, not to standard error.", valueName: "file"))
  var log: String?

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
    if let exitCode, !(0...255).contains(exitCode) {
      throw ValidationError("--exit-code is 0 ... 255")
    }
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
  private let rules: SuppressionRules
  private let json: DebugJSON?
  private let html: String?
  private let output: FileHandle
  private let generatesSuppressions: Bool

  init(_ arguments: Debug) throws(Refusal) {
    command = arguments.command
    var pairs: [String] = []
    for argument in arguments.settings {
      pairs += try Setting.parse(argument, known: KnownOption.all)
    }
    options = try DebugOptions(
      pairs: pairs, guardValue: arguments.guardValue, sample: arguments.sample,
      onError: arguments.onError, leaks: !arguments.noLeaks, exitCode: arguments.exitCode,
      log: arguments.log, known: KnownOption.all)
    file = try Launch.locate(command[0], path: ProcessInfo.processInfo.environment["PATH"])
    try Verdict.check(file)
    library = try Launch.library(
      named: Launch.debugLibraryName, chosen: arguments.library, command: Launch.ownPath)
    rules = try SuppressionRules(arguments.suppressions)
    json = try arguments.json.map { path throws(Refusal) in try DebugJSON(path) }
    html = arguments.html
    if let html {
      guard FileManager.default.createFile(atPath: html, contents: nil) else {
        throw Refusal(line: "cannot write \(html)")
      }
    }
    generatesSuppressions = arguments.genSuppressions
    if let log = options.log {
      guard FileManager.default.createFile(atPath: log, contents: nil),
        let handle = FileHandle(forWritingAtPath: log)
      else { throw Refusal(line: "cannot write \(log)") }
      output = handle
    } else {
      output = .standardError
    }
  }

  /// Runs the command under each side of the guard pages; returns the exit code.
  func run() throws(Refusal) -> Int32 {
    let text = ReportText()
    let log = FindingLog(symbolizer: Symbolizer(), rules: rules) { finding in
      if finding.isReported { output.write(Data(text.report(finding).utf8)) }
      json?.append(finding)
    }
    var ends: [Supervisor.End] = []
    for side in options.guardSides {
      log.guardSide = options.guardSides.count > 1 ? side : nil
      ends.append(try runOnce(side, log))
      if ends.last?.wasInterrupted == true { break }
    }
    let status = options.status(ends: ends.map(\.status), errorCount: log.errorCount)
    let summary = DebugSummary(log, exitCode: Int(status))
    if log.summaries.isEmpty && ends.last?.wasInterrupted != true {
      complain("\(file) ended without a summary of the debug library: it was killed, or left by another way than exit")
    }
    if log.damagedLines > 0 { complain("\(log.damagedLines) damaged records of the library") }
    for use in rules.uses {
      output.write(Data("kegmalloc: suppressed \(use.count)×: \(use.rule)\n".utf8))
    }
    if generatesSuppressions {
      for (index, finding) in log.findings.filter(\.isReported).enumerated() {
        output.write(Data(SuppressionRules.block(for: finding, number: index + 1).utf8))
      }
    }
    output.write(Data(summary.text.utf8))
    json?.finish(log, summary)
    if let html {
      let page = DebugHTML(
        log, command: command, summary: summary,
        interrupted: ends.contains { $0.wasInterrupted })
      if !FileManager.default.createFile(atPath: html, contents: Data(page.page().utf8)) {
        complain("cannot write \(html)")
      }
    }
    return status
  }

  private func runOnce(_ side: String?, _ log: FindingLog) throws(Refusal) -> Supervisor.End {
    let directory = try RecordDirectory()
    let environment = ProcessInfo.processInfo.environment.merging(
      [
        "LD_PRELOAD": Launch.preload(
          library, before: ProcessInfo.processInfo.environment["LD_PRELOAD"]),
        "KEGMALLOC_CONF": Launch.configuration(
          options.settings(side: side, file: directory.file),
          after: ProcessInfo.processInfo.environment["KEGMALLOC_CONF"]) ?? "",
      ]) { $1 }
    return try Supervisor.run(file, command, environment.map { "\($0.key)=\($0.value)" }) {
      for line in directory.records.newLines() { log.add(line: line) }
    }
  }
}

/// A directory of our own with the file that the library appends to. Children of the
/// program may run as other users, so anybody may write to the file, but only who
/// knows the name finds it.
private final class RecordDirectory {
  let file: String
  let records: GrowingFile
  private let path: String

  init() throws(Refusal) {
    var template = Array("/tmp/kegmalloc-debug-XXXXXX".utf8CString)
    let made = template.withUnsafeMutableBufferPointer { buffer -> String? in
      buffer.baseAddress.flatMap { mkdtemp($0) }.map { String(cString: $0) }
    }
    guard let path = made else { throw Refusal(line: "cannot make a directory in /tmp") }
    self.path = path
    file = path + "/records"
    let descriptor = open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0o666)
    guard descriptor >= 0, let records = GrowingFile(file) else {
      throw Refusal(line: "cannot write to \(path)")
    }
    self.records = records
    fchmod(descriptor, 0o666)
    close(descriptor)
    chmod(path, 0o711)
  }

  deinit {
    unlink(file)
    rmdir(path)
  }
}
