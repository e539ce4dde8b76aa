// DebugSummary.swift: the figures of a whole run under the debug library.

struct DebugSummary: Codable {
  var kind = "summary"
  /// Different bugs, less leaks.
  var errors = 0
  /// Items that are lost, their bytes, and how many stacks allocated them.
  var leaks = 0
  var leakedBytes = 0
  var leakStacks = 0
  /// Items that only a word on a stack holds, and those that are held, as far as listed.
  var stackBytes = 0
  var reachableBytes = 0
  var suppressed = 0
  var processes = 0
  var allocations = 0
  var frees = 0
  var exitCode: Int?

  init(_ log: FindingLog, exitCode: Int? = nil) {
    for finding in log.findings {
      if finding.suppressedBy != nil {
        suppressed += 1
      } else if finding.isLost {
        leaks += finding.count
        leakedBytes += finding.leakedBytes ?? 0
        leakStacks += 1
      } else if finding.leak == "stack" {
        stackBytes += finding.leakedBytes ?? 0
      } else if finding.kind == .leak {
        reachableBytes += finding.leakedBytes ?? 0
      } else {
        errors += 1
      }
    }
    processes = Set(log.summaries.map(\.pid)).count
    allocations = log.summaries.reduce(0) { $0 + ($1.allocations ?? 0) }
    frees = log.summaries.reduce(0) { $0 + ($1.frees ?? 0) }
    self.exitCode = exitCode
  }

  /// One line for the end of the text report.
  var text: String {
    var parts = [Format.amount(errors, "error")]
    if leaks == 0 {
      parts.append("no leaks")
    } else {
      parts.append(
        "\(Format.amount(leakedBytes, "byte")) leaked in \(Format.amount(leaks, "block")) from "
          + Format.amount(leakStacks, "place"))
    }
    if stackBytes > 0 { parts.append("\(Format.amount(stackBytes, "byte")) held by stacks only") }
    if reachableBytes > 0 { parts.append("\(Format.amount(reachableBytes, "byte")) reachable") }
    if suppressed > 0 { parts.append("\(Format.grouped(suppressed)) suppressed") }
    var text = "kegmalloc: " + parts.joined(separator: ", ")
    if allocations > 0 {
      text += "; \(Format.amount(allocations, "allocation")), \(Format.amount(frees, "free"))"
    }
    if processes > 1 { text += " in \(processes) processes" }
    return text + "\n"
  }
}
