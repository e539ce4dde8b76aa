// Support.swift: stacks of made-up frames, and rules given as strings.
import Suppressions

/// One frame: the names are empty when not known.
struct Frame {
  var function = ""
  var linkage = ""
  var file = ""
  var object = ""

  init(_ function: String, linkage: String = "", file: String = "", object: String = "/bin/prog") {
    self.function = function
    self.linkage = linkage
    self.file = file
    self.object = object
  }
}

/// A stack whose names stay in one place as long as it lives.
struct Stack: FrameNames, ~Copyable {
  private let names: UnsafeMutableRawBufferPointer
  private var ranges: [Range<Int>] = []
  let frameCount: Int

  init(_ frames: [Frame]) {
    var bytes: [UInt8] = []
    for frame in frames {
      for name in [frame.linkage, frame.function, frame.file, frame.object] {
        ranges.append(bytes.count..<bytes.count + name.utf8.count)
        bytes += name.utf8
      }
    }
    names = .allocate(byteCount: bytes.count, alignment: 1)
    names.copyBytes(from: bytes)
    frameCount = frames.count
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
    return UnsafeRawBufferPointer(rebasing: names[ranges[frame * 4 + column]])
  }
}

/// The name and line of the rule that hides the finding; nil if none does.
func hidden(
  by rules: String, class findingClass: String = "leak", kind: String = "", _ frames: [Frame]
) -> String? {
  let (rules, findingClass, kind) = (Array(rules.utf8), Array(findingClass.utf8), Array(kind.utf8))
  let stack = Stack(frames)
  return rules.withUnsafeBytes { rules in
    findingClass.withUnsafeBytes { findingClass in
      kind.withUnsafeBytes { kind in
        Suppressions(rules).firstMatch(class: findingClass, leakKind: kind, stack: stack).map {
          "\(String(decoding: $0.name, as: UTF8.self)) (\($0.line))"
        }
      }
    }
  }
}

/// The first error of the rules, as `line: message`.
func firstError(of rules: String) -> String? {
  Array(rules.utf8).withUnsafeBytes { rules in
    Suppressions(rules).firstError().map { "\($0.line): \($0.message)" }
  }
}
