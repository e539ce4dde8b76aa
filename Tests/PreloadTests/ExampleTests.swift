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
  @Test("msgbuf: 10⁷ races for the last reference, 10⁷ gets on four threads", arguments: Linkage.allCases)
  func msgbuf(linkage: Linkage) throws {
    let outcome = try Example.execute("msgbuf", [], linkage, timeout: 300)
    outcome.expect(outcome.succeeded && outcome.stderr == "")
    #expect(outcome.stdout.hasPrefix("race: 10000000 rounds, "))
    #expect(outcome.stdout.hasSuffix("0 mbufs and 0 clusters in use; packets are of keg mbuf\n"))
  }

  @Test("idpool: each identifier once, and all back in the bitmap", arguments: Linkage.allCases)
  func idpool(linkage: Linkage) throws {
    let outcome = try Example.execute("idpool", ["200000"], linkage)
    outcome.expect(outcome.succeeded && outcome.stderr == "" && outcome.stdout.hasSuffix("all 4096 are free in the bitmap\n"))
  }

  @Test("sendtags: unload is refused while a tag is in use, then ends all", arguments: Linkage.allCases)
  func sendtags(linkage: Linkage) throws {
    let outcome = try Example.execute("sendtags", [], linkage)
    outcome.expect(outcome.succeeded && outcome.stdout.hasSuffix("unload 2: 0 tags exist in the firmware\n"))
    // The tag that was in use is listed, and nothing else.
    outcome.expect(
      outcome.stderr.hasPrefix("kegmalloc: zone send_tags is not empty: 1 item in use: 0x")
        && outcome.stderr.split(separator: "\n").count == 1)
  }

  @Test("pipeline: never more blocks than the limit, and readers slept", arguments: Linkage.allCases)
  func pipeline(linkage: Linkage) throws {
    let outcome = try Example.execute("pipeline", ["3000", "16"], linkage)
    outcome.expect(outcome.succeeded && outcome.stderr == "" && outcome.stdout.contains("zone of 16"))
  }

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
