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
      // The report of a fault begins at the instruction that faulted.
      let stacks = symbolizer.stacks(record.stacks, isFault: record.access != nil)
      add(Finding(record, stacks))
    case .leak(let record):
      add(Finding(record, symbolizer.stacks(record.stacks, isFault: false)))
    case .summary(let record):
      summaries.removeAll { $0.pid == record.pid }
      summaries.append(record)
    case nil:
      damagedLines += 1
    }
  }

  private func add(_ new: Finding) {
    var finding = new
    if let guardSide { finding.guards = [guardSide] }
    let identity = finding.identity
    if let index = indices[identity] {
      findings[index].absorb(finding)
      if let rule = findings[index].suppressedBy { rules.count(rule) }
      return
    }
    finding.suppressedBy = rules.rule(for: finding)
    if let rule = finding.suppressedBy { rules.count(rule) }
    indices[identity] = findings.count
    findings.append(finding)
    onNew(finding)
  }

  /// Unsuppressed findings that make the exit code.
  var errorCount: Int { findings.count { $0.isError } }
}
