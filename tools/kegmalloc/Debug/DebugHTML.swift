// DebugHTML.swift: the findings as one page that needs nothing else: no script, no
// font, no picture from anywhere. Findings are folded by the stack that allocated
// the item, bytes are drawn in colour, and leaks are a treemap: area is bytes.

struct DebugHTML {
  let log: FindingLog
  let command: [String]
  let summary: DebugSummary
  var interrupted = false
  private let text = ReportText()

  init(_ log: FindingLog, command: [String], summary: DebugSummary, interrupted: Bool = false) {
    self.log = log
    self.command = command
    self.summary = summary
    self.interrupted = interrupted
  }

  func page() -> String {
    var body = "<h1>\(escaped(command.joined(separator: " ")))</h1>\n"
    let line = summary.text.dropFirst("kegmalloc: ".count).dropLast()
    body += "<p class='summary'>\(escaped(String(line)))</p>\n"
    if interrupted {
      body += "<p class='flag'>Interrupted: what was found until then is shown.</p>\n"
    }
    body += errors() + leaks() + suppressed()
    return
      "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><title>kegmalloc debug</title>\n"
      + "<meta name='viewport' content='width=device-width'>\n<style>\(Self.style)</style></head>\n<body>\n\(body)</body></html>\n"
  }

  // MARK: - Sections

  private func errors() -> String {
    let findings = log.findings.filter { $0.kind == .finding && $0.suppressedBy == nil }
    guard !findings.isEmpty else { return "<section><h2>Errors</h2><p>None.</p></section>\n" }
    var groups: [(title: String, findings: [Finding])] = []
    for finding in findings {
      let title = place(finding)
      if let index = groups.firstIndex(where: { $0.title == title }) {
        groups[index].findings.append(finding)
      } else {
        groups.append((title, [finding]))
      }
    }
    return "<section><h2>Errors</h2>\n"
      + groups.map { group in
        let times = group.findings.reduce(0) { $0 + $1.count }
        return "<details open class='group'><summary><code>\(escaped(group.title))</code>"
          + " <span class='count'>\(Format.amount(group.findings.count, "error")), seen \(times)×</span></summary>\n"
          + group.findings.map(article).joined() + "</details>\n"
      }.joined() + "</section>\n"
  }

  /// Where the item comes from; for pointers to no item, where the error is.
  private func place(_ finding: Finding) -> String {
    guard let stack = finding.stacks.allocated ?? finding.stacks.detected,
      let frame = text.shown(stack).first
    else { return "no stack" }
    let source = frame.file.map { " " + text.place($0, frame.line, nil) } ?? ""
    return (frame.function ?? frame.module ?? frame.pc) + source
  }

  private func article(_ finding: Finding) -> String {
    var html = "<details class='finding'><summary><b class='\(finding.class)'>\(escaped(finding.class))</b> "
    html += "\(escaped(finding.what)) at <code>\(escaped(finding.address))</code>"
    if finding.count > 1 { html += " <span class='count'>\(finding.count)×</span>" }
    html += "</summary>\n<p>\(escaped(text.facts(finding)))"
    if let guards = finding.guards {
      html += ", guard pages \(escaped(guards.joined(separator: " and ")))"
    }
    html += "</p>\n" + stacks(finding)
    if let bytes = finding.bytes {
      html += drawing(ByteDrawing(bytes, size: finding.size))
    }
    return html + "</details>\n"
  }

  private func stacks(_ finding: Finding) -> String {
    finding.stacks.labelled.map { label, stack in
      let rows = text.shown(stack).map { frame in
        var row = "<li\(frame.inlined == true ? " class='inlined'" : "")><code>"
        row += "\(escaped(frame.function ?? "??"))</code> "
        if let file = frame.file {
          row += "<span class='file'>\(escaped(text.place(file, frame.line, frame.column)))</span>"
        } else if let module = frame.module {
          row += "<span class='file'>\(escaped(module))+\(escaped(frame.offset ?? ""))</span>"
        }
        return row + "</li>"
      }
      let thread = stack.thread.map { " by thread \($0)" } ?? ""
      return "<h4>\(label)\(thread)</h4>\n<ol start='0'>\(rows.joined(separator: "\n"))</ol>\n"
    }.joined()
  }

  private func drawing(_ drawing: ByteDrawing) -> String {
    let rows = drawing.rows.map { row in
      let cells = row.bytes.map { byte in
        "<td class='\(byte.place.rawValue)\(byte.isDamaged ? " mark" : "")' title='offset \(byte.offset)'>"
          + ByteDrawing.digits(byte.value) + "</td>"
      }
      return "<tr><th>0x\(String(row.address, radix: 16))</th>\(cells.joined())</tr>"
    }
    return "<h4>bytes</h4>\n<table class='bytes'>\(rows.joined(separator: "\n"))</table>\n"
  }

