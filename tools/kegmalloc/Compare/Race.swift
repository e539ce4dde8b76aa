// Race.swift: one command under every allocator: the check that each library
// serves, the warm-up, the interleaved rounds.
import Foundation

/// What the user asked for, for every race of this comparison.
struct RacePlan {
  var rounds = 10
  var warmups = 1
  var base = "glibc"
  var checks = true
  /// Keep the RSS curve of one more, sampled run.
  var phases = false
  var ignoresFailure = false
  var score: ScorePattern?
  var cache = LinkerCache(listing: "")

  /// Runs per allocator, for the progress bar.
  var runsPerEntry: Int { rounds + max(warmups, checks ? 1 : 0) + (phases ? 1 : 0) }
}

/// The regular expression of --score: its first group, or all of the match.
struct ScorePattern {
  let expression: NSRegularExpression
  var higherIsBetter = true

  init(_ pattern: String, higherIsBetter: Bool) throws(RunError) {
    guard let expression = try? NSRegularExpression(pattern: pattern, options: [.anchorsMatchLines])
    else {
      throw .setup("--score \(pattern): not a regular expression")
    }
    self.expression = expression
    self.higherIsBetter = higherIsBetter
  }

  /// The figure of the last match in a text.
  func figure(in text: String) -> Double? {
    let whole = NSRange(text.startIndex..., in: text)
    guard let match = expression.matches(in: text, range: whole).last else { return nil }
    let group = match.range(at: match.numberOfRanges > 1 ? 1 : 0)
    guard let range = Range(group, in: text) else { return nil }
    return Double(text[range].replacingOccurrences(of: ",", with: ""))
  }
}

final class Race {
  private let subject: any Subject
  private let plan: RacePlan
  private let progress: Progress
  private(set) var report: RaceReport
  /// What the command printed under the base, warm-ups included.
  private var baseOutputs: Set<String> = []

  init(
    _ report: RaceReport, subject: any Subject, allocators: [AllocatorSpec], plan: RacePlan,
    progress: Progress
  ) {
    self.report = report
    self.subject = subject
    self.plan = plan
    self.progress = progress
    self.report.entries = allocators.map { Entry(allocator: $0) }
  }

  /// Runs the race. When it throws, `report` holds what there is so far.
  func run() throws(RunError) {
    for index in report.entries.indices { try check(index) }
    for warmup in 0..<max(0, plan.warmups - (plan.checks ? 1 : 0)) {
      for index in report.entries.indices where report.entries[index].racing {
        _ = try once(index, sampled: warmup == 0)
      }
    }
    if plan.phases { try takeCurves() }
    for round in 0..<plan.rounds {
      for index in Schedule.order(round: round, count: report.entries.count) {
        try runRound(round, index)
      }
      progress.endRound("\(report.name): round \(round + 1) of \(plan.rounds)")
    }
    compareOutputs()
  }

  // MARK: - One run

  private func once(_ index: Int, sampled: Bool, extra: [String: String] = [:]) throws(RunError)
    -> CommandOutcome
  {
    let spec = report.entries[index].allocator
    progress.begin("\(report.name)  \(spec.name)")
    defer { progress.end() }
    var outcome = try subject.run(spec.variables.merging(extra) { own, _ in own }, sampled: sampled)
    if spec.name == plan.base { baseOutputs.insert(outcome.measurement.outputHash) }
    if let pattern = plan.score {
      outcome.measurement.score =
        pattern.figure(in: outcome.standardOutput.text)
        ?? pattern.figure(in: outcome.standardError.text)
    }
    if sampled, let figures = SampledFigures(outcome.samples) {
      report.entries[index].sampled = figures
    }
    return outcome
  }

