// SuppressionRules.swift: the suppression files of the command line, and how to
// write a rule for a finding. The matching itself is the layer Suppressions.

import Foundation
import Suppressions

final class SuppressionRules {
  private let files: [(path: String, text: Data)]
  /// How often each rule hid something: `file:line: name`, in the order of first use.
  private(set) var uses: [(rule: String, count: Int)] = []

  /// Reads the files; one that cannot be read, or holds no rules, is an error.
  init(_ paths: [String]) throws(Refusal) {
    var files: [(String, Data)] = []
    for path in paths {
      guard let text = FileManager.default.contents(atPath: path) else {
        throw Refusal(line: "cannot read \(path)")
      }
      if let error = text.withUnsafeBytes({ Suppressions($0).firstError() }) {
        throw Refusal(line: "\(path):\(error.line): \(error.message)")
      }
      files.append((path, text))
    }
    self.files = files
  }

  /// The rule that hides this finding, and counts that it did.
  func rule(for finding: Finding) -> String? {
    for file in files {
      for (_, stack) in finding.stacks.labelled {
        let names = StackNames(stack)
        let found = file.text.withUnsafeBytes { text in
          Self.bytes(finding.class) { findingClass in
            Self.bytes(finding.leak ?? "") { leakKind in
              Suppressions(text).firstMatch(class: findingClass, leakKind: leakKind, stack: names)
                .map { "\(file.path):\($0.line): " + String(decoding: $0.name, as: UTF8.self) }
            }
          }
        }
        if let found { return found }
      }
    }
    return nil
  }

  func count(_ rule: String) {
    if let index = uses.firstIndex(where: { $0.rule == rule }) {
      uses[index].count += 1
    } else {
      uses.append((rule, 1))
    }
  }

  private static func bytes<Result>(
    _ text: String, _ body: (UnsafeRawBufferPointer) -> Result
  ) -> Result {
    Array(text.utf8).withUnsafeBytes { body($0) }
  }

  /// A block that hides this finding: the first frames of the stack that names
  /// what went wrong.
  static func block(for finding: Finding, number: Int) -> String {
    let stacks = finding.stacks
    let stack = finding.isFoundLate ? stacks.allocated : stacks.detected ?? stacks.allocated
    var lines = ["{", "   \(finding.class)-\(number)", "   kegmalloc:\(finding.class)"]
    if let leak = finding.leak { lines.append("   match-leak-kinds: \(leak)") }
    for frame in (stack?.frames ?? []).prefix(framesOfBlock) {
      if let function = frame.linkage ?? frame.function {
        lines.append("   fun:\(function)")
      } else {
        lines.append("   obj:\(frame.module ?? "*")")
      }
    }
    return (lines + ["}"]).joined(separator: "\n") + "\n"
  }

  /// Enough to tell callers apart, few enough to survive changes further out.
  static let framesOfBlock = 6
}

/// The names of one stack in one piece of memory, as the layer wants them.
private struct StackNames: FrameNames, ~Copyable {
  private let names: UnsafeMutableRawBufferPointer
  private var ends: [Int] = [0]
  let frameCount: Int

  init(_ stack: Stack) {
    var bytes: [UInt8] = []
    for frame in stack.frames {
      for name in [frame.linkage ?? frame.function, frame.function, frame.file, frame.module] {
        bytes += (name ?? "").utf8
        ends.append(bytes.count)
      }
    }
    names = .allocate(byteCount: bytes.count, alignment: 1)
    names.copyBytes(from: bytes)
    frameCount = stack.frames.count
  }

  deinit { names.deallocate() }

  func name(_ kind: FrameName, of frame: Int) -> UnsafeRawBufferPointer {
    let column =
      switch kind {
      case .linkage: 0
      case .function: 1
      case .file: 2
      case .object: 3
      }
    let index = frame * 4 + column
    return UnsafeRawBufferPointer(rebasing: names[ends[index]..<ends[index + 1]])
  }
}
