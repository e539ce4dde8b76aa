// CorruptionTests.swift: a heap that is certainly corrupt ends the process with one
// line that names the address.

import Testing

@Suite("Corruption", .libraryPresent, .ours)
struct CorruptionTests {
  func expectDeath(
    _ kind: String, saying words: [String], sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let outcome = try run([try Fixture.build("corruption"), kind])
    // The first line of the output is the address that was freed wrongly.
    let address = outcome.stdout.split(separator: "\n").first.map(String.init) ?? "no address"
    let begins = words.contains { outcome.stderr.hasPrefix("kegmalloc: \($0) \(address)") }
    let lines = outcome.stderr.split(separator: "\n").count
    outcome.expect(
      outcome.status == .killed(signal: 6) && begins && lines == 1, kind, sourceLocation)
  }

  @Test(
    "freeing a small block twice",
    arguments: [
      "double-small", "double-small-later", "double-medium", "double-thread-exit",
      "double-across-threads",
    ])
  func doubleFree(kind: String) throws {
    try expectDeath(kind, saying: ["double free of"])
  }

  /// The address space of a freed large block may belong to another by now.
  @Test("freeing a large block twice", arguments: ["double-large"])
  func doubleFreeLarge(kind: String) throws {
    try expectDeath(kind, saying: ["double free of", "invalid free of"])
  }

  @Test(
    "freeing what malloc never gave",
    arguments: [
      "interior-small", "interior-medium", "interior-large", "interior-large-far",
      "unaligned-small", "unaligned-large", "stack", "static", "text", "wild", "low",
    ])
  func invalidFree(kind: String) throws {
    try expectDeath(kind, saying: ["invalid free of"])
  }

  @Test("resizing what is not, or no longer, a block", arguments: ["double-realloc", "realloc-stack"])
  func invalidRealloc(kind: String) throws {
    let words = ["double free of", "invalid free of", "realloc of an invalid pointer"]
    try expectDeath(kind, saying: words)
  }
}
