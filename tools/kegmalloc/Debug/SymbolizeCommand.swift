// SymbolizeCommand.swift: `kegmalloc symbolize`: reads a text report that the debug
// library wrote by itself, and names source files and lines in its stacks.
//
//     #1 0x55e0c1a0 read_line+0x4f (/usr/bin/prog+0x11a0)
//     #1 0x55e0c1a0 grow buffer.c:17:9 (inlined)
//     #2 0x55e0c1a0 read_line reader.c:42:12
//
// All other lines pass through.

import ArgumentParser
import Foundation

struct Symbolize: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Name source files and lines in a report of the debug library: symbolize < log.",
    discussion: """
      Reads standard input and writes standard output. It has to run where the programs and \
      libraries of the report are, unchanged.
      """)

  func run() throws {
    var rewriter = LogRewriter(symbolizer: Symbolizer())
    while let line = readLine(strippingNewline: true) {
      let text = rewriter.rewrite(line).map { $0 + "\n" }.joined()
      // Unbuffered: a report that is still being written should not wait.
      FileHandle.standardOutput.write(Data(text.utf8))
    }
  }
}

/// One line in, one or more out.
struct LogRewriter {
  let symbolizer: Symbolizer
  private let text = ReportText()
  /// How many frames were added to the stack under way.
  private var added = 0

  init(symbolizer: Symbolizer) {
    self.symbolizer = symbolizer
  }

  mutating func rewrite(_ line: String) -> [String] {
    guard let (indent, number, frame) = Self.frame(line) else { return [line] }
    if number == 0 { added = 0 }
    let frames = symbolizer.frames(frame)
    guard frames.contains(where: { $0.file != nil }) else {
      return ["\(indent)#\(number + added) " + line.drop { $0 != "#" }.drop { $0 != " " }.dropFirst()]
    }
    let lines = frames.enumerated().map { index, frame in
      "\(indent)#\(number + added + index) \(text.line(frame))"
    }
    added += frames.count - 1
    return lines
  }

  /// The parts of `    #1 0x55e0c1a0 read_line+0x4f (/usr/bin/prog+0x11a0)`; nil for
  /// any other line.
  static func frame(_ line: String) -> (indent: String, number: Int, frame: FrameRecord)? {
    let indent = line.prefix { $0 == " " || $0 == "\t" }
    let words = line.dropFirst(indent.count)
    guard words.hasPrefix("#"), words.hasSuffix(")"),
      let open = words.range(of: " (", options: .backwards),
      let plus = words[open.upperBound...].range(of: "+0x", options: .backwards)
    else { return nil }
    let head = words[..<open.lowerBound].split(separator: " ", maxSplits: 2)
    guard head.count >= 2, let number = Int(head[0].dropFirst()), head[1].hasPrefix("0x") else {
      return nil
    }
    var function = head.count == 3 ? String(head[2]) : nil
    if let name = function, let distance = name.range(of: "+0x", options: .backwards) {
      function = String(name[..<distance.lowerBound])
    }
    if function == "??" { function = nil }
    return (
      String(indent), number,
      FrameRecord(
        pc: String(head[1]), module: String(words[open.upperBound..<plus.lowerBound]),
        offset: "0x" + words[plus.upperBound..<words.index(before: words.endIndex)],
        function: function)
    )
  }
}
