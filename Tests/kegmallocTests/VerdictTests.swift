import Foundation
import Testing

@testable import kegmalloc

@Suite("What can be run")
struct VerdictTests {
  func refusal(_ path: String) -> Refusal? {
    do {
      try Verdict.check(path)
      return nil
    } catch {
      return error
    }
  }

  func expectRefusal(_ path: String, mentions word: String, sourceLocation: SourceLocation = #_sourceLocation) {
    let refusal = refusal(path)
    #expect(refusal?.exitCode == Refusal.usage, sourceLocation: sourceLocation)
    #expect(refusal?.line.contains(word) == true, "\(refusal?.line ?? "accepted")", sourceLocation: sourceLocation)
    #expect(refusal?.line.contains("\n") == false, sourceLocation: sourceLocation)
  }

  @Test("an ordinary dynamic program is accepted, fixed-address or not")
  func accepted() throws {
    let scratch = try Scratch()
    for (name, flag) in [("pie", "-pie"), ("fixed", "-no-pie")] {
      #expect(refusal(try #require(try scratch.program(name, flags: [flag]))) == nil)
    }
  }

  @Test("static programs are refused", arguments: [("static", "-static"), ("static-pie", "-static-pie")])
  func statics(name: String, flag: String) throws {
    let scratch = try Scratch()
    guard let path = try scratch.program(name, flags: [flag]) else { return }
    expectRefusal(path, mentions: "statically linked")
  }

  @Test("a program with the musl loader is refused")
  func musl() throws {
    let scratch = try Scratch()
    let loader = "-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1"
    expectRefusal(try #require(try scratch.program("musl", flags: [loader])), mentions: "musl")
  }

  @Test("other word sizes, byte orders, machines and file types are refused")
  func headers() throws {
    let scratch = try Scratch()
    let other = Verdict.machine == ELFFile.x86_64 ? ELFFile.aarch64 : ELFFile.x86_64
    expectRefusal(try scratch.file("i386", elfHeader(bits: 32, machine: 3)), mentions: "32-bit")
    expectRefusal(try scratch.file("other", elfHeader(machine: other)), mentions: "architecture")
    expectRefusal(
      try scratch.file("big", elfHeader(littleEndian: false, machine: 22)), mentions: "architecture")
    expectRefusal(
      try scratch.file("object", elfHeader(type: 1, machine: Verdict.machine)),
      mentions: "not an executable ELF")
    expectRefusal(try scratch.file("text", "just words, enough of them\n"), mentions: "neither")
    expectRefusal(try scratch.file("empty", ""), mentions: "neither")
  }

  @Test("sanitizer-built programs are refused", arguments: ["address", "thread", "leak"])
  func sanitizers(name: String) throws {
    let scratch = try Scratch()
    guard let path = try scratch.program(name, flags: ["-fsanitize=\(name)"]) else { return }
    expectRefusal(path, mentions: "sanitizer")
  }

  @Test("a sanitizer linked statically shows by its dynamic symbols")
  func staticSanitizer() throws {
    let scratch = try Scratch()
    let flags = ["-fsanitize=address", "-static-libasan"]
    guard let path = try scratch.program("static-asan", flags: flags) else { return }
    expectRefusal(path, mentions: "sanitizer")
  }

  @Test("programs started with other rights are refused")
  func rights() throws {
    let scratch = try Scratch()
    let path = try #require(try scratch.program("plain", flags: []))
    try scratch.setMode(0o4755, of: path)
    expectRefusal(path, mentions: "set-user-ID")
    try scratch.setMode(0o2755, of: path)
    expectRefusal(path, mentions: "set-group-ID")
    try scratch.setMode(0o2745, of: path)  // record locking, not set-group-ID
    #expect(refusal(path) == nil)
    let contents = try Data(contentsOf: URL(fileURLWithPath: path))
    let capable = Verdict.Rights(hasCapabilities: true)
    #expect(Verdict.reason(against: contents, rights: capable)?.contains("capabilities") == true)
  }

  @Test("file capabilities are seen on disk")
  func capabilities() throws {
    let scratch = try Scratch()
    let path = try #require(try scratch.program("capable", flags: []))
    guard FileManager.default.isExecutableFile(atPath: "/usr/sbin/setcap"), geteuid() == 0,
      try capture("/usr/sbin/setcap", ["cap_net_raw+ep", path]).status == 0
    else { return }
    expectRefusal(path, mentions: "capabilities")
  }

  @Test("a script is judged by its interpreter, however many there are")
  func scripts() throws {
    let scratch = try Scratch()
    #expect(refusal(try scratch.file("good", "#!/bin/sh\nexit 0\n")) == nil)
    #expect(refusal(try scratch.file("blank", "#! \t/bin/sh -e\nexit 0\n")) == nil)
    let inner = try scratch.file("inner", "#!/bin/sh\n")
    #expect(refusal(try scratch.file("outer", "#!\(inner)\n")) == nil)
    if let program = try scratch.program("interpreter", flags: ["-static"]) {
      expectRefusal(try scratch.file("bad", "#!\(program)\n"), mentions: "statically linked")
    }
    let missing = refusal(try scratch.file("lost", "#!/no/such/interpreter\n"))
    #expect(missing?.exitCode == Refusal.notFound)
    let loop = scratch.path + "/loop"
    expectRefusal(try scratch.file("loop", "#!\(loop)\n"), mentions: "levels")
  }

  @Test("the #! line is read as the kernel reads it")
  func interpreterLine() {
    func interpreter(_ text: String) -> String? { Verdict.scriptInterpreter(Data(text.utf8)) }
    #expect(interpreter("#!/bin/sh") == "/bin/sh")
    #expect(interpreter("#!/usr/bin/env -S python3 -u\n") == "/usr/bin/env")
    #expect(interpreter("#!\n/bin/sh") == nil)
    #expect(interpreter("# !/bin/sh") == nil)
    #expect(interpreter("") == nil)
  }
}
