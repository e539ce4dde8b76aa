import Foundation
import Testing

@testable import kegmalloc

@Suite("Debug: JSON and HTML")
struct DebugReportTests {
  let log: FindingLog
  let summary: DebugSummary
  let scratch: Scratch

  init() throws {
    scratch = try Scratch()
    let rules = try scratch.file("rules", "leak:^hidden$\n", mode: 0o644)
    func stack(_ name: String, _ offset: UInt64) -> String {
      Canned.stack([Canned.frame("/bin/p<r>og", offset, name), Canned.frame("/bin/p<r>og", 0x9000, "main")])
    }
    var lines = [
      Canned.finding(
        "overflow", what: "a <byte> & more", offset: 24, stacks: ["allocated": stack("make", 0x10)],
        bytes: Canned.bytes),
      Canned.finding(
        "use-after-free", fault: true,
        stacks: ["detected": stack("use", 0x20), "allocated": stack("make", 0x10)]),
      Canned.leak(bytes: 10, stack: stack("hidden", 0x30)),
    ]
    for (index, kind) in ["definite", "cycle", "indirect", "stack", "reachable"].enumerated() {
      lines.append(
        Canned.leak(kind, bytes: 1000 << index, stack: stack("leak\(index)", UInt64(0x100 + index))))
    }
    log = try findingLog(lines + [Canned.summary()], suppressions: [rules])
    summary = DebugSummary(log, exitCode: 99)
  }

  @Test("the JSON has one object a line with the documented keys, and a summary last")
  func json() throws {
    let path = scratch.path + "/out.json"
    let json = try DebugJSON(path)
    json.append(log.findings[0])
    #expect(try objects(path).count == 1, "valid while the program runs")
    json.finish(log, summary)
    let objects = try objects(path)
    #expect(objects.count == log.findings.count + 1)
    let overflow = objects[0]
    for key in [
      "kind", "class", "what", "address", "pids", "thread", "time_ms", "zone", "size", "offset",
      "allocation", "count", "stacks", "bytes",
    ] {
      #expect(overflow[key] != nil, "\(key)")
    }
    #expect((overflow["bytes"] as? [String: Any])?["item_offset"] as? Int == -16)
    let frames = ((overflow["stacks"] as? [String: Any])?["allocated"] as? [String: Any])?["frames"]
    let frame = try #require((frames as? [[String: Any]])?.first)
    #expect(frame["function"] as? String == "make" && frame["offset"] as? String == "0x10")
    #expect(objects.filter { $0["suppressed_by"] != nil }.count == 1)
    let leak = try #require(objects.first { $0["leak"] as? String == "cycle" })
    #expect(leak["leaked_bytes"] as? Int == 2000 && leak["class"] as? String == "leak")
    let last = try #require(objects.last)
    #expect(last["kind"] as? String == "summary" && last["exit_code"] as? Int == 99)
    #expect(last["errors"] as? Int == 2 && last["leaks"] as? Int == 6)
    #expect(last["leak_stacks"] as? Int == 3 && last["stack_bytes"] as? Int == 8000)
    #expect(last["reachable_bytes"] as? Int == 16_000 && last["suppressed"] as? Int == 1)
  }

  private func objects(_ path: String) throws -> [[String: Any]] {
    let text = try String(contentsOfFile: path, encoding: .utf8)
    #expect(text.hasSuffix("\n"))
    return try text.split(separator: "\n").map {
      try #require(JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any])
    }
  }

  @Test("a file that cannot be written is refused")
  func unwritable() {
    #expect(throws: Refusal(line: "cannot write /none/x")) { try DebugJSON("/none/x") }
  }

  @Test("the page is self-contained, escapes what it quotes, folds by allocating stack")
  func html() {
    let page = DebugHTML(log, command: ["prog", "<&>"], summary: summary).page()
    for foreign in ["http:", "https:", "src=", "@import", "url(", "<script", "<byte>", "p<r>og"] {
      #expect(!page.contains(foreign), "\(foreign)")
    }
    #expect(page.contains("a &lt;byte&gt; &amp; more"))
    #expect(page.components(separatedBy: "<details open class='group'").count - 1 == 1, "one maker")
    #expect(page.components(separatedBy: "<rect").count - 1 == 5)
    #expect(page.components(separatedBy: "<tr>").count - 1 == 3, "48 bytes")
    #expect(page.contains("2 errors, seen 2×"))
    #expect(!page.contains("nan") && !page.contains("Interrupted"))
    #expect(page.contains("<h2>Suppressed</h2>"))
  }

