// EnvironmentTests.swift: options, loader settings, the shape of the address space.

import Foundation
import Testing

@Suite("Environment", .libraryPresent)
struct EnvironmentTests {
  func echo(_ environment: [String: String?], clear: Bool = false) throws -> Outcome {
    try run(["/bin/echo", "hello"], environment: environment, clearEnvironment: clear)
  }

  @Test(
    "a wrong option is one line and no more", .ours,
    arguments: [
      "nonsense:1", "decay_ms:abc", "decay_ms", "decay_ms:", ":5", "decay_ms:99999999999999999999",
      "background:perhaps",
    ])
  func wrongOption(text: String) throws {
    let outcome = try echo(["KEGMALLOC_CONF": text])
    outcome.expect(outcome.succeeded && outcome.stdout == "hello\n")
    let lines = outcome.stderr.split(separator: "\n")
    outcome.expect(lines.count == 1 && lines.first?.hasPrefix("kegmalloc: ") == true)
  }

  @Test("thp: the heap grows by huge pages if it should, and has none if not", .ours)
  func hugePages() throws {
    try expectOK("huge", ["least", "48"], environment: ["KEGMALLOC_CONF": "thp:always"])
    try expectOK("huge", ["most", "0"], environment: ["KEGMALLOC_CONF": "thp:never"])
  }

  @Test("the options after a wrong one count", .ours)
  func laterOptions() throws {
    let outcome = try echo(["KEGMALLOC_CONF": "nonsense:1,stats:exit"])
    #expect(outcome.succeeded && outcome.stdout == "hello\n")
    #expect(outcome.stderr.split(separator: "\n").count > 2, "no statistics: \(outcome.report)")
  }

  @Test("right options, also none at all, are silent", .ours, arguments: ["", "decay_ms:0", "decay_ms:200,background:off"])
  func rightOptions(text: String) throws {
    let outcome = try echo(["KEGMALLOC_CONF": text])
    outcome.expect(outcome.succeeded && outcome.stdout == "hello\n" && outcome.stderr == "")
  }

  /// Its owner is not who starts it: AT_SECURE. The dynamic linker drops LD_PRELOAD then,
  /// so the program is linked to the library.
  @Test("a set-user-ID program ignores the environment's options", .ours, .enabled(if: geteuid() == 0, "needs root"))
  func privileged() throws {
    let scratch = try Scratch()
    let library = scratch.path + "/libkegmalloc.so.1"
    try FileManager.default.copyItem(atPath: Library.path, toPath: library)
    let binary = try Fixture.build(
      "bad_alignment", output: "privileged",
      flags: ["-Wl,--no-as-needed", library, "-Wl,-rpath,\(scratch.path)"])
    let program = scratch.path + "/program"
    try FileManager.default.copyItem(atPath: binary, toPath: program)
    func runIt() throws -> Outcome {
      try run([program], environment: ["KEGMALLOC_CONF": "nonsense:1,stats:exit"], preload: false)
    }
    let plain = try runIt()
    plain.expect(plain.succeeded && plain.stderr.contains("nonsense") && plain.stderr.contains("ITEM "))
    try #require(chown(program, 65534, 65534) == 0 && chmod(program, 0o4755) == 0)
    let secure = try runIt()
    secure.expect(secure.succeeded && secure.stdout == "ok\n" && secure.stderr == "")
  }

  @Test("an environment of LD_PRELOAD alone")
  func cleared() throws {
    let outcome = try echo([:], clear: true)
    outcome.expect(outcome.succeeded && outcome.stdout == "hello\n" && outcome.stderr == "")
  }

  @Test("immediate binding, and the loader's own debugging")
  func loader() throws {
    let outcome = try echo(["LD_BIND_NOW": "1"])
    outcome.expect(outcome.succeeded && outcome.stdout == "hello\n" && outcome.stderr == "")
    let debugged = try echo(["LD_DEBUG": "unused"])
    debugged.expect(debugged.succeeded && debugged.stdout == "hello\n")
  }

  @Test("an audit module, which has a namespace of its own")
  func audit() throws {
    let module = try Fixture.build("audit", output: "libaudit.so", flags: ["-shared", "-fPIC"])
    for command in [["/bin/echo", "hello"], ["sh", "-c", "echo hello"]] {
      let outcome = try run(command, environment: ["LD_AUDIT": module])
      outcome.expect(outcome.succeeded && outcome.stdout == "hello\n" && outcome.stderr == "")
    }
  }

  @Test("without a vDSO, as under emulators, it takes 16 GiB of address space, or as told", .ours)
  func emulator() throws {
    let program = try Fixture.build("no_vdso")
    func gigabytes(_ vdso: String, _ options: String) throws -> Int? {
      let outcome = try run(
        [program, Library.path, vdso], environment: ["KEGMALLOC_CONF": options], preload: false)
      return Int(try #require(outcome.succeeded ? outcome.stdout : nil, "\(outcome.report)").dropLast())
    }
    #expect(try #require(try gigabytes("keep", "reserve:512")) >= 511)
    #expect(try #require(try gigabytes("hide", "reserve:512")) >= 511)
    let limited = try #require(try gigabytes("hide", ""))
    #expect((15...17).contains(limited), "\(limited)")
  }

  @Test(
    "at most 12 lines of /proc/self/maps more than without the library",
    arguments: ["small", "mixed", "large", "threads", "huge"])
  func maps(kind: String) throws {
    let binary = try Fixture.build("maps")
    func lines(preload: Bool) throws -> Int {
      let outcome = try run([binary, kind], preload: preload, timeout: 120)
      return try #require(Int(outcome.stdout.dropLast()), "\(outcome.report)")
    }
    let (with, without) = (try lines(preload: true), try lines(preload: false))
    #expect(with - without <= 12, "\(with) lines with the library, \(without) without")
  }
}
