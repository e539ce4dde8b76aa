import Foundation
import Testing

@testable import kegmalloc

/// A report with two races and made-up figures, one allocator flagged.
func sampleReport(interrupted: Bool = false) -> Report {
  func entry(_ name: String, _ factor: Double) -> Entry {
    var entry = Entry(
      allocator: AllocatorSpec(name: name, library: name == "glibc" ? nil : "/lib/\(name).so"))
    for round in 0..<6 {
      var run = Measurement()
      run.round = round
      run.wallSeconds = factor * (1 + 0.01 * Double(round))
      run.peakResidentBytes = Int(factor * 10_000_000)
      run.outputHash = "00"
      entry.runs.append(run)
    }
    return entry
  }
  var report = Report(
    date: "2030-01-01T00:00:00Z",
    machine: Machine(
      processor: "A <fast> one", processorCount: 2, kernel: "6.0", loadAverage: "0 0 0"),
    base: "glibc", leading: "wall", higherIsBetter: true, roundsPlanned: 6, seed: 1)
  report.interrupted = interrupted
  for (race, factor) in [("tree/1", 0.5), ("server/64", 2.0)] {
    var one = RaceReport(name: race, command: ["prog", "a,b", "say \"hi\""])
    one.entries = [entry("glibc", 1), entry("new<>&'", factor)]
    one.entries[1].flags = ["output differs, in 1 of 6 runs"]
    report.races.append(one)
  }
  report.operations = [
    OperationCount(operation: "pair-16", instructions: ["glibc": 133, "new<>&'": 40.25])
  ]
  report.evaluate()
  return report
}

@Suite("Compare: report writers")
struct CompareReportTests {
  let report = sampleReport()

  @Test("ratios, verdicts, geometric mean, and the quotient by the best other")
  func evaluation() throws {
    let figure = try #require(report.races[0].entries[1].figures["wall"])
    #expect(abs((figure.ratio?.value ?? 0) - 0.5) < 1e-9)
    #expect(figure.verdict == .better)
    #expect(report.races[1].entries[1].figures["wall"]?.verdict == .worse)
    #expect(report.races[0].entries[0].figures["wall"]?.verdict == .base)
    let mean = try #require(report.overallRatio("new<>&'", metric: "wall"))
    #expect(abs(mean.mean - 1) < 1e-9 && mean.count == 2)
    let best = try #require(report.againstBest("new<>&'", metric: .wall))
    #expect(abs(best.worst - 2) < 1e-9 && best.race == "server/64")
  }

  @Test("a run that is missing in one series does not spoil the pairs")
  func partialRound() throws {
    var partial = report
    partial.races[0].entries[1].runs.removeLast()
    partial.evaluate()
    #expect(partial.races[0].entries[1].figures["wall"]?.verdict == .better)
  }

  @Test("the JSON has the keys that scripts rely on and comes back the same")
  func json() throws {
    let data = try JSONEncoder().encode(report)
    let root = try #require(JSONSerialization.jsonObject(with: data) as? [String: Any])
    for key in [
      "schema", "date", "machine", "base", "leading", "interrupted", "races", "notes", "seed",
    ] {
      #expect(root[key] != nil, "\(key)")
    }
    let race = try #require((root["races"] as? [[String: Any]])?.first)
    let entry = try #require((race["entries"] as? [[String: Any]])?.last)
    let run = try #require((entry["runs"] as? [[String: Any]])?.first)
    for key in [
      "wallSeconds", "userSeconds", "systemSeconds", "peakResidentBytes", "minorFaults",
      "majorFaults",
      "voluntarySwitches", "involuntarySwitches", "exitStatus", "outputHash",
    ] {
      #expect(run[key] != nil, "\(key)")
    }
    let figure = (entry["figures"] as? [String: Any])?["wall"] as? [String: Any]
    #expect(figure?["verdict"] as? String == "better")
    let copy = try JSONDecoder().decode(Report.self, from: data)
    #expect(copy.races[0].entries[1].runs == report.races[0].entries[1].runs)
  }

