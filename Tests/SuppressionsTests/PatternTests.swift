import Testing

@testable import Suppressions

private func matches(whole pattern: String, _ name: String) -> Bool {
  Array(pattern.utf8).withUnsafeBytes { pattern in
    Array(name.utf8).withUnsafeBytes { Pattern(whole: pattern).matches($0) }
  }
}

private func matches(part pattern: String, _ name: String) -> Bool {
  Array(pattern.utf8).withUnsafeBytes { pattern in
    Array(name.utf8).withUnsafeBytes { Pattern(part: pattern).matches($0) }
  }
}

@Suite("Suppressions: patterns")
struct PatternTests {
  @Test(
    "a block's pattern is for the whole name",
    arguments: [
      ("main", "main", true), ("main", "mains", false), ("main", "amain", false),
      ("m*n", "main", true), ("m*n", "mn", true), ("m*n", "mane", false),
      ("m??n", "main", true), ("m??n", "man", false),
      ("*", "anything", true), ("**x", "axbx", true), ("a*b*c", "a-b-b-c", true),
      ("a*b*c", "a-c-b", false), ("*/lib/*.so", "/usr/lib/z.so", true), ("", "x", false),
    ])
  func whole(pattern: String, name: String, expected: Bool) {
    #expect(matches(whole: pattern, name) == expected)
  }

  @Test(
    "a one-line pattern is for any part, unless it is anchored",
    arguments: [
      ("ai", "main", true), ("^main", "mainly", true), ("^ain", "main", false),
      ("ain$", "main", true), ("mai$", "main", false), ("^main$", "main", true),
      ("^main$", "maine", false), ("m*n$", "moon man", true), ("a?c", "abc", false),
      ("a?c", "xa?cx", true), ("b*d", "abcde", true), ("b*f", "abcde", false),
    ])
  func part(pattern: String, name: String, expected: Bool) {
    #expect(matches(part: pattern, name) == expected)
  }

  @Test("an unknown name matches stars only", arguments: ["*", "**", "x", "^", "x*"])
  func unknownName(pattern: String) {
    #expect(matches(whole: pattern, "") == pattern.allSatisfy { $0 == "*" })
  }

  @Test("many stars cost no more than pattern times name")
  func manyStars() {
    let pattern = String(repeating: "a*", count: 200) + "b"
    #expect(!matches(whole: pattern, String(repeating: "a", count: 20_000)))
  }
}
