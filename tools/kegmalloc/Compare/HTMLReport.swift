// HTMLReport.swift: the report as one page that needs nothing else: no script,
// no font, no picture from anywhere. The tables of the text report, and plots.

struct HTMLReport {
  let report: Report

  func text() -> String {
    var body =
      "<h1>Allocator comparison</h1>\n<p>\(escaped(report.date)), \(escaped(report.machine.processor)), "
    body += "\(report.machine.processorCount) processors, Linux \(escaped(report.machine.kernel)), "
    body += "load \(escaped(report.machine.loadAverage)) at the start.</p>\n"
    if report.interrupted {
      body += "<p class='flag'>Interrupted: only the rounds that were complete are shown.</p>\n"
    }
    if report.races.count > 1 { body += overview() }
    body += report.races.map(race).joined()
    if !report.operations.isEmpty { body += operations() }
    body +=
      "<ul class='notes'>" + report.notes.map { "<li>\(escaped($0))</li>" }.joined() + "</ul>\n"
    return
      "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><title>kegmalloc compare</title>\n"
      + "<meta name='viewport' content='width=device-width'>\n<style>\(Self.style)</style></head>\n<body>\n\(body)</body></html>\n"
  }

  private var colors: [String: Int] {
    Dictionary(
      uniqueKeysWithValues: report.allocatorNames.enumerated().map { ($1, $0 % Self.palette.count) }
    )
  }

  // MARK: - Sections

  private func race(_ race: RaceReport) -> String {
    let title = race.name == "command" ? race.command.joined(separator: " ") : race.name
    var html = "<section><h2>\(escaped(title))</h2>\n"
    if race.name != "command" {
      html += "<p><code>\(escaped(race.command.joined(separator: " ")))</code></p>\n"
    }
    html += race.server.map { "<p>server: <code>\(escaped($0))</code></p>\n" } ?? ""
    html += table(race)
    for entry in race.entries {
      html += entry.flags.map {
        "<p class='flag'>\(escaped(entry.allocator.name)): \(escaped($0))</p>\n"
      }.joined()
      if entry.serving.state == .verified, let detail = entry.serving.detail {
        html += "<p>\(escaped(entry.allocator.name)): \(escaped(detail))</p>\n"
      }
    }
    return html + "<div class='plots'>\n" + plots(race) + "</div></section>\n"
  }

  private func table(_ race: RaceReport) -> String {
    var rows = "<tr><th>allocator</th>"
    for metric in report.metrics {
      rows += "<th>\(escaped(metric.title))</th><th>÷ \(escaped(report.base))</th>"
    }
    rows += "<th>mappings</th><th>mapped at exit</th><th>verdict</th></tr>\n"
    for entry in race.entries where !entry.runs.isEmpty {
      rows += "<tr><td>\(escaped(entry.allocator.name))</td>"
      for metric in report.metrics { rows += cells(entry.figures[metric.key], metric) }
      rows += "<td>\(entry.sampled.map { "\($0.mappingsAtPeak)" } ?? "–")</td>"
      rows += "<td>\(entry.sampled.map { Format.bytes(Double($0.mappedBytesAtExit)) } ?? "–")</td>"
      rows += "<td>\(entry.figures[report.leading]?.verdict.rawValue ?? "–")</td></tr>\n"
    }
    return "<div class='wide'><table>\n\(rows)</table></div>\n"
  }

  private func cells(_ figure: Figure?, _ metric: Metric) -> String {
    guard let figure else { return "<td>–</td><td>–</td>" }
    let interval =
      "\(Format.figure(figure.median.low, metric.unit)) … \(Format.figure(figure.median.high, metric.unit))"
    let ratio = figure.ratio.map { Format.ratio($0.value) } ?? "–"
    return "<td title='\(interval)'>\(Format.figure(figure.median.value, metric.unit))</td>"
      + "<td class='\(figure.verdict == .noise ? "noise" : "\(figure.verdict)")'>\(ratio)</td>"
  }

  private func plots(_ race: RaceReport) -> String {
    let entries = race.entries.filter { !$0.runs.isEmpty }
    guard !entries.isEmpty else { return "<p>No round was complete.</p>" }
    let leading = report.leadingMetric
    var html = bars(entries, leading) + bars(entries, .peakRSS)
    html += Plot.scatter(
      title: "\(leading.title) (across) and peak RSS (up)", xUnit: leading.unit, yUnit: .bytes,
      series: entries.map { entry in
        let point = (
          entry.figures[leading.key]?.median.value ?? 0, entry.figures["peakRSS"]?.median.value ?? 0
        )
        return Series(
          name: entry.allocator.name, color: colors[entry.allocator.name] ?? 0, points: [point])
      })
    html += Plot.lines(
      title: "\(leading.title) by round", xUnit: .count, yUnit: leading.unit, fromZero: false,
      dots: true,
      series: entries.map { entry in
        Series(
          name: entry.allocator.name, color: colors[entry.allocator.name] ?? 0,
          points: entry.runs.compactMap { run in
            leading.value(run).map { (Double(run.round + 1), $0) }
          })
      })
    if entries.contains(where: { !$0.curve.isEmpty }) { html += curves(entries) }
    return html
  }

