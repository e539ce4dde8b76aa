// Report.swift: everything a comparison found, in the form that --json writes.
// The other writers (text, CSV, HTML) read this and nothing else, so that a
// partial report after Ctrl-C is as valid as a whole one.
import Foundation

struct Report: Codable {
  var schema = 1
  var date: String
  var machine: Machine
  var base: String
  /// The metric that decides: "wall", that of --by, or "score" with --score.
  var leading: String
  var higherIsBetter: Bool
  var roundsPlanned: Int
  var seed: UInt64
  var interrupted = false
  var notes: [String] = Report.standingNotes
  var races: [RaceReport] = []
  var operations: [OperationCount] = []

  static let standingNotes = [
    "Peak RSS, faults and context switches are those of wait4; mappings and bytes mapped are samples of /proc.",
    "Bytes mapped leave out PROT_NONE; at exit means at the last sample before it.",
    "Intervals are 95 % percentile bootstraps of the median over rounds.",
  ]
}

/// Where the figures come from: figures of two machines do not compare.
struct Machine: Codable {
  var processor: String
  var processorCount: Int
  var kernel: String
  var loadAverage: String

  static func current() -> Machine {
    func lines(_ path: String) -> [Substring] {
      readProc(path).map { String(decoding: $0, as: UTF8.self).split(separator: "\n") } ?? []
    }
    let model = lines("/proc/cpuinfo").first { $0.hasPrefix("model name") }
    return Machine(
      processor: model?.split(separator: ":").last.map { $0.trimmingCharacters(in: .whitespaces) }
        ?? "unknown",
      processorCount: ProcessInfo.processInfo.activeProcessorCount,
      kernel: lines("/proc/sys/kernel/osrelease").first.map(String.init) ?? "unknown",
      loadAverage: lines("/proc/loadavg").first.map {
        $0.split(separator: " ").prefix(3).joined(separator: " ")
      } ?? "")
  }
}

/// One command with every allocator.
struct RaceReport: Codable {
  var name: String
  var command: [String]
  var server: String?
  var entries: [Entry] = []
}

/// One allocator in one race.
struct Entry: Codable {
  var allocator: AllocatorSpec
  var serving = Serving.notChecked
  /// What a reader must know before believing the figures.
  var flags: [String] = []
  /// False once it failed or turned out not to serve malloc.
  var racing = true
  var runs: [Measurement] = []
  var sampled: SampledFigures?
  var curve: [ProcessSample] = []
  var instructions: Int?
  var figures: [String: Figure] = [:]
}

struct Figure: Codable {
  var median: Estimate
  var ratio: Estimate?
  var verdict: Judgement
}

struct SampledFigures: Codable, Equatable {
  var sampleCount: Int
  var mostMappings: Int
  /// Mappings at the sample with the largest RSS.
  var mappingsAtPeak: Int
  var mappedBytesAtExit: Int
  var residentBytesAtExit: Int

  init?(_ samples: [ProcessSample]) {
    guard let last = samples.last,
      let peak = samples.max(by: { $0.residentBytes < $1.residentBytes })
    else { return nil }
    sampleCount = samples.count
    mostMappings = samples.map(\.mappingCount).max() ?? 0
    mappingsAtPeak = peak.mappingCount
    mappedBytesAtExit = last.mappedBytes
    residentBytesAtExit = last.residentBytes
  }
}

extension Report {
  var metrics: [Metric] {
    let score = Metric.score(higherIsBetter: higherIsBetter)
    let first = Metric.standard.first { $0.key == leading } ?? score
    return [first] + Metric.standard.filter { $0.key != leading }
  }

  var leadingMetric: Metric { metrics[0] }

  /// True when some allocator failed, printed something else, or did not serve.
  var hasFlags: Bool { races.contains { $0.entries.contains { !$0.flags.isEmpty || !$0.racing } } }

  /// Fills in every `figures` from the runs.
  mutating func evaluate() {
    let metrics = self.metrics
    for race in races.indices { races[race].evaluate(metrics: metrics, base: base, seed: seed) }
  }

  /// The geometric mean over all races of an allocator's ratio to the base; nil
  /// when it finished none of them.
  func overallRatio(_ allocator: String, metric: String) -> (mean: Double, count: Int)? {
    let ratios = races.compactMap { $0.ratio(allocator, metric) }
    return Statistics.geometricMean(ratios).map { ($0, ratios.count) }
  }

  /// The geometric mean and the worst of an allocator's figure over the best of
  /// the others in each race, the base counted among the others and variants
  /// of the same library not.
  func againstBest(_ allocator: String, metric: Metric) -> (
    mean: Double, worst: Double, race: String
  )? {
    var quotients: [(quotient: Double, race: String)] = []
    for race in races {
      guard let entry = race.entry(allocator), entry.racing,
        let own = entry.figures[metric.key]?.median.value, own > 0
      else { continue }
      let others = race.entries.filter { other in
        other.racing && other.allocator.name != allocator
          && (other.allocator.library == nil || other.allocator.library != entry.allocator.library)
      }.compactMap { $0.figures[metric.key]?.median.value }.filter { $0 > 0 }
      guard let best = metric.higherIsBetter ? others.max() : others.min() else { continue }
      quotients.append((metric.higherIsBetter ? best / own : own / best, race.name))
    }
    guard let mean = Statistics.geometricMean(quotients.map(\.quotient)),
      let worst = quotients.max(by: { $0.quotient < $1.quotient })
    else { return nil }
    return (mean, worst.quotient, worst.race)
  }
}

extension RaceReport {
  func entry(_ allocator: String) -> Entry? { entries.first { $0.allocator.name == allocator } }

  func ratio(_ allocator: String, _ metric: String) -> Double? {
    guard let entry = entry(allocator), entry.racing else { return nil }
    return entry.figures[metric]?.ratio?.value
  }

  mutating func evaluate(metrics: [Metric], base: String, seed: UInt64) {
    let baseRuns = entry(base)?.runs ?? []
    for index in entries.indices {
      for metric in metrics {
        entries[index].figures[metric.key] = figure(
          metric, of: entries[index], base: baseRuns, baseName: base, seed: seed)
      }
    }
  }

  private func figure(
    _ metric: Metric, of entry: Entry, base: [Measurement], baseName: String, seed: UInt64
  ) -> Figure? {
    let values = entry.runs.compactMap(metric.value)
    guard let median = Statistics.medianEstimate(values, seed: seed) else { return nil }
    if entry.allocator.name == baseName {
      return Figure(median: median, ratio: Estimate(value: 1, low: 1, high: 1), verdict: .base)
    }
    let shared = Set(entry.runs.map(\.round)).intersection(base.map(\.round))
    let own = entry.runs.filter { shared.contains($0.round) }.compactMap(metric.value)
    let theirs = base.filter { shared.contains($0.round) }.compactMap(metric.value)
    guard own.count == theirs.count,
      let ratio = Statistics.ratioEstimate(own, to: theirs, seed: seed)
    else { return Figure(median: median, ratio: nil, verdict: .tooFew) }
    let verdict = Statistics.verdict(
      ratio: ratio, runs: own.count, higherIsBetter: metric.higherIsBetter)
    return Figure(median: median, ratio: ratio, verdict: verdict)
  }
}
