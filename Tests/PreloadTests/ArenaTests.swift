// ArenaTests.swift: the arena calls of kegmalloc.h, from C programs that link the
// library: as they are, and preloaded as well.

import Foundation
import Testing

/// How a program is brought to the library.
enum Linkage: String, CaseIterable, CustomTestStringConvertible {
  case linked
  case linkedAndPreloaded

  var testDescription: String { rawValue }
  var isPreloaded: Bool { self == .linkedAndPreloaded }

  /// Compiler flags that link a fixture with the library.
  static let flags = [
    "-I\(Repository.root)/shim/include", "-L\(Repository.root)/out/lib", "-lkegmalloc",
    "-Wl,-rpath,\(Repository.root)/out/lib",
  ]

  func run(_ name: String, _ arguments: [String], timeout: Double = 120) throws -> Outcome {
    try PreloadTests.run(
      [try Fixture.build(name, flags: Linkage.flags)] + arguments, preload: isPreloaded,
      timeout: timeout)
  }

  func expectOK(
    _ name: String, _ arguments: [String], _ sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let outcome = try run(name, arguments)
    outcome.expect(
      outcome.succeeded && outcome.stdout.hasSuffix("ok\n") && outcome.stderr == "",
      "\(name) \(arguments)", sourceLocation)
  }
}

@Suite("Arenas", .libraryPresent, .ours)
struct ArenaTests {
  @Test("A01: identifiers 100 to 299, each once", arguments: Linkage.allCases)
  func identifiers(linkage: Linkage) throws { try linkage.expectOK("arenas", ["identifiers"]) }

  @Test("A02: segments cover their spans and no two free ones touch")
  func walking() throws { try Linkage.linked.expectOK("arenas", ["walking"]) }

  @Test("A03: instant fit, best fit, and the one that becomes the other")
  func fits() throws { try Linkage.linked.expectOK("arenas", ["fits"]) }

  @Test("A04: 100,000 constrained requests agree with a model of every integer")
  func constraints() throws { try Linkage.linked.expectOK("arenas", ["constraints"]) }

  @Test("A05: spans come from the source and go back to it once", arguments: Linkage.allCases)
  func stacking(linkage: Linkage) throws { try linkage.expectOK("arenas", ["stacking"]) }

  @Test("A06, A10: frees need no memory, and neither do reserved allocations")
  func noMemory() throws { try Linkage.linked.expectOK("arenas", ["no-memory"]) }

  @Test("A07, A08, A09, A11: tables and tags follow use; sizes and the limit")
  func sizes() throws { try Linkage.linked.expectOK("arenas", ["sizes"]) }

  @Test("A12: the segment around an address, also the heap's", arguments: Linkage.allCases)
  func whereabouts(linkage: Linkage) throws { try linkage.expectOK("arenas", ["whereabouts"]) }

  @Test("A13, A14: the quantum caches serve a page loop; reap empties them")
  func caches() throws { try Linkage.linked.expectOK("arenas", ["caches"]) }

  @Test("there is one copy of the allocator", arguments: Linkage.allCases)
  func oneCopy(linkage: Linkage) throws { try linkage.expectOK("arenas", ["one-copy"]) }

  @Test("arguments that make no sense get an error number")
  func refused() throws { try Linkage.linked.expectOK("arenas", ["refused"]) }

  @Test(
    "a free that matches no allocation ends the process with one line",
    arguments: ["double", "cached", "size", "small-size", "inside"])
  func fatal(kind: String) throws {
    let outcome = try Linkage.linked.run("arenas", ["fatal", kind])
    outcome.expect(
      outcome.status == .killed(signal: SIGABRT) && outcome.stderr.hasPrefix("kegmalloc: free of ")
        && outcome.stderr.split(separator: "\n").count == 1, kind)
  }

  @Test("four threads on one arena over another", arguments: Linkage.allCases)
  func threads(linkage: Linkage) throws { try linkage.expectOK("arenas", ["threads"]) }

  @Test("a forked child finds the arenas whole")
  func fork() throws { try Linkage.linked.expectOK("arenas", ["fork"]) }

  @Test("signal handlers are served, or told that they interrupted the allocator")
  func handlers() throws { try Linkage.linked.expectOK("arenas", ["handlers"]) }
}
