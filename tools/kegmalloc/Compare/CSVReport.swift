// CSVReport.swift: one line per run (RFC 4180), for those who want to do their
// own statistics.

struct CSVReport {
  let report: Report

  static let columns = [
    "race", "allocator", "round", "wall_s", "user_s", "system_s", "peak_rss_bytes", "minor_faults",
    "major_faults", "voluntary_switches", "involuntary_switches", "exit_status", "output_hash",
    "score", "mappings_at_peak", "mapped_bytes_at_exit", "resident_bytes_at_exit", "serving",
    "flags",
  ]

  func text() -> String {
    var lines = [Self.columns.joined(separator: ",")]
    for race in report.races {
      for entry in race.entries {
        lines += entry.runs.map { line(race.name, entry, $0) }
      }
    }
    return lines.map { $0 + "\r\n" }.joined()
  }

  private func line(_ race: String, _ entry: Entry, _ run: Measurement) -> String {
    let cells: [String] = [
      race, entry.allocator.name, "\(run.round)", Format.decimal(run.wallSeconds, 6),
      Format.decimal(run.userSeconds, 6), Format.decimal(run.systemSeconds, 6),
      "\(run.peakResidentBytes)", "\(run.minorFaults)", "\(run.majorFaults)",
      "\(run.voluntarySwitches)", "\(run.involuntarySwitches)", "\(run.exitStatus.shellStatus)",
      run.outputHash, run.score.map { "\($0)" } ?? "",
      entry.sampled.map { "\($0.mappingsAtPeak)" } ?? "",
      entry.sampled.map { "\($0.mappedBytesAtExit)" } ?? "",
      entry.sampled.map { "\($0.residentBytesAtExit)" } ?? "",
      entry.serving.state.rawValue, entry.flags.joined(separator: "; "),
    ]
    return cells.map(Self.quoted).joined(separator: ",")
  }

  static func quoted(_ cell: String) -> String {
    let special: Set<Character> = [",", "\"", "\n", "\r", "\r\n"]
    guard cell.contains(where: special.contains) else { return cell }
    return "\""
      + cell.split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "\"\"")
      + "\""
  }
}
