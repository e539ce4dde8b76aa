// LimitTests.swift: limits, locked memory, and surroundings without descriptors,
// files or system calls.

import Foundation
import Testing

@Suite("Limits", .libraryPresent)
struct LimitTests {
  /// Starts the fixture under a limit of the shell's `ulimit`, in KiB.
  func underLimit(_ flag: String, _ megabytes: Int, _ name: String) throws {
    let binary = try Fixture.build("limits")
    let script = "ulimit -\(flag) \(megabytes * 1024) && exec \(binary) \(name)=\(megabytes)"
    // Set inside the script, so that the limit is in force before the library starts.
    let outcome = try run(["sh", "-c", script], timeout: 180)
    outcome.expect(
      outcome.succeeded && outcome.stdout.hasSuffix("ok\n") && outcome.stderr == "",
      "\(name) \(megabytes) MiB")
  }

  @Test("a limit on address space", arguments: [64, 512, 4096])
  func addressSpace(megabytes: Int) throws { try underLimit("v", megabytes, "as") }

  @Test("a limit on data", arguments: [64, 512])
  func data(megabytes: Int) throws { try underLimit("d", megabytes, "data") }

  /// Limits near what docs/compatibility.md says is the least.
  @Test("small limits leave small programs their work", arguments: [("v", 16), ("d", 4)])
  func small(flag: String, megabytes: Int) throws {
    for command in ["ls /usr/bin", "sort /etc/passwd", "awk '{ n += length } END { print n }' /etc/passwd"] {
      let script = "ulimit -\(flag) \(megabytes * 1024) && exec \(command)"
      let plain = try run(["sh", "-c", script], preload: false)
      plain.expect(plain.succeeded)
      let ours = try run(["sh", "-c", script])
      ours.expect(ours.succeeded && ours.stdout == plain.stdout && ours.stderr == "", script)
    }
  }

  @Test("a grown block counts by its size under a limit on data")
  func grownUnderData() throws {
    try underLimit("d", 256, "data-grown")
    try expectOK("limits", ["data-grown-later"])
  }

  @Test("requests that are refused cost nothing of a limit on data")
  func refusedUnderData() throws { try underLimit("d", 256, "data-refused") }

  @Test("a limit that the program sets itself", arguments: ["setrlimit", "prlimit"])
  func later(kind: String) throws { try expectOK("limits", [kind]) }

  @Test("the same under the debug library", arguments: ["setrlimit", "prlimit"])
  func debugLater(kind: String) throws {
    try expectOK("limits", [kind], environment: ["LD_PRELOAD": DebugLibrary.path])
  }

  @Test("locked memory", arguments: ["mlockall-current", "mlockall-future"])
  func locked(kind: String) throws {
    let outcome = try run([try Fixture.build("limits"), kind])
    if outcome.stdout.hasPrefix("skip") { return print(outcome.stdout) }
    outcome.expect(outcome.succeeded && outcome.stdout == "ok\n")
  }

  @Test("descriptors 0, 1 and 2 closed")
  func closed() throws { try expectOK("limits", ["closed"]) }

  @Test("an empty root directory")
  func chroot() throws {
    let outcome = try run([try Fixture.build("limits"), "chroot"])
    if outcome.stdout.hasPrefix("skip") { return print(outcome.stdout) }
    outcome.expect(outcome.succeeded && outcome.stdout == "ok\n")
  }

  @Test("a strict filter on system calls", .ours, arguments: ["seccomp", "seccomp-realloc"])
  func seccomp(kind: String) throws { try expectOK("limits", [kind]) }
}
