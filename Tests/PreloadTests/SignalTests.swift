// SignalTests.swift: malloc in signal handlers. No other allocator promises this, and
// most hang in it, so the suite runs for ours only.

import Foundation
import Testing

@Suite("Signals", .libraryPresent, .ours)
struct SignalTests {
  /// Three seconds, or KEGMALLOC_STORM_SECONDS.
  static let seconds =
    ProcessInfo.processInfo.environment["KEGMALLOC_STORM_SECONDS"].flatMap(Double.init) ?? 3

  @Test(
    "a timer storm of balanced calls neither hangs nor duplicates nor loses a block",
    arguments: [["1"], ["4"], ["1", "alternate"], ["4", "alternate"]])
  func storm(arguments: [String]) throws {
    try expectOK("signal_storm", arguments, timeout: 120 + Self.seconds)
  }

  @Test("the look for signal frames ends with the stack, whatever comes and goes behind it", .ours)
  func neighbour() throws {
    try expectOK("stack_neighbour")
  }
}
