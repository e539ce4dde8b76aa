// FindingLog.swift: everything that was found so far: records in, named findings
// out, each once.

import Foundation

final class FindingLog {
  private let symbolizer: Symbolizer
  private let rules: SuppressionRules
  /// What to do with a finding that is seen for the first time.
  private let onNew: (Finding) -> Void
  private(set) var findings: [Finding] = []
  private var indices: [String: Int] = [:]
  /// Where the findings of the processes are, by their numbers.
  private var numbers: [Int: [Int: Int]] = [:]
  /// The last summary of every process, in the order of their ends.
  private(set) var summaries: [SummaryRecord] = []
  /// Lines that were no records.
  private(set) var damagedLines = 0
  /// The side of the guard pages of the run under way, with `--guard both`.
  var guardSide: String?

  init(
    symbolizer: Symbolizer, rules: SuppressionRules, onNew: @escaping (Finding) -> Void = { _ in }
  ) {
    self.symbolizer = symbolizer
    self.rules = rules
    self.onNew = onNew
  }

  func add(line: Data) {
    switch Record(line: line) {
    case .finding(let record):
      let index = add(Finding(record, symbolizer.stacks(record.stacks)))
      if let id = record.id { numbers[record.pid, default: [:]][id] = index }
    case .repeated(let record):
      // The first time was a finding.
      if let index = numbers[record.pid]?[record.id] { findings[index].count += record.count - 1 }
    case .leak(let record):
      _ = add(Finding(record, symbolizer.stacks(record.stacks)))
    case .summary(let record):
      summaries.removeAll { $0.pid == record.pid }
      summaries.append(record)
    case nil:
      damagedLines += 1
    }
  }

  /// - Returns: the index of the finding that it is, or is another case of.
  private func add(_ new: Finding) -> Int {
    var finding = new
    if let guardSide { finding.guards = [guardSide] }
    let identity = finding.identity
    if let index = indices[identity] {
      findings[index].absorb(finding)
      if let rule = findings[index].suppressedBy { rules.count(rule) }
      return index
    }
    finding.suppressedBy = rules.rule(for: finding)
    if let rule = finding.suppressedBy { rules.count(rule) }
    indices[identity] = findings.count
    findings.append(finding)
    onNew(finding)
    return findings.count - 1
  }

  /// Unsuppressed findings that make the exit code.
  var errorCount: Int { findings.count { $0.isError } }
}
