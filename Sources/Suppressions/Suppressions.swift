// Suppressions.swift: which findings the user does not want to hear about.
//
//   # one line: a class, and a pattern for any frame of a stack
//   leak:libfontconfig.so
//   double-free:^legacy_close$
//
//   # a block: a name, a class, and patterns for the innermost frames
//   {
//      the parser keeps its tables
//      kegmalloc:leak
//      match-leak-kinds: definite,cycle
//      fun:table_*
//      ...
//      obj:*/libparser.so*
//   }
//
// One-line rules are those of LeakSanitizer, blocks those of valgrind, whose
// kinds (Memcheck:Leak, :Free, :Addr4 …) are understood too, so that existing
// files serve. The text is read anew for every finding, which is rare, so the
// rules need no memory: the layer works inside the library and in the command.

/// The names of one stack, innermost frame first.
package protocol FrameNames: ~Copyable {
  var frameCount: Int { get }
  /// One name of a frame; empty if it is not known.
  func name(_ kind: FrameName, of frame: Int) -> Bytes
}

package enum FrameName {
  /// The function as the linker names it, for C++ and Swift a mangled name.
  case linkage
  /// The function as people write it.
  case function
  /// The source file.
  case file
  /// The program or library.
  case object
}

/// The rule that hides a finding.
package struct Suppression {
  /// The name of a block, or a one-line rule itself: a part of the text.
  package let name: Bytes
  /// The line it begins in, from 1.
  package let line: Int
}

/// What is wrong with a file, and in which line.
package struct SuppressionError {
  package let line: Int
  package let message: StaticString
}

/// The rules in a text, which must stay where it is as long as they are used.
package struct Suppressions {
  private let text: Bytes

  package init(_ text: Bytes) {
    self.text = text
  }

  /// The first rule that hides a finding of this class with this stack.
  /// - Parameters:
  ///   - findingClass: `leak`, `double-free`, …
  ///   - leakKind: `definite`, `cycle`, … for leaks; else empty.
  package func firstMatch(
    class findingClass: Bytes, leakKind: Bytes, stack: borrowing some FrameNames & ~Copyable
  ) -> Suppression? {
    var lines = Lines(text)
    while let line = lines.next() {
      let number = lines.number
      if line.isEqual(to: "{") {
        let block = Block(after: &lines)
        guard block.error == nil, block.concerns(findingClass, leakKind), block.matches(stack)
        else { continue }
        return Suppression(name: block.name, line: number)
      }
      let colon = line.firstIndex(of: UInt8(ascii: ":"))
      guard colon > 0, line.part(0, colon).trimmed.isClass(findingClass) else { continue }
      let pattern = Pattern(part: line.part(colon + 1, line.count).trimmed)
      if Self.anyFrame(of: stack, matches: pattern) {
        return Suppression(name: line, line: number)
      }
    }
    return nil
  }

  /// The first line that is not a rule.
  package func firstError() -> SuppressionError? {
    var lines = Lines(text)
    while let line = lines.next() {
      let number = lines.number
      if line.isEqual(to: "{") {
        if let error = Block(after: &lines).error {
          return SuppressionError(line: lines.number, message: error)
        }
        continue
      }
      let colon = line.firstIndex(of: UInt8(ascii: ":"))
      guard colon > 0, colon < line.count - 1 else {
        return SuppressionError(line: number, message: "expected class:pattern or a block in { }")
      }
      guard line.part(0, colon).trimmed.isKnownClass else {
        return SuppressionError(line: number, message: "unknown class")
      }
    }
    return nil
  }

  private static func anyFrame(
    of stack: borrowing some FrameNames & ~Copyable, matches pattern: Pattern
  ) -> Bool {
    var frame = 0
    while frame < stack.frameCount {
      if pattern.matches(stack.name(.function, of: frame))
        || pattern.matches(stack.name(.linkage, of: frame))
        || pattern.matches(stack.name(.file, of: frame))
        || pattern.matches(stack.name(.object, of: frame))
      {
        return true
      }
      frame += 1
    }
    return false
  }
}

extension UnsafeRawBufferPointer {
  /// Whether this is the class of a one-line rule for `findingClass`.
  fileprivate func isClass(_ findingClass: Bytes) -> Bool {
    isEqual(to: findingClass) || isEqual(to: "*")
  }

  /// Whether this names a class of findings, or all.
  var isKnownClass: Bool {
    isEqual(to: "leak") || isEqual(to: "double-free") || isEqual(to: "invalid-free")
      || isEqual(to: "use-after-free") || isEqual(to: "overflow") || isEqual(to: "underflow")
      || isEqual(to: "mismatch") || isEqual(to: "bad-size") || isEqual(to: "zone")
      || isEqual(to: "signal") || isEqual(to: "*")
  }
}

/// The lines of a text, trimmed, without empty ones and comments.
struct Lines {
  private let text: Bytes
  private var position = 0
  /// The number of the line given last, from 1.
  private(set) var number = 0

  init(_ text: Bytes) {
    self.text = text
  }

  mutating func next() -> Bytes? {
    while position < text.count {
      let rest = text.part(position, text.count)
      let newline = rest.firstIndex(of: UInt8(ascii: "\n"))
      let line = rest.part(0, newline < 0 ? rest.count : newline).trimmed
      position += newline < 0 ? rest.count : newline + 1
      number += 1
      if line.count > 0 && line[0] != UInt8(ascii: "#") { return line }
    }
    return nil
  }
}
