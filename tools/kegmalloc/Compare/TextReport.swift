// TextReport.swift: the report on stdout.

struct TextReport {
  let report: Report

  func text() -> String {
    var parts = [
      "\(report.machine.processor), \(report.machine.processorCount) processors, Linux \(report.machine.kernel)\n"
    ]
    parts += report.races.map(race)
    if report.races.count > 1 { parts.append(summary()) }
    if !report.operations.isEmpty { parts.append(operations()) }
    if report.interrupted {
      parts.append("Interrupted: this report covers the rounds that were complete.\n")
    }
    parts.append(report.notes.map { "# \($0)\n" }.joined())
    return parts.joined(separator: "\n")
  }

  // MARK: - One race

  private func race(_ race: RaceReport) -> String {
    var header = [race.name == "command" ? "" : "\(race.name): "].joined()
    header += race.command.joined(separator: " ")
    if let server = race.server { header += "\n  server: \(server)" }
    let metric = report.leadingMetric
    var rows = [
      [
        "", metric.title, "95 %", "÷ \(report.base)", "verdict", "user", "system", "peak RSS",
        "÷ \(report.base)",
        "faults", "switches", "mappings", "mapped at exit",
      ]
    ]
    if report.leading != "wall" { rows[0].insert("wall", at: 5) }
    let hasCounts = race.entries.contains { $0.instructions != nil }
    if hasCounts { rows[0].append("instructions") }
    rows += race.entries.filter { !$0.runs.isEmpty || $0.instructions != nil }.map {
      row($0, metric, hasCounts)
    }
    let remarks = race.entries.flatMap(remarks(of:))
    return header + "\n" + Format.table(rows) + remarks.map { "  ! \($0)\n" }.joined()
  }

  private func row(_ entry: Entry, _ metric: Metric, _ hasCounts: Bool) -> [String] {
    func cell(_ key: String, _ unit: Metric.Unit) -> String {
      entry.figures[key].map { Format.figure($0.median.value, unit) } ?? "-"
    }
    func ratio(_ key: String) -> String {
      entry.figures[key]?.ratio.map { Format.ratio($0.value) } ?? "-"
    }
    let leading = entry.figures[metric.key]
    let interval = leading.map {
      "\(Format.figure($0.median.low, metric.unit)) … \(Format.figure($0.median.high, metric.unit))"
    }
    var cells = [
      entry.allocator.name, cell(metric.key, metric.unit), interval ?? "-", ratio(metric.key),
      leading?.verdict.rawValue ?? "-",
    ]
    if report.leading != "wall" { cells.append(cell("wall", .seconds)) }
    cells += [
      cell("user", .seconds), cell("system", .seconds), cell("peakRSS", .bytes), ratio("peakRSS"),
      sum(entry, "minorFaults", "majorFaults"),
      sum(entry, "voluntarySwitches", "involuntarySwitches"),
      entry.sampled.map { "\($0.mappingsAtPeak)" } ?? "-",
      entry.sampled.map { Format.bytes(Double($0.mappedBytesAtExit)) } ?? "-",
    ]
    if hasCounts { cells.append(entry.instructions.map { Format.count(Double($0)) } ?? "-") }
    return cells
  }

  private func sum(_ entry: Entry, _ first: String, _ second: String) -> String {
    guard let a = entry.figures[first], let b = entry.figures[second] else { return "-" }
    return Format.count(a.median.value + b.median.value)
  }

  private func remarks(of entry: Entry) -> [String] {
    var lines = entry.flags.map { "\(entry.allocator.name): \($0)" }
    if let detail = entry.serving.detail, entry.serving.state == .verified {
      lines.append("\(entry.allocator.name): \(detail)")
    }
    return lines
  }

  // MARK: - All races

  private func summary() -> String {
    let metric = report.leadingMetric
    var rows = [
      [
        "geometric mean", "\(metric.title) ÷ \(report.base)", "÷ best other", "worst", "in",
        "peak RSS ÷ \(report.base)", "÷ best other", "worst", "in", "races",
      ]
    ]
    for name in report.allocatorNames {
      var cells = [name]
      for metric in [metric] + Metric.standard.filter({ $0.key == "peakRSS" }) {
        let against = report.againstBest(name, metric: metric)
        cells += [
          report.overallRatio(name, metric: metric.key).map { Format.ratio($0.mean) } ?? "-",
          against.map { Format.ratio($0.mean) } ?? "-",
          against.map { Format.ratio($0.worst) } ?? "-",
          against?.race ?? "-",
        ]
      }
      cells.append("\(report.overallRatio(name, metric: metric.key)?.count ?? 0)")
      rows.append(cells)
    }
    return Format.table(rows)
  }

  private func operations() -> String {
    let names = report.allocatorNames
    var rows = [["instructions per operation"] + names]
    for count in report.operations {
      rows.append(
        [count.operation]
          + names.map { name in
            count.instructions[name].map { Format.decimal($0, 1) } ?? "-"
          })
    }
    return Format.table(rows)
  }
}

extension Report {
  /// Every allocator of the report, in order of appearance.
  var allocatorNames: [String] {
    var names: [String] = []
    for entry in races.flatMap(\.entries) where !names.contains(entry.allocator.name) {
      names.append(entry.allocator.name)
    }
    for name in operations.flatMap({ $0.instructions.keys.sorted() }) where !names.contains(name) {
      names.append(name)
    }
    return names
  }
}
