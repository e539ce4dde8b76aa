// Format.swift: numbers as people read them.
import Foundation

enum Format {
  static func decimal(_ value: Double, _ digits: Int) -> String {
    String(format: "%.\(digits)f", value)
  }

  static func seconds(_ value: Double) -> String {
    if value >= 100 { return decimal(value, 1) + " s" }
    if value >= 1 { return decimal(value, 2) + " s" }
    return decimal(value * 1000, value >= 0.1 ? 0 : value >= 0.01 ? 1 : 2) + " ms"
  }

  static func bytes(_ value: Double) -> String {
    let mebibyte = 1_048_576.0
    if value >= 1024 * mebibyte { return decimal(value / mebibyte / 1024, 2) + " GiB" }
    if value >= mebibyte { return decimal(value / mebibyte, 1) + " MiB" }
    return decimal(value / 1024, 0) + " KiB"
  }

  static func count(_ value: Double) -> String {
    if value >= 1e9 { return decimal(value / 1e9, 2) + "G" }
    if value >= 1e7 { return decimal(value / 1e6, 1) + "M" }
    if value >= 1e4 { return decimal(value / 1e3, 1) + "k" }
    return decimal(value, value == value.rounded() ? 0 : 1)
  }

  static func figure(_ value: Double, _ unit: Metric.Unit) -> String {
    switch unit {
    case .seconds: seconds(value)
    case .bytes: bytes(value)
    case .count, .score: count(value)
    }
  }

  static func ratio(_ value: Double) -> String { decimal(value, value < 10 ? 3 : 1) }

  /// Pads cells to columns: the first flush left, the others flush right.
  static func table(_ rows: [[String]]) -> String {
    let columns = rows.map(\.count).max() ?? 0
    let widths = (0..<columns).map { column in
      rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0
    }
    return rows.map { row in
      let cells = row.enumerated().map { column, cell in
        let padding = String(repeating: " ", count: widths[column] - cell.count)
        return column == 0 ? cell + padding : padding + cell
      }
      return "  " + cells.joined(separator: "  ").trimmingTrailingSpaces
    }.joined(separator: "\n") + "\n"
  }
}

extension String {
  var trimmingTrailingSpaces: String {
    var copy = self
    while copy.last == " " { copy.removeLast() }
    return copy
  }
}
