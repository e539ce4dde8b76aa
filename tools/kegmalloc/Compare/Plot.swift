// Plot.swift: the few kinds of chart that a comparison needs, as inline SVG.
// Colours come from the page's style sheet by class (c0, c1, …), so that a plot
// follows the light or dark theme of the page.

/// A linear scale from data to picture coordinates.
struct Axis {
  let low: Double
  let high: Double
  let from: Double
  let to: Double
  let ticks: [Double]

  /// An axis over `values` that starts at zero when `fromZero`.
  init(_ values: [Double], _ unit: Metric.Unit, from: Double, to: Double, fromZero: Bool) {
    let top = values.max() ?? 1
    let bottom = fromZero ? 0 : values.min() ?? 0
    let span = top > bottom ? top - bottom : max(abs(top), 1) * 0.1
    let step = unit == .bytes ? Self.powerOfTwo(span / 5) : Self.niceStep(span / 5)
    low = fromZero ? 0 : (bottom / step).rounded(.down) * step
    high = max((top / step).rounded(.up) * step, low + step)
    ticks = Array(stride(from: low, through: high + step / 2, by: step))
    self.from = from
    self.to = to
  }

  func position(_ value: Double) -> Double { from + (value - low) / (high - low) * (to - from) }

  /// The smallest power of two not below `rough`, for bytes.
  static func powerOfTwo(_ rough: Double) -> Double {
    var step = 1024.0
    while step < rough { step *= 2 }
    return step
  }

  /// 1, 2 or 5 times a power of ten, not below `rough`.
  static func niceStep(_ rough: Double) -> Double {
    var power = 1.0
    while power * 10 <= rough { power *= 10 }
    while power > rough { power /= 10 }
    return [1, 2, 5, 10].map { $0 * power }.first { $0 >= rough } ?? power * 10
  }
}

/// Points of one allocator.
struct Series {
  var name: String
  var color: Int
  var points: [(x: Double, y: Double)]
}

enum Plot {
  static let width = 640.0

  /// Horizontal bars: the median, its interval as a whisker, every run as a dot.
  static func bars(
    title: String, unit: Metric.Unit,
    rows: [(name: String, color: Int, estimate: Estimate, runs: [Double])]
  )
    -> String
  {
    let rowHeight = 30.0
    let left = 150.0
    let height = rowHeight * Double(rows.count) + 60
    let axis = Axis(
      rows.flatMap { $0.runs + [$0.estimate.high] }, unit, from: left, to: width - 90,
      fromZero: true)
    var body = grid(axis, unit, top: 26, bottom: height - 28)
    for (index, row) in rows.enumerated() {
      let y = 34 + rowHeight * Double(index)
      let end = axis.position(row.estimate.value)
      body +=
        "<text x='\(n(left - 8))' y='\(n(y + 13))' text-anchor='end'>\(escaped(row.name))</text>"
      body +=
        "<rect class='c\(row.color) bar' x='\(n(left))' y='\(n(y))' width='\(n(end - left))' height='18' rx='2'/>"
      body += line(
        axis.position(row.estimate.low), y + 9, axis.position(row.estimate.high), y + 9, "whisker")
      for (run, value) in row.runs.enumerated() {
        let jitter = Double(run % 5) * 2.5 - 5
        body += dot(
          axis.position(value), y + 9 + jitter, 2, row.color,
          "\(row.name), run \(run + 1): \(Format.figure(value, unit))")
      }
      let label = max(end, row.runs.map(axis.position).max() ?? end) + 7
      body +=
        "<text x='\(n(label))' y='\(n(y + 13))'>\(Format.figure(row.estimate.value, unit))</text>"
    }
    return svg(title, height, body)
  }

  /// One point per allocator: time against memory; down and left is better.
  static func scatter(title: String, xUnit: Metric.Unit, yUnit: Metric.Unit, series: [Series])
    -> String
  {
    let height = 330.0
    let x = Axis(
      series.flatMap { $0.points.map(\.x) }, xUnit, from: 80, to: width - 110, fromZero: true)
    let y = Axis(
      series.flatMap { $0.points.map(\.y) }, yUnit, from: height - 34, to: 30, fromZero: true)
    var body =
      grid(x, xUnit, top: 30, bottom: height - 34)
      + sideGrid(y, yUnit, left: 80, right: width - 110)
    for one in series {
      for point in one.points {
        let px = x.position(point.x)
        let py = y.position(point.y)
        let tip = "\(one.name): \(Format.figure(point.x, xUnit)), \(Format.figure(point.y, yUnit))"
        body += dot(px, py, 5, one.color, tip)
        body += "<text x='\(n(px + 8))' y='\(n(py + 4))'>\(escaped(one.name))</text>"
      }
    }
    return svg(title, height, body)
  }

