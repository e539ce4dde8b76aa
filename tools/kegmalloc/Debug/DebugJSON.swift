// DebugJSON.swift: the findings as JSON, one object a line, for scripts. The schema
// is in docs/debugging.md. The file is written finding by finding, so that it is
// valid whenever the run ends, and once more at the end with the final counts.

import Foundation

final class DebugJSON {
  private let path: String
  private let file: FileHandle

  init(_ path: String) throws(Refusal) {
    guard FileManager.default.createFile(atPath: path, contents: nil),
      let file = FileHandle(forWritingAtPath: path)
    else { throw Refusal(line: "cannot write \(path)") }
    self.path = path
    self.file = file
  }

  func append(_ finding: Finding) {
    file.write(Self.line(finding))
  }

  /// Replaces the file by one that is complete.
  func finish(_ log: FindingLog, _ summary: DebugSummary) {
    var text = Data()
    for finding in log.findings { text += Self.line(finding) }
    text += Self.line(summary)
    do {
      try file.truncate(atOffset: 0)
      try file.write(contentsOf: text)
    } catch {
      complain("cannot write \(path)")
    }
  }

  private static let encoder: JSONEncoder = {
    let encoder = JSONEncoder()
    encoder.keyEncodingStrategy = .convertToSnakeCase
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return encoder
  }()

  /// One object and a newline.
  static func line(_ value: some Encodable) -> Data {
    // Plain values of these types can always be encoded.
    ((try? encoder.encode(value)) ?? Data()) + Data("\n".utf8)
  }
}