  private func leaks() -> String {
    let leaks = log.findings
      .filter { $0.kind == .leak && $0.suppressedBy == nil && ($0.leakedBytes ?? 0) > 0 }
      .sorted { ($0.leakedBytes ?? 0) > ($1.leakedBytes ?? 0) }
    guard !leaks.isEmpty else { return "<section><h2>Leaks</h2><p>None.</p></section>\n" }
    let rows = leaks.enumerated().map { index, leak in
      "<details class='finding' id='leak\(index)'><summary><i class='key \(kind(leak))'></i> "
        + "<b>\(Format.bytes(Double(leak.leakedBytes ?? 0)))</b> \(escaped(leak.what)), "
        + "<code>\(escaped(place(leak)))</code></summary>\n" + stacks(leak) + "</details>\n"
    }
    return "<section><h2>Leaks</h2>\n" + treemap(leaks) + rows.joined() + "</section>\n"
  }

  private func kind(_ leak: Finding) -> String {
    let known = ["definite", "cycle", "indirect", "stack", "reachable"]
    return leak.leak.flatMap { known.contains($0) ? $0 : nil } ?? "reachable"
  }

  /// Leaks smaller than this share of the picture would be dots.
  private static let leastShare = 0.0005

  private func treemap(_ leaks: [Finding]) -> String {
    let total = Double(leaks.reduce(0) { $0 + ($1.leakedBytes ?? 0) })
    let shown = leaks.filter { Double($0.leakedBytes ?? 0) >= total * Self.leastShare }
    let whole = Treemap.Rectangle(x: 0, y: 0, width: 1200, height: 420)
    let rectangles = Treemap.layout(shown.map { Double($0.leakedBytes ?? 0) }, in: whole)
    let cells = zip(shown, rectangles).enumerated().map { index, cell in
      let (leak, box) = cell
      var svg = "<a href='#leak\(index)'><rect class='\(kind(leak))' x='\(round(box.x))' y='\(round(box.y))' "
      svg += "width='\(round(box.width))' height='\(round(box.height))'><title>"
      svg += "\(escaped(place(leak))): \(escaped(leak.what))</title></rect>"
      // A letter is about 7 units wide.
      let name = String(place(leak).prefix(Int(box.width / 7)))
      if box.height > 18 && name.count > 3 {
        svg += "<text x='\(round(box.x + 4))' y='\(round(box.y + 14))'>\(escaped(name))</text>"
      }
      return svg + "</a>"
    }
    let kinds = ["definite", "cycle", "indirect", "stack", "reachable"].filter { name in
      shown.contains { kind($0) == name }
    }
    let keys = kinds.map { "<i class='key \($0)'></i> \($0)" }.joined(separator: " ")
    return "<p class='keys'>\(keys)</p>\n<svg viewBox='0 0 1200 420' role='img' aria-label='leaks by bytes'>"
      + cells.joined(separator: "\n") + "</svg>\n"
  }

  private func suppressed() -> String {
    let hidden = log.findings.filter { $0.suppressedBy != nil }
    guard !hidden.isEmpty else { return "" }
    let rows = hidden.map {
      "<li>\(escaped($0.class)): \(escaped($0.what)) <span class='count'>\(escaped($0.suppressedBy ?? ""))</span></li>"
    }
    return "<section><h2>Suppressed</h2><ul>\(rows.joined(separator: "\n"))</ul></section>\n"
  }

  private func round(_ value: Double) -> String { Format.decimal(value, 1) }

  private func escaped(_ text: String) -> String { Plot.escaped(text) }
}

extension DebugHTML {
  /// Colours that stay apart for most kinds of colour blindness (after Okabe & Ito 2008).
  static let style = """

    :root{color-scheme:light dark;--ink:#222;--paper:#fff;--faint:#ddd}
    @media(prefers-color-scheme:dark){:root{--ink:#ddd;--paper:#181818;--faint:#3a3a3a}}
    body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1240px;margin:2em auto;padding:0 1em}
    h1{font:600 20px ui-monospace,monospace;overflow-wrap:anywhere}h4{margin:.8em 0 .2em}
    code,table.bytes,ol{font:13px/1.5 ui-monospace,monospace}
    details.group{border:1px solid var(--faint);border-radius:4px;margin:.6em 0;padding:.2em .8em}
    details.finding{margin:.3em 0 .3em 1em}summary{cursor:pointer;overflow-wrap:anywhere}
    ol{margin:0;padding-left:3em}li{overflow-wrap:anywhere}.inlined{opacity:.75}.file,.count{opacity:.75}
    .summary{font-weight:600}.flag,b.double-free,b.overflow,b.use-after-free{color:#c8321e}
    table.bytes{border-collapse:collapse;display:block;overflow-x:auto}
    table.bytes th{font-weight:400;opacity:.6;padding-right:1em}table.bytes td{padding:0 .25em}
    td.before,td.after{background:#e69f0055}td.inside{background:#56b4e955}td.mark{outline:2px solid #c8321e;font-weight:700}
    svg{width:100%;height:auto}svg text{fill:#fff;font:12px system-ui,sans-serif;pointer-events:none}
    svg rect{stroke:var(--paper);stroke-width:1.5}.key{display:inline-block;width:.8em;height:.8em}
    .definite{fill:#c0392b;background:#c0392b}.cycle{fill:#8c4a9e;background:#8c4a9e}
    .indirect{fill:#b86b00;background:#b86b00}.stack{fill:#0072b2;background:#0072b2}
    .reachable{fill:#6b6b6b;background:#6b6b6b}

    """
}
