// LeaksCommand.swift: `kegmalloc leaks PID`: asks a running process under the debug
// library for a leak check, and reports what it finds.
//
//   keg_leak_request("/tmp/…/records"), called in one of its threads ─▶ a helper thread of
//   the library stops the others, scans, lets them go ─▶ records, the last a summary

import ArgumentParser
import Foundation

struct Leaks: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Report the leaks of a running process that was started under the debug library.",
    discussion: """
      Needs the right to trace the process: be its user and not be forbidden by \
      /proc/sys/kernel/yama/ptrace_scope, or be root. The process goes on as if nothing had \
      been. Exit codes: 0 without leaks; 99, or --exit-code, with some; 2 if there was no check.
      """)

  @OptionGroup(title: "Reports")
  var reports: ReportOptions

  @Option(help: ArgumentHelp("Give up after so many seconds.", valueName: "seconds"))
  var timeout = 60.0

  @Argument(help: "The process.")
  var pid: Int32

  func validate() throws {
    if pid <= 0 { throw ValidationError("\(pid) is not a process") }
  }

  func run() throws {
    signal(SIGPIPE, SIG_IGN)
    let output = try ReportOutput(reports, logPath: reports.log, showsStackLeaks: true)
    try check(output.log)
    let exitCode = reports.exitCode ?? ReportOutput.defaultExitCode
    let status = output.log.errorCount > 0 ? exitCode : 0
    output.finish(command: ["leaks", String(pid)], status: status, interrupted: false)
    Foundation.exit(status)
  }

  private func check(_ log: FindingLog) throws(Refusal) {
    let function = try requestFunction()
    let directory = try RecordDirectory(root: "/proc/\(pid)/root")
    let answer: UInt64
    do {
      answer = try Tracee.call(function, text: directory.file, process: pid)
    } catch {
      throw refusal(error)
    }
    guard Int32(truncatingIfNeeded: answer) == 0 else {
      throw Refusal(line: "process \(pid) cannot check for leaks now")
    }
    let end = ContinuousClock.now + .seconds(timeout)
    while true {
      // Asked first: what a process wrote before its end is complete.
      let isAlive = kill(pid, 0) == 0 || errno == EPERM
      for line in directory.records.newLines() { log.add(line: line) }
      if !log.summaries.isEmpty { return }
      guard isAlive else { throw Refusal(line: "process \(pid) ended during the check") }
      guard ContinuousClock.now < end else {
        throw Refusal(line: "process \(pid) did not finish its check in \(Int(timeout)) seconds")
      }
      usleep(5000)
    }
  }

  /// Where keg_leak_request is in the process.
  private func requestFunction() throws(Refusal) -> UInt64 {
    guard kill(pid, 0) == 0 || errno == EPERM else {
      throw Refusal(line: "no process \(pid)")
    }
    guard let bytes = FileManager.default.contents(atPath: "/proc/\(pid)/maps") else {
      throw Refusal(line: "process \(pid): permission denied")
    }
    guard let library = LoadedLibrary.find(inMaps: String(decoding: bytes, as: UTF8.self)) else {
      throw Refusal(
        line: "process \(pid) does not run under the debug library; start it with kegmalloc debug")
    }
    guard library.isDebug, let address = library.address(of: "keg_leak_request", process: pid) else {
      throw Refusal(
        line: "process \(pid) runs under \(library.path), which knows no leaks; start it with kegmalloc debug")
    }
    return address
  }

  private func refusal(_ failure: Tracee.Failure) -> Refusal {
    switch failure {
    case .noSuchProcess: Refusal(line: "no process \(pid)")
    case .noPermission:
      Refusal(
        line: "process \(pid) may not be traced: be its user or root; see /proc/sys/kernel/yama/ptrace_scope")
    case .doesNotStop: Refusal(line: "process \(pid) has no thread that stops: is it being debugged?")
    case .failed(let what): Refusal(line: "process \(pid): \(what)")
    }
  }
}
