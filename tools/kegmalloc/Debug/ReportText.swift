// ReportText.swift: findings as text for people. The first line of each is fixed,
// as in the reports of the library itself, so that scripts find it:
//
//   kegmalloc: ERROR: <class>: <what> at 0x…

import Foundation

struct ReportText {
  /// Paths below this directory are shown relative to it.
  var workingDirectory = FileManager.default.currentDirectoryPath

  func report(_ finding: Finding) -> String {
    var text = "kegmalloc: ERROR: \(finding.class): \(finding.what) at \(finding.address)\n"
    let facts = facts(finding)
    if !facts.isEmpty { text += "  " + facts.joined(separator: ", ") + "\n" }
    for (label, stack) in finding.stacks.labelled {
      text += "  \(label) by\(stack.thread.map { " thread \($0)" } ?? ""):\n"
      text += frames(stack)
    }
    if let bytes = finding.bytes {
      text += ByteDrawing(bytes, size: finding.size, mark: finding.offset).text(indent: "    ")
    }
    return text
  }

  func facts(_ finding: Finding) -> [String] {
    var facts = ["process \(finding.pids[0])"]
    if let thread = finding.thread { facts.append("thread \(thread)") }
    if finding.kind == .finding, let size = finding.size {
      facts.append(Format.amount(size, "byte") + (finding.allocation.map { " from \($0)" } ?? ""))
    }
    if let zone = finding.zone { facts.append("zone \(zone)") }
    if let offset = finding.offset { facts.append("offset \(offset)") }
    if let access = finding.access { facts.append(access) }
    if let time = finding.timeMs { facts.append("after \(Format.grouped(time)) ms") }
    return facts
  }

  func frames(_ stack: Stack) -> String {
    shown(stack).enumerated().map { "    #\($0) \(line($1))\n" }.joined()
  }

  /// Without what starts programs and threads, unless that is all there is.
  func shown(_ stack: Stack) -> [Frame] {
    var frames = stack.frames[...]
    while let last = frames.last, AllocatorFrames.isStart(last) { frames.removeLast() }
    return frames.isEmpty ? stack.frames : Array(frames)
  }

  /// `0x55… parse(char const*) parser.cc:31:7`, or the place in the module if the
  /// source is not known.
  func line(_ frame: Frame) -> String {
    var text = frame.pc + " " + (frame.function ?? "??")
    if let file = frame.file {
      text += " " + place(file, frame.line, frame.column)
      if frame.inlined == true { text += " (inlined)" }
    } else {
      if let distance = frame.distance { text += "+0x\(String(distance, radix: 16))" }
      if let module = frame.module { text += " (\(module)+\(frame.offset ?? "0x0"))" }
    }
    return text
  }

  func place(_ file: String, _ line: Int?, _ column: Int?) -> String {
    var text = file
    if text.hasPrefix(workingDirectory + "/") { text.removeFirst(workingDirectory.count + 1) }
    if let line { text += ":\(line)" }
    if line != nil, let column { text += ":\(column)" }
    return text
  }
}

/// Memory around a finding, in rows of 16 bytes, with the item's ends drawn in:
///
///     0x7f…40  +32  6c 6c 6f 20 77 6f 72 6c|64>00 5a 81 …
///
/// `|` is where the item begins or ends, `>` stands before the byte in question.
struct ByteDrawing {
  struct Byte: Equatable {
    enum Place: String { case before, inside, after, unknown }
    var value: UInt8
    /// From the start of the item.
    var offset: Int
    var place: Place
    var isMarked = false
  }

  let address: UInt64
  let bytes: [Byte]

  init(_ record: BytesRecord, size: Int?, mark: Int?) {
    address = UInt64(hexadecimal: record.address) ?? 0
    let digits = Array(record.hex.utf8)
    bytes = stride(from: 0, to: digits.count - 1, by: 2).compactMap { index in
      guard let value = UInt8(String(decoding: digits[index...index + 1], as: UTF8.self), radix: 16)
      else { return nil }
      let offset = record.itemOffset + index / 2
      let place: Byte.Place =
        size.map { offset < 0 ? .before : offset < $0 ? .inside : .after } ?? .unknown
      return Byte(value: value, offset: offset, place: place, isMarked: offset == mark)
    }
  }

  /// Rows of 16, with their addresses.
  var rows: [(address: UInt64, bytes: ArraySlice<Byte>)] {
    stride(from: 0, to: bytes.count, by: 16).map { start in
      (address + UInt64(start), bytes[start..<min(start + 16, bytes.count)])
    }
  }

  /// What stands before a byte.
  func separator(before index: Int) -> String {
    if bytes[index].isMarked { return ">" }
    let previous = index > bytes.startIndex ? bytes[index - 1].place : bytes[index].place
    return previous == bytes[index].place ? " " : "|"
  }

  func text(indent: String) -> String {
    rows.map { row in
      let offset = row.bytes.first?.offset ?? 0
      let label = (offset < 0 ? "" : "+") + String(offset)
      let padding = String(repeating: " ", count: max(0, 6 - label.count))
      let cells = row.bytes.indices.map { index in
        separator(before: index) + Self.digits(bytes[index].value)
      }
      let characters = row.bytes.map { byte in
        (0x20..<0x7f).contains(byte.value) ? String(UnicodeScalar(byte.value)) : "."
      }
      let gap = String(repeating: "   ", count: 16 - row.bytes.count)
      return indent + "0x" + String(row.address, radix: 16) + padding + label + " "
        + cells.joined() + gap + "  " + characters.joined() + "\n"
    }.joined()
  }

  static func digits(_ byte: UInt8) -> String {
    (byte < 16 ? "0" : "") + String(byte, radix: 16)
  }
}
