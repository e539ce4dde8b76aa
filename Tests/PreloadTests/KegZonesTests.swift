// KegZonesTests.swift: the Swift package product, from a package that depends on this
// one (examples/sessions): its tests, and its program, linked and preloaded.

import Foundation
import Testing

private enum SessionsPackage {
  static let build = [
    "--package-path", Repository.root + "/examples/sessions",
    "--scratch-path", Repository.root + "/out/sessions",
    "-Xlinker", "-rpath", "-Xlinker", Repository.root + "/out/lib",
  ]

  /// What a user's shell would have: nothing of this test process.
  static let environment: [String: String?] = [
    "PATH": ProcessInfo.processInfo.environment["PATH"], "HOME": NSHomeDirectory(),
    "PKG_CONFIG_PATH": Repository.root + "/out/lib/pkgconfig",
  ]

  static func swift(_ verb: String, _ arguments: [String] = []) throws -> Outcome {
    _ = try run(["make", "files"], preload: false, timeout: 60, directory: Repository.root)
    return try run(
      ["swift", verb] + build + arguments, environment: environment, preload: false, timeout: 900,
      clearEnvironment: true)
  }
}

@Suite("KegZones", .libraryPresent, .ours, .serialized)
struct KegZonesTests {
  @Test("the tests of a package that depends on KegZones pass")
  func package() throws {
    let outcome = try SessionsPackage.swift("test")
    outcome.expect(outcome.succeeded && (outcome.stdout + outcome.stderr).contains("8 tests"))
  }

  @Test("sessions: refused, failed and ended as they should be", arguments: Linkage.allCases)
  func sessions(linkage: Linkage) throws {
    let built = try SessionsPackage.swift("build")
    guard built.succeeded else { throw HarnessError(built.report) }
    let program = try SessionsPackage.swift("build", ["--show-bin-path"]).stdout
      .split(separator: "\n").last.map { "\($0)/sessions" }
    let outcome = try run([try #require(program)], preload: linkage.isPreloaded)
    outcome.expect(
      outcome.stderr == ""
        && outcome.stdout == """
          three sessions: 3 places taken, 3 in the zone
          the fourth is refused: limitReached, 3 places taken
          the table is full: element(sessions.SessionError.tableIsFull), 2 in the zone
          places 0 and 1 are left
          they have ended: 0 places taken, 0 in the zone
          100000 sessions served, 0 places taken, 0 in the zone

          """)
  }
}
