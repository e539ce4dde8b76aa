// ReportOutput.swift: where the findings of `debug` and `leaks` go: text while they
// come, JSON, a page, suppression blocks, and the exit code at the end.

import ArgumentParser
import Foundation

struct ReportOptions: ParsableArguments {
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

  func validate() throws {
    if let exitCode, !(0...255).contains(exitCode) {
      throw ValidationError("--exit-code is 0 ... 255")
    }
  }
}

final class ReportOutput {
  /// The exit code of a run in which something was found.
  static let defaultExitCode: Int32 = 99

  let log: FindingLog
  let symbolizer: Symbolizer
  private let rules: SuppressionRules
  private let json: DebugJSON?
  private let html: String?
  private let text: FileHandle
  private let generatesSuppressions: Bool
  private let showsStackLeaks: Bool

  /// Opens every file, so that what cannot be written is known before anything runs.
  /// - Parameters:
  ///   - logPath: for the text; nil for standard error.
  ///   - showsStackLeaks: list items that only a stack holds in the text too.
  init(
    _ options: ReportOptions, logPath: String?, showsStackLeaks: Bool = false
  ) throws(Refusal) {
    let rules = try SuppressionRules(options.suppressions)
    let json = try options.json.map { path throws(Refusal) in try DebugJSON(path) }
    if let html = options.html { _ = try Self.create(html) }
    let text = try logPath.map { path throws(Refusal) in try Self.create(path) } ?? .standardError
    symbolizer = Symbolizer()
    self.rules = rules
    self.json = json
    self.text = text
    self.showsStackLeaks = showsStackLeaks
    html = options.html
    generatesSuppressions = options.genSuppressions
    let report = ReportText()
    log = FindingLog(symbolizer: symbolizer, rules: rules) { finding in
      if finding.isReported(stackLeaks: showsStackLeaks) {
        text.write(Data(report.report(finding).utf8))
      }
      json?.append(finding)
    }
  }

  /// Writes what can only be written at the end.
  func finish(command: [String], status: Int32, interrupted: Bool) {
    if log.damagedLines > 0 { complain("\(log.damagedLines) damaged records of the library") }
    for use in rules.uses {
      text.write(Data("kegmalloc: suppressed \(use.count)×: \(use.rule)\n".utf8))
    }
    if generatesSuppressions {
      let reported = log.findings.filter { $0.isReported(stackLeaks: showsStackLeaks) }
      for (index, finding) in reported.enumerated() {
        text.write(Data(SuppressionRules.block(for: finding, number: index + 1).utf8))
      }
    }
    let summary = DebugSummary(log, exitCode: Int(status))
    text.write(Data(summary.text.utf8))
    json?.finish(log, summary)
    if let html {
      let page = DebugHTML(log, command: command, summary: summary, interrupted: interrupted).page()
      if !FileManager.default.createFile(atPath: html, contents: Data(page.utf8)) {
        complain("cannot write \(html)")
      }
    }
  }

  static func create(_ path: String) throws(Refusal) -> FileHandle {
    guard FileManager.default.createFile(atPath: path, contents: nil),
      let handle = FileHandle(forWritingAtPath: path)
    else { throw Refusal(line: "cannot write \(path)") }
    return handle
  }
}

/// A directory of our own with the files that the library appends to. The program may
/// run as another user, so anybody may write to the file, but only who knows the
/// name finds it.
final class RecordDirectory {
  /// The file as the program sees it.
  let file: String
  let records: GrowingFile
  private let path: String

  /// - Parameter root: the root directory of the program, as we see it.
  init(root: String = "") throws(Refusal) {
    var template = Array("\(root)/tmp/kegmalloc-XXXXXX".utf8CString)
    let made = template.withUnsafeMutableBufferPointer { buffer -> String? in
      buffer.baseAddress.flatMap { mkdtemp($0) }.map { String(cString: $0) }
    }
    guard let path = made else { throw Refusal(line: "cannot make a directory in \(root)/tmp") }
    self.path = path
    file = path.dropFirst(root.count) + "/records"
    let descriptor = open(path + "/records", O_CREAT | O_WRONLY | O_CLOEXEC, 0o666)
    guard descriptor >= 0, let records = GrowingFile(path + "/records") else {
      throw Refusal(line: "cannot write to \(path)")
    }
    self.records = records
    fchmod(descriptor, 0o666)
    close(descriptor)
    // Processes of other users make files of their own, the profiles, but see no names.
    chmod(path, 0o1733)
  }

  /// For the library: where each process puts its heap profile.
  var profilePattern: String { (file as NSString).deletingLastPathComponent + "/profile.%p" }

  /// The heap profiles of all processes so far.
  func profiles() -> [HeapProfile] {
    names.filter { $0.hasPrefix("profile.") }.sorted().compactMap { name in
      FileManager.default.contents(atPath: path + "/" + name)
        .map { HeapProfile(String(decoding: $0, as: UTF8.self)) }
    }
  }

  private var names: [String] {
    (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []
  }

  deinit {
    for name in names { unlink(path + "/" + name) }
    rmdir(path)
  }
}
