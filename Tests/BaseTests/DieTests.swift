import Base
import Glibc
import Testing
import TestSupport

@Suite struct DieTests {
  @Test("die writes one line with the prefix and ends the process by SIGABRT")
  func plain() async throws {
    let result = try #require(
      await #expect(processExitsWith: .signal(SIGABRT), observing: [\.standardErrorContent]) {
        die("something broke")
      })
    #expect(text(result) == "kegmalloc: something broke\n")
  }

  @Test("the address and the zone are named")
  func address() async throws {
    let result = try #require(
      await #expect(processExitsWith: .signal(SIGABRT), observing: [\.standardErrorContent]) {
        die("double free of", at: 0x7f00_1234, zone: cString("malloc-64"))
      })
    #expect(text(result) == "kegmalloc: double free of 0x7f001234 (zone malloc-64)\n")
  }

  @Test("without a zone the address stands alone")
  func noZone() async throws {
    let result = try #require(
      await #expect(processExitsWith: .signal(SIGABRT), observing: [\.standardErrorContent]) {
        die("invalid free of", at: 0x10, zone: nil)
      })
    #expect(text(result) == "kegmalloc: invalid free of 0x10\n")
  }

  @Test("a handler for SIGABRT is not called: it might use the corrupt heap")
  func handler() async throws {
    let result = try #require(
      await #expect(processExitsWith: .signal(SIGABRT), observing: [\.standardErrorContent]) {
        signal(SIGABRT) { _ in _exit(3) }
        die("no way back")
      })
    #expect(text(result) == "kegmalloc: no way back\n")
  }

  @Test("invariant dies when its condition does not hold, and not otherwise")
  func invariants() async {
    await #expect(processExitsWith: .success) { invariant(true, "fine") }
    #if INVARIANTS
      await #expect(processExitsWith: .signal(SIGABRT)) { invariant(false, "broken") }
    #endif
  }

  private func text(_ result: ExitTest.Result) -> String {
    String(decoding: result.standardErrorContent, as: UTF8.self)
  }
}
