// SymbolizerBackends.swift: the two programs that read debug information for us.

import Foundation

/// llvm-symbolizer: one process, a question and an answer in JSON a line.
final class LLVMSymbolizer: Symbolizing {
  private let process: ChildProcess
  private var isUsable = true

  init?(_ tool: String) {
    guard
      let process = ChildProcess([
        tool, "--output-style=JSON", "--inlines", "--functions=linkage", "--no-demangle",
      ])
    else { return nil }
    self.process = process
  }

  private struct Answer: Decodable {
    var symbol: [Symbol]?
    enum CodingKeys: String, CodingKey { case symbol = "Symbol" }
  }

  private struct Symbol: Decodable {
    var function: String
    var file: String
    var line: Int
    var column: Int
    var start: String
    enum CodingKeys: String, CodingKey {
      case function = "FunctionName"
      case file = "FileName"
      case line = "Line"
      case column = "Column"
      case start = "StartAddress"
    }
  }

  func frames(module: String, address: UInt64) -> [SymbolizedFrame] {
    guard isUsable, !module.contains("\""), !module.contains("\n") else { return [] }
    guard process.send("\"\(module)\" 0x\(String(address, radix: 16))"),
      let line = process.nextLine()
    else {
      isUsable = false
      return []
    }
    guard let answer = try? JSONDecoder().decode(Answer.self, from: Data(line.utf8)) else { return [] }
    return (answer.symbol ?? []).compactMap { symbol in
      guard !symbol.function.isEmpty || !symbol.file.isEmpty else { return nil }
      return SymbolizedFrame(
        function: symbol.function.isEmpty ? nil : symbol.function,
        start: UInt64(hexadecimal: symbol.start), file: symbol.file.isEmpty ? nil : symbol.file,
        line: symbol.line > 0 ? symbol.line : nil, column: symbol.column > 0 ? symbol.column : nil)
    }
  }
}

/// addr2line: one process per module. It does not say where an answer ends, so
/// each question is followed by one that nothing answers, and its echo is the end.
final class AddressToLine: Symbolizing {
  private let tool: String
  private var processes: [String: ChildProcess] = [:]
  private static let sentinel = "0xffffffffffffffff"

  init(_ tool: String) {
    self.tool = tool
  }

  func frames(module: String, address: UInt64) -> [SymbolizedFrame] {
    guard let process = process(for: module) else { return [] }
    guard process.send("0x\(String(address, radix: 16))"), process.send(Self.sentinel),
      process.nextLine() != nil  // the echo of the question
    else { return [] }
    var frames: [SymbolizedFrame] = []
    while let function = process.nextLine(), function != Self.sentinel {
      guard let place = process.nextLine() else { break }
      if let frame = Self.frame(function, place) { frames.append(frame) }
    }
    // What follows the echo of the sentinel: no function, no place.
    _ = process.nextLine()
    _ = process.nextLine()
    return frames
  }

  /// The answer `main` and `/src/main.c:12 (discriminator 3)`.
  static func frame(_ function: String, _ place: String) -> SymbolizedFrame? {
    var frame = SymbolizedFrame(function: function == "??" ? nil : function)
    let end = place.range(of: " (discriminator")?.lowerBound ?? place.endIndex
    if let colon = place[..<end].lastIndex(of: ":") {
      let file = String(place[..<colon])
      frame.file = file == "??" ? nil : file
      frame.line = Int(place[place.index(after: colon)..<end]).flatMap { $0 > 0 ? $0 : nil }
    }
    return frame.function == nil && frame.file == nil ? nil : frame
  }

  private func process(for module: String) -> ChildProcess? {
    if let process = processes[module] { return process }
    guard access(module, R_OK) == 0 else { return nil }
    let process = ChildProcess([tool, "-a", "-f", "-i", "-e", module])
    processes[module] = process
    return process
  }
}
