// ReportText.swift: findings as text for people. The first line of each is fixed,
// as in the reports of the library itself, so that scripts find it:
//
//   kegmalloc: ERROR: <class>: <what> at 0x…
//
// Items that a leak check lists without calling them lost have NOTE for ERROR.

import Foundation

struct ReportText {
  /// Paths below this directory are shown relative to it.
  var workingDirectory = FileManager.default.currentDirectoryPath

  func report(_ finding: Finding) -> String {
    let isNote = finding.kind == .leak && !finding.isLost
    let place = finding.kind == .leak && finding.count > 1 ? ", oldest at" : " at"
    var text = "kegmalloc: \(isNote ? "NOTE" : "ERROR"): \(finding.class): \(finding.what)"
    text += "\(place) \(finding.address)\n"
    text += "  \(facts(finding))\n"
    for (label, stack) in finding.stacks.labelled {
      text += "  \(label) by\(stack.thread.map { " thread \($0)" } ?? ""):\n"
      text += frames(stack)
    }
    if let bytes = finding.bytes {
      text += "  bytes, [damaged], | start and end of the block:\n"
      text += ByteDrawing(bytes, size: finding.size).text(indent: "    ")
    }
    return text
  }

  /// `process 12, thread 13: 24 bytes by malloc at 0x…, offset 24, zone malloc-48, after 7 ms`
  func facts(_ finding: Finding) -> String {
    var text = "process \(finding.pids[0])"
    if let thread = finding.thread { text += ", thread \(thread)" }
    var facts: [String] = []
    if let size = finding.size {
      facts.append(
        Format.amount(size, "byte") + (finding.allocation.map { " by \($0)" } ?? "")
          + (finding.block.map { " at \($0)" } ?? ""))
    }
    if let offset = finding.offset { facts.append("offset \(offset)") }
    if let zone = finding.zone { facts.append("zone \(zone)") }
    if let zone = finding.givenTo { facts.append("given to zone \(zone)") }
    if let time = finding.timeMs { facts.append("after \(Format.grouped(time)) ms") }
    return text + (facts.isEmpty ? "" : ": " + facts.joined(separator: ", "))
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

/// Memory around a finding, in rows of 16 bytes, as the library draws it:
///
///     0x7f…40  6c 6c 6f 20 77 6f 72 6c|[64][00] 5a 81 …
struct ByteDrawing {
  struct Byte: Equatable {
    enum Place: String { case before, inside, after, unknown }
    var value: UInt8
    /// From the start of the item.
    var offset: Int
    var place: Place
    var isDamaged: Bool
  }

  let address: UInt64
  let bytes: [Byte]

  init(_ record: BytesRecord, size: Int?) {
    let first = UInt64(hexadecimal: record.address) ?? 0
    let damageStart = record.damageStart.flatMap(UInt64.init(hexadecimal:)) ?? .max
    let damageEnd = record.damageEnd.flatMap(UInt64.init(hexadecimal:)) ?? 0
    let digits = Array(record.hex.utf8)
    address = first
    bytes = stride(from: 0, to: digits.count - 1, by: 2).compactMap { index in
      guard let value = UInt8(String(decoding: digits[index...index + 1], as: UTF8.self), radix: 16)
      else { return nil }
      let offset = record.itemOffset + index / 2
      let place: Byte.Place =
        size.map { offset < 0 ? .before : offset < $0 ? .inside : .after } ?? .unknown
      let at = first + UInt64(index / 2)
      return Byte(
        value: value, offset: offset, place: place, isDamaged: at >= damageStart && at < damageEnd)
    }
  }

  /// Rows of 16, with their addresses.
  var rows: [(address: UInt64, bytes: ArraySlice<Byte>)] {
    stride(from: 0, to: bytes.count, by: 16).map { start in
      (address + UInt64(start), bytes[start..<min(start + 16, bytes.count)])
    }
  }

  func text(indent: String) -> String {
    rows.map { row in
      let cells = row.bytes.indices.map { index in
        let byte = bytes[index]
        let previous = index > 0 ? bytes[index - 1].place : byte.place
        let isBound = byte.offset == 0 || previous != byte.place
        let digits = Self.digits(byte.value)
        return (isBound ? "|" : " ") + (byte.isDamaged ? "[\(digits)]" : digits)
      }
      return indent + "0x" + String(row.address, radix: 16) + " " + cells.joined() + "\n"
    }.joined()
  }

  static func digits(_ byte: UInt8) -> String {
    (byte < 16 ? "0" : "") + String(byte, radix: 16)
  }
}
