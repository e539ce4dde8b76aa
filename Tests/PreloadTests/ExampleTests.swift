// ExampleTests.swift: the programs of examples/, built as a user builds them (with
// pkg-config), run linked with the library, and linked and preloaded.

import Foundation
import Testing

/// A program of examples/.
enum Example {
  /// Builds all of them once; what failed.
  private static let failure: String? = {
    do {
      for command in [["make", "files"], ["make", "-C", "examples"]] {
        let outcome = try run(command, preload: false, timeout: 300, directory: Repository.root)
        if !outcome.succeeded { return outcome.report }
      }
      return nil
    } catch { return "\(error)" }
  }()

  static func execute(_ name: String, _ arguments: [String], _ linkage: Linkage, timeout: Double = 120)
    throws -> Outcome
  {
    if let failure { throw HarnessError(failure) }
    return try PreloadTests.run(
      [Repository.root + "/out/examples/" + name] + arguments, preload: linkage.isPreloaded,
      timeout: timeout)
  }
}

@Suite("Examples", .libraryPresent, .ours)
struct ExampleTests {
  @Test("layouts: c has more tags than b, and only a has mappings", arguments: Linkage.allCases)
  func layouts(linkage: Linkage) throws {
    let outcome = try Example.execute("layouts", ["128", "20000"], linkage)
    outcome.expect(outcome.succeeded && outcome.stderr == "")
    var rows: [String: [Int]] = [:]
    for line in outcome.stdout.split(separator: "\n").dropFirst() {
      let words = line.split(separator: " ")
      rows[String(words[0])] = words.dropFirst().prefix(7).map { Int(Double($0) ?? -1) }
    }
    let (a, b, c) = (try #require(rows["a"]), try #require(rows["b"]), try #require(rows["c"]))
    let c64 = try #require(rows["c64"])
    // pages, tags, spans, mappings
    #expect(a[1] == b[1] && b[1] == c[1] && a[1] > 128 * 100)
    #expect(b[2] > b[1] && c[2] > 2 * b[2] && c64[2] < c[2] / 2)
    #expect(a[4] > 1000 && a[5] > b[5])
    // The region is reserved before the count begins, so b and c add none.
    #expect(b[5] <= 1 && c[5] <= 1)
  }
}
