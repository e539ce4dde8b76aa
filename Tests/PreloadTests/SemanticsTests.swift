// SemanticsTests.swift: what malloc and its relatives answer, to the letter.

import Testing

@Suite("Semantics", .libraryPresent)
struct SemanticsTests {
  @Test("zero sizes, impossible sizes, errno")
  func zeroAndErrno() throws { try expectOK("zero_and_errno") }

  @Test("alignments from 8 bytes to 1 GiB")
  func alignment() throws { try expectOK("alignment") }

  @Test("an alignment that is no power of two is refused", .ours)
  func badAlignment() throws { try expectOK("bad_alignment") }

  @Test("size classes: natural alignment, at most 12.5 % waste", .ours)
  func classShape() throws { try expectOK("class_shape") }

  @Test("the usable size is writable and constant")
  func usableSize() throws { try expectOK("usable_size") }

  @Test("calloc gives zeros after dirty reuse")
  func callocZero() throws { try expectOK("calloc_zero") }

  @Test("realloc keeps the contents")
  func reallocContent() throws { try expectOK("realloc_content") }

  @Test("realloc in small steps copies little, and gives back what is no longer needed", .ours)
  func reallocSteps() throws { try expectOK("realloc_steps") }

  @Test("calloc of used memory gives zeros, and a nearly empty table takes few pages", .ours)
  func sparseTables() throws { try expectOK("sparse_tables") }

  @Test("out of memory is survived", arguments: ["small", "large", "mixed"])
  func outOfMemory(kind: String) throws { try expectOK("out_of_memory", [kind]) }

  @Test("the 20 C++ operators")
  func cxxOperators() throws { try expectOK("cxx_operators") }

  @Test("operator new without a C++ library", .ours)
  func cxxWithoutLibrary() throws {
    try expectOK("cxx_without_library", flags: ["-ldl"])
    let outcome = try run([try Fixture.build("cxx_without_library", flags: ["-ldl"]), "die"])
    outcome.expect(outcome.status == .killed(signal: 6))
    outcome.expect(outcome.stderr.hasPrefix("kegmalloc: "))
    outcome.expect(outcome.stderr.split(separator: "\n").count == 1)
  }
}
