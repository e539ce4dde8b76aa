// Symbolizer.swift: from an address in a file to functions, source files and lines.
//
// llvm-symbolizer is started once and asked line by line; where it is missing,
// addr2line does the same, one process per file of code. What neither knows keeps
// the ELF symbol that the library found. Answers are kept: bugs repeat stacks.

import Foundation

/// One answer of a symboliser: a function, the innermost of an inlined chain first.
struct SymbolizedFrame: Equatable {
  /// As the linker knows it, or as the debug information names it.
  var function: String?
  /// Where the function starts, as the linker assigned it.
  var start: UInt64?
  var file: String?
  var line: Int?
  var column: Int?
}

protocol Symbolizing: AnyObject {
  /// The functions at an address of a module, innermost first; empty if unknown.
  func frames(module: String, address: UInt64) -> [SymbolizedFrame]
}

final class Symbolizer {
  private struct Place: Hashable {
    var module: String
    var address: UInt64
  }

  private let backend: (any Symbolizing)?
  private var known: [Place: [SymbolizedFrame]] = [:]

  init(backend: (any Symbolizing)? = Symbolizer.installed()) {
    self.backend = backend
  }

  /// llvm-symbolizer if it can be found, else addr2line.
  static func installed(
    path: String? = ProcessInfo.processInfo.environment["PATH"]
  ) -> (any Symbolizing)? {
    for name in ["llvm-symbolizer"] + (11...22).reversed().map({ "llvm-symbolizer-\($0)" }) {
      if let tool = try? Launch.locate(name, path: path), let backend = LLVMSymbolizer(tool) {
        return backend
      }
    }
    return (try? Launch.locate("addr2line", path: path)).map { AddressToLine($0) }
  }

  /// The frames of a stack, with inlined functions, from the caller of the
  /// allocator outwards.
  func stack(_ record: StackRecord?) -> Stack? {
    guard let record else { return nil }
    let frames = record.frames.drop { AllocatorFrames.isOurs($0.module) }.flatMap(frames)
    return Stack(thread: record.thread, frames: AllocatorFrames.cut(frames))
  }

  func stacks(_ record: StacksRecord?) -> Stacks {
    Stacks(
      detected: stack(record?.detected), allocated: stack(record?.allocated),
      freed: stack(record?.freed))
  }

  /// One address, as one frame or several.
  func frames(_ record: FrameRecord) -> [Frame] {
    let plain = Frame(
      pc: record.pc, module: record.module, offset: record.offset,
      function: record.function.map(Demangler.readable), linkage: record.function)
    guard let module = record.module, let address = record.offset.flatMap(UInt64.init(hexadecimal:))
    else { return [plain.withoutRedundantName] }
    let answers = lookUp(Place(module: module, address: address))
    if answers.isEmpty { return [plain.withoutRedundantName] }
    return answers.enumerated().map { index, answer in
      var frame = plain
      let isInlined = index < answers.count - 1
      // Without debug information the ELF symbol is the better guess of the two.
      if let name = answer.function, isInlined || record.function == nil || answer.file != nil {
        let full = plain.function ?? ""
        // Of a static function the debug information has the short name only.
        let isShort = !isInlined && full.hasPrefix(name + "(")
        frame.function = isShort ? full : Demangler.readable(name)
        frame.linkage = isInlined ? name : record.function ?? name
      }
      frame.file = answer.file
      frame.line = answer.line
      frame.column = answer.column
      if isInlined { frame.inlined = true }
      if let start = answer.start, address >= start { frame.distance = Int(address - start) }
      return frame.withoutRedundantName
    }
  }

  private func lookUp(_ place: Place) -> [SymbolizedFrame] {
    if let frames = known[place] { return frames }
    let frames = backend?.frames(module: place.module, address: place.address) ?? []
    known[place] = frames
    return frames
  }
}

extension Frame {
  fileprivate var withoutRedundantName: Frame {
    var copy = self
    if linkage == function { copy.linkage = nil }
    return copy
  }
}

/// Frames that say nothing about the program.
enum AllocatorFrames {
  static func isOurs(_ module: String?) -> Bool {
    guard let name = module?.split(separator: "/").last else { return false }
    return name.hasPrefix("libkegmalloc")
  }

  /// Without allocation functions at the inner end, where they are linked into the program.
  static func cut(_ frames: [Frame]) -> [Frame] {
    let outer = frames.drop { frame in
      guard let function = frame.function else { return false }
      return names.contains(function) || function.hasPrefix("operator new")
        || function.hasPrefix("operator delete")
    }
    return outer.isEmpty ? frames : Array(outer)
  }

  /// What starts programs and threads: outside main, of no interest in a report.
  static func isStart(_ frame: Frame) -> Bool {
    let name = frame.linkage ?? frame.function ?? ""
    return ["_start", "__clone", "__clone3", "clone", "clone3", "start_thread"].contains(name)
      || name.hasPrefix("__libc_start") || name.hasPrefix("generic_start_main")
  }

  private static let names: Set<String> = [
    "malloc", "free", "calloc", "realloc", "reallocarray", "posix_memalign", "aligned_alloc",
    "memalign", "cfree",
  ]
}

extension UInt64 {
  /// A number written as `0x1f`.
  init?(hexadecimal text: String) {
    guard text.hasPrefix("0x") else { return nil }
    self.init(text.dropFirst(2), radix: 16)
  }
}