  private func bars(_ entries: [Entry], _ metric: Metric) -> String {
    Plot.bars(
      title: metric.title, unit: metric.unit,
      rows: entries.compactMap { entry in
        guard let figure = entry.figures[metric.key] else { return nil }
        return (
          entry.allocator.name, colors[entry.allocator.name] ?? 0, figure.median,
          entry.runs.compactMap(metric.value)
        )
      })
  }

  private func curves(_ entries: [Entry]) -> String {
    Plot.lines(
      title: "RSS over time (sampled)", xUnit: .seconds, yUnit: .bytes, fromZero: true, dots: false,
      series: entries.map { entry in
        Series(
          name: entry.allocator.name, color: colors[entry.allocator.name] ?? 0,
          points: entry.curve.map { ($0.seconds, Double($0.residentBytes)) })
      })
  }

  private func overview() -> String {
    let metric = report.leadingMetric
    var rows =
      "<tr><th>geometric mean</th><th>\(escaped(metric.title)) ÷ \(escaped(report.base))</th><th>÷ best other</th>"
    rows += "<th>peak RSS ÷ \(escaped(report.base))</th><th>÷ best other</th><th>races</th></tr>\n"
    var points: [Series] = []
    for name in report.allocatorNames {
      let time = report.overallRatio(name, metric: metric.key)
      let memory = report.overallRatio(name, metric: "peakRSS")
      let cells = [
        time?.mean, report.againstBest(name, metric: metric)?.mean, memory?.mean,
        report.againstBest(name, metric: .peakRSS)?.mean,
      ].map { "<td>\($0.map(Format.ratio) ?? "–")</td>" }.joined()
      rows += "<tr><td>\(escaped(name))</td>\(cells)<td>\(time?.count ?? 0)</td></tr>\n"
      if let time, let memory {
        points.append(
          Series(name: name, color: colors[name] ?? 0, points: [(time.mean, memory.mean)]))
      }
    }
    return "<section><h2>All races</h2><table>\n\(rows)</table>\n<div class='plots'>"
      + Plot.scatter(
        title: "\(metric.title) (across) and peak RSS (up), ÷ \(report.base)", xUnit: .score,
        yUnit: .score, series: points)
      + "</div></section>\n"
  }

  private func operations() -> String {
    let names = report.allocatorNames
    var rows = "<tr><th>operation</th>\(names.map { "<th>\(escaped($0))</th>" }.joined())</tr>\n"
    for count in report.operations {
      let cells = names.map {
        "<td>\(count.instructions[$0].map { Format.decimal($0, 1) } ?? "–")</td>"
      }
      rows += "<tr><td>\(escaped(count.operation))</td>\(cells.joined())</tr>\n"
    }
    return "<section><h2>Instructions per operation</h2><table>\n\(rows)</table></section>\n"
  }

  private func escaped(_ text: String) -> String { Plot.escaped(text) }
}

// MARK: - Style

extension HTMLReport {
  /// Ten colours that stay apart for most kinds of colour blindness (after
  /// Okabe & Ito 2008) and are readable on white and on near-black.
  static let palette = [
    "#7f7f7f", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1",
    "#b2b200", "#a6611a",
  ]

  static var style: String {
    let colors = palette.enumerated().map { index, color in
      ".c\(index){fill:\(color);stroke:\(color)}"
    }.joined(separator: "\n")
    return """

      :root{color-scheme:light dark;--ink:#222;--paper:#fff;--faint:#ddd}
      @media(prefers-color-scheme:dark){:root{--ink:#ddd;--paper:#181818;--faint:#3a3a3a}}
      body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1340px;margin:2em auto;padding:0 1em}
      table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
      .wide{overflow-x:auto}
      th,td{padding:.2em .7em;text-align:right;border-bottom:1px solid var(--faint);white-space:nowrap}
      th:first-child,td:first-child{text-align:left}
      .better{color:#0a8a3a;font-weight:600}.worse{color:#c8321e}.noise,.tooFew{opacity:.6}
      .flag{color:#c8321e}.notes{font-size:13px;opacity:.8}
      .plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(480px,1fr));gap:1em;margin:1em 0}
      svg{width:100%;max-width:760px;height:auto}svg text{fill:var(--ink);font-size:12px}svg text.title{font-weight:600;font-size:13px}
      svg text.tick{opacity:.7;font-size:11px}.grid{stroke:var(--faint)}.whisker{stroke:var(--ink);stroke-width:1.5}
      .bar{opacity:.55;stroke:none}.dot{stroke:none;opacity:.85}.line{fill:none!important;stroke-width:1.5}
      \(colors)

      """
  }
}
