// DebuggerTests.swift: a debugger sees through the library: into a process that is stopped
// in it, and into a core dump, which holds what is used of the address space and no more.

import Foundation
import Testing

@Suite("Debuggers", .libraryPresent, .ours, .enabled(if: findProgram("gdb") != nil, "gdb is not installed"))
struct DebuggerTests {
  /// The functions of a backtrace, innermost first.
  private func functions(_ text: String) -> [String] {
    text.split(separator: "\n").filter { $0.hasPrefix("#") }.map { line in
      let words = line.split(separator: " ")
      let name = words.firstIndex(of: "in").map { words[$0 + 1] } ?? words[1]
      return String(name)
    }
  }

  @Test("gdb shows who called the allocator, at a stop and in a core dump")
  func backtraces() throws {
    let scratch = try Scratch()
    let program = try Fixture.build("corruption")
    let core = scratch.path + "/core"
    let stopped = try run(
      ["gdb", "-batch", "-nx", "-ex", "set environment LD_PRELOAD=\(Library.path)", "-ex", "run",
        "-ex", "bt", "-ex", "generate-core-file \(core)", "--args", program, "interior-small"],
      preload: false)
    let live = functions(stopped.stdout)
    #expect(live.last == "main" && live.count > 2 && !live.contains("??"), "\(stopped.report)")
    let size = try FileManager.default.attributesOfItem(atPath: core)[.size] as? Int
    #expect(try #require(size) < 64 << 20)
    let dumped = try run(["gdb", "-batch", "-nx", "-ex", "bt", program, core], preload: false)
    // gdb shows the innermost frame when it has read the file, and again in the backtrace.
    #expect(Array(functions(dumped.stdout).suffix(live.count)) == live, "\(dumped.report)")
  }

  @Test(
    "calls at gdb's prompt, in the form that the documentation gives",
    arguments: [("keg_malloc", "keg_free", false), ("keg_debug_malloc", "keg_debug_free", true)])
  func prompt(allocate: String, release: String, isDebug: Bool) throws {
    if isDebug, !DebugLibrary.isUsable { return }
    let library = isDebug ? DebugLibrary.path : Library.path
    let program = try Fixture.build("corruption")
    let outcome = try run(
      ["gdb", "-batch", "-nx", "-ex", "set environment LD_PRELOAD=\(library)", "-ex", "break main", "-ex", "run",
        "-ex", "set $block = ((char *(*)(long))\(allocate))(5)", "-ex", "print $block != 0",
        "-ex", "call ((void (*)(void *))\(release))($block)", "-ex", "print 42", "--args", program],
      preload: false)
    let lines = outcome.stdout.split(separator: "\n")
    #expect(lines.contains("$1 = 1") && lines.contains("$2 = 42"), "\(outcome.report)")
    #expect(!outcome.stdout.contains("signaled") && !outcome.stderr.contains("signaled"), "\(outcome.report)")
  }
}
