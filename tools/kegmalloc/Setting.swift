// Setting.swift: checks the `key:value` pairs of `-o` before the program starts,
// so that a slip of the finger is an error here and not a warning in its output.

/// One option that may be set.
struct KnownOption: Equatable {
  var key: String
  var unit: String
  var defaultText: String
  var rangeText: String
  var help: String
}

enum Setting {
  /// The pairs of one `-o` argument, which may hold several, comma-separated.
  /// - Parameter accepts: whether the library takes a pair of a known key.
  static func parse(
    _ argument: String, known: [KnownOption],
    accepts: (String) -> Bool = KnownOption.libraryAccepts
  ) throws(Refusal) -> [String] {
    var settings: [String] = []
    for part in argument.split(separator: ",", omittingEmptySubsequences: false) {
      let pair = part.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
      guard pair.count == 2, !pair[0].isEmpty, !pair[1].isEmpty else {
        throw Refusal(line: "-o \(argument): expected key:value")
      }
      let key = String(pair[0])
      guard let option = known.first(where: { $0.key == key }) else {
        let nearest = known.map(\.key).min { distance($0, key) < distance($1, key) } ?? ""
        throw Refusal(line: "-o \(argument): unknown option \(key); did you mean \(nearest)?")
      }
      if !accepts(String(part)) {
        throw Refusal(line: "-o \(argument): bad value for \(key); expected \(option.rangeText)")
      }
      settings.append(String(part))
    }
    return settings
  }

  /// Levenshtein distance: how many letters to insert, drop or replace.
  static func distance(_ a: String, _ b: String) -> Int {
    let b = Array(b.utf8)
    var row = Array(0...b.count)
    for (index, letter) in a.utf8.enumerated() {
      var diagonal = row[0]
      row[0] = index + 1
      for column in 0..<b.count {
        let replaced = diagonal + (letter == b[column] ? 0 : 1)
        diagonal = row[column + 1]
        row[column + 1] = min(replaced, diagonal + 1, row[column] + 1)
      }
    }
    return row[b.count]
  }

  /// The table that `--help-options` prints.
  static func table(_ known: [KnownOption]) -> String {
    let rows = known.map { [$0.key, $0.defaultText, $0.rangeText, $0.unit, $0.help] }
    let all = [["key", "default", "range", "unit", "meaning"]] + rows
    let widths = (0..<4).map { column in all.map { $0[column].count }.max() ?? 0 }
    return all.map { row in
      var line = ""
      for (column, width) in widths.enumerated() {
        line += row[column] + String(repeating: " ", count: width - row[column].count + 2)
      }
      return line + row[4] + "\n"
    }.joined()
  }
}