  private func runRound(_ round: Int, _ index: Int) throws(RunError) {
    guard report.entries[index].racing else { return progress.skip(1) }
    // Without a check and without a warm-up the first round has to be sampled.
    let sampled = round == 0 && !plan.checks && plan.warmups == 0
    var outcome = try once(index, sampled: sampled)
    guard try accept(outcome, index) else { return }
    outcome.measurement.round = round
    report.entries[index].runs.append(outcome.measurement)
  }

  /// Judges how a run ended. A failure under the base ends the comparison,
  /// elsewhere it ends that allocator's race.
  private func accept(_ outcome: CommandOutcome, _ index: Int) throws(RunError) -> Bool {
    let name = report.entries[index].allocator.name
    let status = outcome.measurement.exitStatus
    var fault: String?
    if outcome.timedOut {
      fault = "timed out"
    } else if !status.isSuccess && !plan.ignoresFailure {
      let line = outcome.lastErrorLine
      fault = "\(status)\(line.isEmpty ? "" : ": \(line)")"
    } else if plan.score != nil && outcome.measurement.score == nil {
      fault = "no score in its output"
    }
    guard let fault else { return true }
    if name == plan.base {
      throw .commandFailed(
        "\(report.command[0]) under \(name) \(fault)", status.isSuccess ? 1 : status.shellStatus)
    }
    report.entries[index].racing = false
    report.entries[index].flags.append(fault)
    return false
  }

  // MARK: - Before the rounds

  private func check(_ index: Int) throws(RunError) {
    guard plan.checks else { return }
    let (outcome, serving) = try checkedRun(index)
    report.entries[index].serving = serving
    guard try accept(outcome, index) else { return }
    if serving.state == .other { try handleStranger(index, serving) }
    if serving.state == .unknown, report.entries[index].allocator.library != nil {
      report.entries[index].flags.append("not verified: \(serving.detail ?? "")")
    }
  }

  private func checkedRun(_ index: Int) throws(RunError) -> (CommandOutcome, Serving) {
    let check = try ServingCheck()
    defer { check.remove() }
    let outcome = try once(index, sampled: true, extra: check.variables)
    return (
      outcome, check.serving(library: report.entries[index].allocator.library, pid: outcome.pid)
    )
  }

  /// A program linked with an allocator of its own gets glibc's by force; in any
  /// other case a library that does not serve has no place in the race.
  private func handleStranger(_ index: Int, _ serving: Serving) throws(RunError) {
    let spec = report.entries[index].allocator
    let other = serving.detail ?? "another library"
    if spec.name == "own" {
      report.entries[index].serving.state = .verified
      return
    }
    if spec.library == nil, let library = plan.cache.paths["libc.so.6"] {
      report.entries[index].allocator.library = library
      let (outcome, second) = try checkedRun(index)
      report.entries[index].serving = second
      guard try accept(outcome, index) else { return }
      if second.state == .verified {
        report.entries[index].serving.detail =
          "forced by preloading \(library): the program links \(other)"
        return
      }
    }
    report.entries[index].racing = false
    report.entries[index].flags.append("does not serve malloc: \(other) does")
    if spec.name == plan.base {
      throw .setup("\(spec.name) does not serve malloc in \(report.command[0]): \(other) does")
    }
  }

  private func takeCurves() throws(RunError) {
    for index in report.entries.indices where report.entries[index].racing {
      let outcome = try once(index, sampled: true)
      report.entries[index].curve = outcome.samples
    }
  }

  // MARK: - After the rounds

  /// Flags every allocator under which the command printed something else.
  private func compareOutputs() {
    // A command that prints times or addresses cannot be compared this way.
    guard baseOutputs.count == 1, let expected = baseOutputs.first, plan.score == nil else {
      return
    }
    for index in report.entries.indices {
      let others = report.entries[index].runs.filter { $0.outputHash != expected }
      guard !others.isEmpty else { continue }
      report.entries[index].flags.append(
        "output differs from \(plan.base)'s in \(others.count) of \(report.entries[index].runs.count) runs"
      )
    }
  }
}
