// CorruptionTests.swift: a heap that is certainly corrupt ends the process with one
// line that names the address.

import Testing

@Suite("Corruption", .libraryPresent, .ours)
struct CorruptionTests {
  func expectDeath(
    _ kind: String, saying words: [String], sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let outcome = try run([try Fixture.build("corruption"), kind], timeout: 20)
    #expect(outcome.status == .killed(signal: 6), "\(outcome.report)", sourceLocation: sourceLocation)
    // The first line of the output is the address that was freed wrongly.
    let address = outcome.stdout.split(separator: "\n").first.map(String.init) ?? "no address"
    let begins = words.contains { outcome.stderr.hasPrefix("kegmalloc: \($0) of \(address)") }
    #expect(begins, "\(outcome.report)", sourceLocation: sourceLocation)
    #expect(outcome.stderr.split(separator: "\n").count == 1, sourceLocation: sourceLocation)
  }

  @Test(
    "freeing a small block twice",
    arguments: [
      "double-small", "double-small-later", "double-medium", "double-thread-exit",
      "double-across-threads",
    ])
  func doubleFree(kind: String) throws {
    try expectDeath(kind, saying: ["double free"])
  }

  /// The address space of a freed large block may belong to another by now.
  @Test("freeing a large block twice", arguments: ["double-large", "double-realloc"])
  func doubleFreeLarge(kind: String) throws {
    try expectDeath(kind, saying: ["double free", "invalid free"])
  }

  @Test(
    "freeing what malloc never gave",
    arguments: [
      "interior-small", "interior-medium", "interior-large", "interior-large-far",
      "unaligned-small", "unaligned-large", "stack", "static", "text", "wild", "low",
      "realloc-stack",
    ])
  func invalidFree(kind: String) throws {
    try expectDeath(kind, saying: ["invalid free"])
  }
}