  @Test("the CSV has one line per run and quotes what needs it")
  func csv() {
    let lines = CSVReport(report: report).text().components(separatedBy: "\r\n")
    #expect(lines.count == 1 + 24 + 1)
    #expect(lines[0].components(separatedBy: ",").count == CSVReport.columns.count)
    #expect(lines[7].hasSuffix("\"output differs, in 1 of 6 runs\""))
    #expect(CSVReport.quoted("say \"hi\"") == "\"say \"\"hi\"\"\"")
  }

  @Test("the text has a row per allocator, the flags, and the summary")
  func text() {
    let text = TextReport(report: report).text()
    #expect(text.contains("tree/1: prog"))
    #expect(text.contains("! new<>&': output differs"))
    #expect(text.contains("geometric mean"))
    #expect(text.contains("40.2"))
    #expect(TextReport(report: sampleReport(interrupted: true)).text().contains("Interrupted"))
  }

  @Test("the page is self-contained and escapes what it quotes")
  func html() {
    let page = HTMLReport(report: report).text()
    for foreign in ["http:", "https:", "src=", "@import", "url(", "<script", "<fast>", "new<>"] {
      #expect(!page.contains(foreign), "\(foreign)")
    }
    #expect(page.contains("new&lt;&gt;&amp;&#39;"))
    // Two bars, a scatter and the rounds for each race, and one scatter of all.
    #expect(page.components(separatedBy: "<svg").count - 1 == 2 * 4 + 1)
    #expect(!page.contains("nan") && !page.contains("inf,"))
  }

  @Test("RSS curves of all allocators are one more plot")
  func curves() throws {
    var report = sampleReport()
    let here = try #require(ProcessSample(pid: getpid(), seconds: 0.5))
    report.races[0].entries[0].curve = [here, here]
    report.races[0].entries[1].curve = [here]
    #expect(HTMLReport(report: report).text().contains("RSS over time"))
  }

  @Test("axis ticks are round numbers, powers of two for bytes")
  func axis() {
    #expect(
      Axis([0, 87], .seconds, from: 0, to: 1, fromZero: true).ticks == [0, 20, 40, 60, 80, 100])
    let bytes = Axis([3_000_000], .bytes, from: 0, to: 1, fromZero: true)
    #expect(bytes.ticks.allSatisfy { $0.truncatingRemainder(dividingBy: 1_048_576) == 0 })
    #expect(Axis([5, 5], .count, from: 0, to: 1, fromZero: false).ticks.count > 1)
  }

  static let browser = ["chromium", "chromium-browser", "google-chrome"].map { "/usr/bin/\($0)" }
    .first { FileManager.default.isExecutableFile(atPath: $0) }

  @Test("a real browser draws the page", .enabled(if: browser != nil, "no chromium is installed"))
  func browserDraws() throws {
    let directory = FileManager.default.temporaryDirectory.appendingPathComponent(
      "kegmalloc-\(UUID())")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: directory) }
    // The page itself measures what was drawn; the report has no script.
    let probe = """
      <script>document.body.dataset.drawn = [...document.querySelectorAll('svg')]
        .filter(s => s.getBoundingClientRect().width > 100 && s.querySelector('circle').getBBox().width > 0).length
      document.body.dataset.wide = document.documentElement.scrollWidth <= window.innerWidth</script></body>
      """
    let page = HTMLReport(report: report).text().replacingOccurrences(of: "</body>", with: probe)
    let file = directory.appendingPathComponent("report.html")
    try page.write(to: file, atomically: true, encoding: .utf8)
    let command = [
      try #require(Self.browser), "--headless", "--no-sandbox", "--disable-gpu",
      "--window-size=1300,1000",
      "--user-data-dir=\(directory.path)/profile", "--dump-dom", file.absoluteString,
    ]
    let outcome = try CommandRun(CommandRequest(command: command, timeout: 60)).finish()
    #expect(outcome.standardOutput.text.contains("data-drawn=\"9\""))
    #expect(outcome.standardOutput.text.contains("data-wide=\"true\""))
  }
}