  @Test("a page of nothing says so")
  func empty() throws {
    let log = try findingLog([Canned.summary()])
    let page = DebugHTML(log, command: ["true"], summary: DebugSummary(log), interrupted: true).page()
    #expect(page.components(separatedBy: "<p>None.</p>").count - 1 == 2)
    #expect(page.contains("Interrupted") && !page.contains("Suppressed"))
  }

  @Test(
    "a real browser draws the page",
    .enabled(if: CompareReportTests.browser != nil, "no chromium is installed"))
  func browserDraws() throws {
    // The page itself measures what was drawn; the report has no script.
    let probe = """
      <script>const boxes = [...document.querySelectorAll('svg rect')].map(r => r.getBBox())
      document.body.dataset.area = Math.round(boxes.reduce((sum, b) => sum + b.width * b.height, 0))
      document.body.dataset.rects = boxes.length
      const seen = e => { const d = e.closest('details.finding'); d.open = true; return e.getBoundingClientRect().width > 0 }
      document.body.dataset.bytes = [...document.querySelectorAll('table.bytes td')].filter(seen).length
      document.body.dataset.marks = document.querySelectorAll('td.mark').length
      document.body.dataset.wide = document.documentElement.scrollWidth <= window.innerWidth</script></body>
      """
    let page = DebugHTML(log, command: ["prog"], summary: summary).page()
      .replacingOccurrences(of: "</body>", with: probe)
    let file = try scratch.file("report.html", page, mode: 0o644)
    let command = [
      try #require(CompareReportTests.browser), "--headless", "--no-sandbox", "--disable-gpu",
      "--window-size=1300,1000", "--user-data-dir=\(scratch.path)/profile", "--dump-dom",
      "file://\(file)",
    ]
    let outcome = try CommandRun(CommandRequest(command: command, timeout: 60)).finish()
    let dom = outcome.standardOutput.text
    for expected in ["rects=\"5\"", "bytes=\"48\"", "marks=\"1\"", "wide=\"true\""] {
      #expect(dom.contains("data-\(expected)"), "\(expected)")
    }
    // 1200 by 420, less what rounding to tenths loses.
    let area = dom.range(of: "data-area=\"").flatMap { Int(dom[$0.upperBound...].prefix { $0 != "\"" }) }
    #expect(abs((area ?? 0) - 504_000) < 1000)
  }
}

@Suite("Debug: treemap")
struct TreemapTests {
  @Test("areas are in proportion, inside, and do not overlap", arguments: [1, 2, 3, 7, 40])
  func layout(count: Int) {
    let values = (0..<count).map { Double((count - $0) * (count - $0)) }
    let whole = Treemap.Rectangle(x: 10, y: 20, width: 300, height: 200)
    let boxes = Treemap.layout(values, in: whole)
    #expect(boxes.count == count)
    let total = values.reduce(0, +)
    for (value, box) in zip(values, boxes) {
      #expect(abs(box.area - value / total * whole.area) < 1e-6)
      #expect(box.x >= 10 - 1e-9 && box.x + box.width <= 310 + 1e-6)
      #expect(box.y >= 20 - 1e-9 && box.y + box.height <= 220 + 1e-6)
    }
    for (index, one) in boxes.enumerated() {
      for other in boxes[(index + 1)...] {
        let width = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
        let height = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
        #expect(width < 1e-6 || height < 1e-6)
      }
    }
  }

  @Test("equal areas are about square")
  func square() {
    let boxes = Treemap.layout(
      Array(repeating: 1, count: 16), in: .init(x: 0, y: 0, width: 400, height: 400))
    #expect(boxes.allSatisfy { max($0.width / $0.height, $0.height / $0.width) < 1.5 })
  }

  @Test("nothing in, nothing out")
  func nothing() {
    #expect(Treemap.layout([], in: .init(x: 0, y: 0, width: 1, height: 1)).isEmpty)
  }
}
