// Pattern.swift: does a name match a pattern? Bytes in, a Bool out: no allocation.
//
//   pattern   *  any bytes          ?  any one byte (blocks only)
//             ^  here the name begins, $  here it ends (one-line rules only)
//
//   one line  `leak:pool_*_get`   somewhere in the name, unless ^ and $ say otherwise
//   block     `fun:pool_*_get`    the whole name

package typealias Bytes = UnsafeRawBufferPointer

/// A pattern and how much of the name it has to cover.
struct Pattern {
  private let text: Bytes
  private let startsAnywhere: Bool
  private let endsAnywhere: Bool
  private let hasQuestionMarks: Bool

  /// A pattern for a whole name.
  init(whole text: Bytes) {
    self.text = text
    startsAnywhere = false
    endsAnywhere = false
    hasQuestionMarks = true
  }

  /// A pattern for any part of a name.
  init(part text: Bytes) {
    let start = text.count > 0 && text[0] == UInt8(ascii: "^") ? 1 : 0
    let end =
      text.count > start && text[text.count - 1] == UInt8(ascii: "$") ? text.count - 1 : text.count
    self.text = text.part(start, end)
    startsAnywhere = start == 0
    endsAnywhere = end == text.count
    hasQuestionMarks = false
  }

  /// Whether `name` matches; an empty name, which stands for an unknown one, only
  /// matches a pattern of stars.
  /// - Complexity: O(pattern × name) at worst, O(name) for patterns with one star.
  func matches(_ name: Bytes) -> Bool {
    var at = 0
    var inName = 0
    // Where both go on when the last star takes one byte more.
    var afterStar = startsAnywhere ? 0 : -1
    var starEnd = 0
    while true {
      if at == text.count && (endsAnywhere || inName == name.count) {
        return name.count > 0 || isOnlyStars
      }
      if at < text.count && text[at] == UInt8(ascii: "*") {
        at += 1
        afterStar = at
        starEnd = inName
        continue
      }
      if at < text.count, inName < name.count,
        text[at] == name[inName] || (hasQuestionMarks && text[at] == UInt8(ascii: "?"))
      {
        at += 1
        inName += 1
        continue
      }
      guard afterStar >= 0, starEnd < name.count else { return false }
      starEnd += 1
      inName = starEnd
      at = afterStar
    }
  }

  private var isOnlyStars: Bool {
    var i = 0
    while i < text.count {
      if text[i] != UInt8(ascii: "*") { return false }
      i += 1
    }
    return true
  }
}

extension UnsafeRawBufferPointer {
  /// The bytes from `start` up to, not including, `end`.
  func part(_ start: Int, _ end: Int) -> Bytes {
    Bytes(rebasing: self[start..<end])
  }

  /// Without the blanks at both ends.
  var trimmed: Bytes {
    var start = 0
    var end = count
    while start < end && Self.isBlank(self[start]) { start += 1 }
    while end > start && Self.isBlank(self[end - 1]) { end -= 1 }
    return part(start, end)
  }

  private static func isBlank(_ byte: UInt8) -> Bool {
    byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") || byte == UInt8(ascii: "\r")
  }

  func isEqual(to word: StaticString) -> Bool {
    count == word.utf8CodeUnitCount && hasPrefix(word)
  }

  func isEqual(to other: Bytes) -> Bool {
    guard count == other.count else { return false }
    var i = 0
    while i < count {
      if self[i] != other[i] { return false }
      i += 1
    }
    return true
  }

  func hasPrefix(_ word: StaticString) -> Bool {
    guard count >= word.utf8CodeUnitCount else { return false }
    var i = 0
    while i < word.utf8CodeUnitCount {
      if self[i] != word.utf8Start[i] { return false }
      i += 1
    }
    return true
  }

  /// The index of the first `byte`, or -1.
  func firstIndex(of byte: UInt8) -> Int {
    var i = 0
    while i < count {
      if self[i] == byte { return i }
      i += 1
    }
    return -1
  }

  /// Whether one of the parts between commas, trimmed, is `word`.
  func lists(_ word: Bytes) -> Bool {
    var rest = self
    while true {
      let comma = rest.firstIndex(of: UInt8(ascii: ","))
      if rest.part(0, comma < 0 ? rest.count : comma).trimmed.isEqual(to: word) { return true }
      if comma < 0 { return false }
      rest = rest.part(comma + 1, rest.count)
    }
  }
}
