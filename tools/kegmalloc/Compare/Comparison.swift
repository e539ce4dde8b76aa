// Comparison.swift: the whole of one `kegmalloc compare`: its races one after
// the other, the instruction counts, and the reports, which are written however
// it ends.
import Foundation

final class Comparison {
  private let options: Compare
  private let cache: LinkerCache
  private let allocators: [AllocatorSpec]
  private(set) var report: Report
  /// Allocators that cannot run under callgrind.
  private var uncountable: Set<String> = []

  init(options: Compare, cache: LinkerCache, allocators: [AllocatorSpec]) {
    self.options = options
    self.cache = cache
    self.allocators = allocators
    report = Report(
      date: ISO8601DateFormatter().string(from: Date()), machine: .current(), base: options.base,
      leading: options.score == nil ? options.by.rawValue : "score",
      higherIsBetter: !options.lowerIsBetter,
      roundsPlanned: options.runs, seed: options.seed)
  }

  /// Races, counts, writes. What was measured before an error is written too.
  func run() throws(RunError) {
    try checkOutputFiles()
    let plan = try makePlan()
    let contests = try makeContests()
    do throws(RunError) {
      if options.runs > 0 { try race(contests, plan) }
      if options.instructions { try countInstructions(contests) }
    } catch {
      report.interrupted = error == .interrupted
      if !report.races.allSatisfy({ $0.entries.allSatisfy(\.runs.isEmpty) }) { try writeReports() }
      throw error
    }
    try writeReports()
  }

  // MARK: - Preparation

  private struct Contest {
    var name: String
    var command: [String]
    var server: String?
    var subject: any Subject
  }

  private func makePlan() throws(RunError) -> RacePlan {
    var plan = RacePlan()
    plan.rounds = options.runs
    plan.warmups = options.warmup
    plan.base = options.base
    plan.checks = !options.noCheck
    plan.phases = options.phases
    plan.ignoresFailure = options.ignoreFailure
    plan.cache = cache
    if let pattern = options.score {
      plan.score = try ScorePattern(pattern, higherIsBetter: !options.lowerIsBetter)
    }
    return plan
  }

  private func makeContests() throws(RunError) -> [Contest] {
    if options.suite { return try suiteContests() }
    guard !options.command.isEmpty else { return [] }
    return [
      contest(Suite.Row(name: "command", command: options.command, server: options.server))
    ]
  }

  private func suiteContests() throws(RunError) -> [Contest] {
    let names = options.command.flatMap { $0.split(separator: ",").map(String.init) }
    let place = Suite.Place(options.benchmarks)
    var suite = try Suite.load(place)
    let missing = suite.missingPrograms()
    suite.workloads.removeAll { $0.needs.map(missing.contains) ?? false }
    report.notes += missing.map { "\($0) is not installed: its workload was left out." }
    let rows = try suite.rows(names: names, place: place)
    try Suite.build(place)
    return rows.map(contest)
  }

  private func contest(_ row: Suite.Row) -> Contest {
    let subject: any Subject =
      if let server = row.server {
        ServerSubject(
          server: server, client: row.command, port: options.port, timeout: options.timeout)
      } else {
        CommandSubject(command: row.command, input: options.input, timeout: options.timeout)
      }
    return Contest(name: row.name, command: row.command, server: row.server, subject: subject)
  }

  /// A report that cannot be written should be known before the race.
  private func checkOutputFiles() throws(RunError) {
    for path in [options.json, options.csv, options.html].compactMap({ $0 }) {
      let fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o644)
      guard fd >= 0 else {
        throw .setup("cannot write \(path): \(String(cString: strerror(errno)))")
      }
      close(fd)
    }
  }

  // MARK: - Measuring

  private func race(_ contests: [Contest], _ plan: RacePlan) throws(RunError) {
    let progress = Progress(total: contests.count * allocators.count * plan.runsPerEntry)
    defer { progress.clear() }
    for contest in contests {
      let empty = RaceReport(name: contest.name, command: contest.command, server: contest.server)
      let race = Race(
        empty, subject: contest.subject, allocators: allocators, plan: plan, progress: progress)
      defer { report.races.append(race.report) }
      try race.run()
    }
  }

  private func countInstructions(_ contests: [Contest]) throws(RunError) {
    if contests.isEmpty { return try countOperations() }
    for (index, contest) in contests.enumerated() where contest.server == nil {
      if report.races.count <= index {
        let entries = allocators.map { Entry(allocator: $0) }
        report.races.append(
          RaceReport(name: contest.name, command: contest.command, entries: entries))
      }
      for entry in report.races[index].entries.indices {
        let spec = report.races[index].entries[entry].allocator
        guard report.races[index].entries[entry].racing else { continue }
        report.races[index].entries[entry].instructions = try tolerated(spec) {
          () throws(RunError) in
          try Instructions.count(contest.command, variables: spec.variables)
        }
      }
    }
  }

  private func countOperations() throws(RunError) {
    let place = Suite.Place(options.benchmarks)
    try Suite.build(place)
    let probe = "\(place.programs)/probe"
    let progress = Progress(total: Instructions.operations.count * (allocators.count + 1))
    defer { progress.clear() }
    for (kind, count) in Instructions.operations {
      progress.begin("\(kind)  the loop")
      let loop = try Instructions.emptyLoop(kind, count: count, probe: probe)
      progress.end()
      var row = OperationCount(operation: kind, instructions: [:])
      for spec in allocators where !uncountable.contains(spec.name) {
        progress.begin("\(kind)  \(spec.name)")
        row.instructions[spec.name] = try tolerated(spec) { () throws(RunError) in
          try Instructions.perOperation(
            kind, count: count, probe: probe, variables: spec.variables, emptyLoop: loop)
        }
        progress.end()
      }
      report.operations.append(row)
      progress.endRound("\(kind): counted")
    }
  }

  /// Some allocators reserve more address space than valgrind has: such a one
  /// is noted and left out of the counts.
  private func tolerated<T>(_ spec: AllocatorSpec, _ body: () throws(RunError) -> T)
    throws(RunError) -> T?
  {
    do throws(RunError) {
      return try body()
    } catch {
      guard case .commandFailed(let text, _) = error else { throw error }
      uncountable.insert(spec.name)
      report.notes.append("\(spec.name) was not counted: \(text)")
      return nil
    }
  }

  // MARK: - Reports

  private func writeReports() throws(RunError) {
    report.evaluate()
    print(TextReport(report: report).text(), terminator: "")
    if let path = options.json { try write(jsonText(), to: path) }
    if let path = options.csv { try write(CSVReport(report: report).text(), to: path) }
    if let path = options.html { try write(HTMLReport(report: report).text(), to: path) }
  }

  private func jsonText() throws(RunError) -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    guard let data = try? encoder.encode(report) else {
      throw .setup("the report has no JSON form")
    }
    return String(decoding: data, as: UTF8.self) + "\n"
  }

  private func write(_ text: String, to path: String) throws(RunError) {
    do {
      try text.write(toFile: path, atomically: false, encoding: .utf8)
    } catch {
      throw .setup("cannot write \(path): \(error.localizedDescription)")
    }
  }
}