  /// Lines with dots: rounds (dots only tell) or RSS over time.
  static func lines(
    title: String, xUnit: Metric.Unit, yUnit: Metric.Unit, fromZero: Bool, dots: Bool,
    series: [Series]
  )
    -> String
  {
    let height = 300.0 + 18 * Double((series.count + 4) / 5)
    let bottom = 266.0
    let x = Axis(
      series.flatMap { $0.points.map(\.x) }, xUnit, from: 80, to: width - 20, fromZero: true)
    let y = Axis(
      series.flatMap { $0.points.map(\.y) }, yUnit, from: bottom, to: 30, fromZero: fromZero)
    var body =
      grid(x, xUnit, top: 30, bottom: bottom) + sideGrid(y, yUnit, left: 80, right: width - 20)
    for one in series {
      let path = one.points.map { "\(n(x.position($0.x))),\(n(y.position($0.y)))" }.joined(
        separator: " ")
      body +=
        "<polyline class='c\(one.color) line' points='\(path)'><title>\(escaped(one.name))</title></polyline>"
      for point in dots ? one.points : [] {
        body += dot(
          x.position(point.x), y.position(point.y), 3, one.color,
          "\(one.name): \(Format.figure(point.y, yUnit))")
      }
    }
    for (index, one) in series.enumerated() {
      let px = 80 + Double(index % 5) * 112
      let py = bottom + 36 + Double(index / 5) * 18
      body +=
        dot(px, py - 4, 4, one.color, one.name)
        + "<text x='\(n(px + 9))' y='\(n(py))'>\(escaped(one.name))</text>"
    }
    return svg(title, height, body)
  }

  // MARK: - Parts

  private static func svg(_ title: String, _ height: Double, _ body: String) -> String {
    "<svg viewBox='0 0 \(n(width)) \(n(height))' role='img' aria-label='\(escaped(title))'>"
      + "<text class='title' x='8' y='16'>\(escaped(title))</text>\(body)</svg>\n"
  }

  private static func grid(_ axis: Axis, _ unit: Metric.Unit, top: Double, bottom: Double) -> String
  {
    axis.ticks.map { tick in
      let x = axis.position(tick)
      return line(x, top, x, bottom, "grid")
        + "<text class='tick' x='\(n(x))' y='\(n(bottom + 14))' text-anchor='middle'>\(tick == 0 ? "0" : Format.figure(tick, unit))</text>"
    }.joined()
  }

  private static func sideGrid(_ axis: Axis, _ unit: Metric.Unit, left: Double, right: Double)
    -> String
  {
    axis.ticks.map { tick in
      let y = axis.position(tick)
      return line(left, y, right, y, "grid")
        + "<text class='tick' x='\(n(left - 6))' y='\(n(y + 4))' text-anchor='end'>\(tick == 0 ? "0" : Format.figure(tick, unit))</text>"
    }.joined()
  }

  private static func line(_ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double, _ style: String)
    -> String
  {
    "<line class='\(style)' x1='\(n(x1))' y1='\(n(y1))' x2='\(n(x2))' y2='\(n(y2))'/>"
  }

  private static func dot(_ x: Double, _ y: Double, _ radius: Double, _ color: Int, _ tip: String)
    -> String
  {
    "<circle class='c\(color) dot' cx='\(n(x))' cy='\(n(y))' r='\(n(radius))'><title>\(escaped(tip))</title></circle>"
  }

  private static func n(_ value: Double) -> String { Format.decimal(value, 1) }

  static func escaped(_ text: String) -> String {
    var result = ""
    for character in text {
      switch character {
      case "&": result += "&amp;"
      case "<": result += "&lt;"
      case ">": result += "&gt;"
      case "'": result += "&#39;"
      case "\"": result += "&quot;"
      default: result.append(character)
      }
    }
    return result
  }
}
