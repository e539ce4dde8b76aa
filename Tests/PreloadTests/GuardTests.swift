// GuardTests.swift: guard pages. Reads and writes outside of blocks and into freed ones
// stop where they happen and are told with all stacks; a program's own handlers of
// SIGSEGV see what they would have seen; correct programs do as they always do.

import Foundation
import Testing

/// Runs a fixture under the debug library.
private func guarded(
  _ fixture: String, _ arguments: [String], conf: String, leaks: Bool = false, through: [String] = []
) throws -> Outcome {
  try run(
    through + [try Fixture.build(fixture)] + arguments,
    environment: [
      "LD_PRELOAD": DebugLibrary.path,
      "KEGMALLOC_CONF": (leaks ? "" : "leak_check:off,") + conf,
    ])
}

extension Outcome {
  fileprivate var reportCount: Int { stderr.components(separatedBy: "kegmalloc: ERROR: ").count - 1 }

  /// Whether the first report has this first line, without the address, this offset, and
  /// stacks with these functions.
  fileprivate func reports(_ line: String, offset: Int, _ functions: [String]) -> Bool {
    stderr.hasPrefix("kegmalloc: ERROR: \(line) at 0x") && stderr.contains(", offset \(offset),")
      && functions.allSatisfy { stderr.contains(" \($0)+0x") }
  }
}

@Suite("Guard pages: faults", .enabled(if: DebugLibrary.isUsable, "the debug library is not built"))
struct GuardFaultTests {
  struct Access: CustomTestStringConvertible {
    let side, name, line: String
    /// From the start of the block of a size.
    let offset: @Sendable (Int) -> Int
    var isOfFreed = false
    var testDescription: String { "\(side) \(name)" }
  }

  static let accesses =
    [
      Access(side: "right", name: "over-read", line: "overflow: read past the end of a block") { $0 },
      Access(side: "right", name: "far-read", line: "overflow: read past the end of a block") { $0 + 1500 },
      Access(side: "right", name: "over-write", line: "overflow: write past the end of a block") { $0 },
      Access(side: "left", name: "under-read", line: "underflow: read before the start of a block") { _ in -1 },
      Access(side: "left", name: "far-under-read", line: "underflow: read before the start of a block") { _ in -1500 },
      Access(side: "left", name: "under-write", line: "underflow: write before the start of a block") { _ in -1 },
    ]
    + ["right", "left"].flatMap { side in
      [
        Access(
          side: side, name: "freed-read", line: "use-after-free: read of a freed block",
          offset: { $0 / 2 }, isOfFreed: true),
        Access(
          side: side, name: "freed-write", line: "use-after-free: write to a freed block",
          offset: { $0 / 2 }, isOfFreed: true),
      ]
    }

  /// Sizes that their own alignment divides, so that right is exact.
  static let sizes = [1, 13, 24, 4096, 20480, 200_064]

  @Test("an access is stopped, named, and comes with its stacks", arguments: accesses)
  func stopped(access: Access) throws {
    let functions = ["faulting", "allocating"] + (access.isOfFreed ? ["freeing"] : [])
    func check(_ size: Int, _ thread: String, _ call: String) throws {
      let outcome = try guarded(
        "guard_faults", [access.name, String(size), thread, call], conf: "guard:\(access.side)")
      let what = "\(access.testDescription) \(size) \(thread) \(call)"
      outcome.expect(outcome.status == .killed(signal: SIGSEGV), what)
      outcome.expect(outcome.reports(access.line, offset: access.offset(size), functions), what)
      outcome.expect(outcome.reportCount == 1 && outcome.stdout == "", what)
    }
    for size in Self.sizes { try check(size, "same", "malloc") }
    for call in ["calloc", "realloc", "memalign"] { try check(4096, "other", call) }
  }

  @Test("without such an access nothing is said", arguments: ["right", "left"])
  func silent(side: String) throws {
    for size in Self.sizes + [0, 3, 100_001] {
      // realloc to 0 frees.
      for call in ["malloc", "calloc", "memalign"] + (size > 0 ? ["realloc"] : []) {
        let outcome = try guarded(
          "guard_faults", ["none", String(size), "other", call], conf: "guard:\(side)", leaks: true)
        outcome.expect(
          outcome.succeeded && outcome.stdout == "ok\n" && outcome.stderr == "", "\(size) \(call)")
      }
    }
  }

  @Test("a copy far past a block is that block's, whatever it touches first", arguments: ["right", "left"])
  func copies(side: String) throws {
    for (name, word) in [("copy-from", "read"), ("copy-to", "write")] {
      for size in [24, 4000, 20_480] {
        let outcome = try guarded(
          "guard_faults", [name, String(size), "same", "malloc"], conf: "guard:\(side)")
        outcome.expect(
          outcome.stderr.hasPrefix("kegmalloc: ERROR: overflow: \(word) past the end of a block")
            && outcome.stderr.contains(": \(size) bytes by malloc"),
          "\(side) \(name) \(size)")
      }
    }
  }

  @Test("guard_fault:go_on lets the access through", arguments: accesses)
  func goOn(access: Access) throws {
    for size in [24, 4096, 200_064] {
      let outcome = try guarded(
        "guard_faults", [access.name, String(size), "same", "malloc"],
        conf: "guard:\(access.side),guard_fault:go_on")
      outcome.expect(
        outcome.status == .exited(99) && outcome.stdout == "ok\n" && outcome.reportCount == 1,
        "\(access.testDescription) \(size)")
      outcome.expect(
        outcome.reports(access.line, offset: access.offset(size), ["faulting"]),
        "\(access.testDescription) \(size)")
    }
  }

  @Test("guard_fault:go_on: pages that were let through serve again, and calloc's are zero")
  func goOnReuse() throws {
    for side in ["right", "left"] {
      let outcome = try guarded("guard_memory", ["let-through"], conf: "guard:\(side),guard_fault:go_on")
      outcome.expect(outcome.status == .exited(99) && outcome.stdout == "ok\n", side)
    }
  }

  @Test("in the gap that an alignment leaves, a write is found by the free")
  func gap() throws {
    let outcome = try guarded(
      "guard_faults", ["over-write", "24", "same", "malloc"], conf: "guard:right,guard_align:16")
    outcome.expect(outcome.status == .exited(99))
    outcome.expect(
      outcome.reports("overflow: write past the end of a block", offset: 24, ["allocating"]))
  }

  @Test("a write through the gap into the page that faults is one finding", arguments: ["right", "left"])
  func through(side: String) throws {
    for (end, status) in [("pass", Outcome.End.killed(signal: SIGSEGV)), ("go_on", .exited(99))] {
      for name in ["through", "through-back"] {
        let outcome = try guarded(
          "guard_faults", [name, "20", "same", "malloc"],
          conf: "guard:\(side),guard_align:16,guard_fault:\(end)")
        let what = "\(side) \(end) \(name)"
        outcome.expect(outcome.status == status && outcome.reportCount == 1, what)
        outcome.expect(
          outcome.stderr.hasPrefix("kegmalloc: ERROR: overflow: write past the end of a block")
            && outcome.stderr.contains(" faulting+0x"), what)
        // What was written before the fault is drawn.
        outcome.expect(outcome.stderr.contains("[01]") == (name == "through"), what)
      }
    }
  }

  @Test("natural alignment is exact for odd sizes too", arguments: ["natural", "auto"])
  func natural(mode: String) throws {
    let outcome = try guarded(
      "guard_faults", ["over-read", "101", "same", "malloc"], conf: "guard:right,guard_align:\(mode)")
    outcome.expect(outcome.reports("overflow: read past the end of a block", offset: 101, ["faulting"]))
  }

  @Test("moves that insist on 16 bytes are made all the same, and checked", arguments: ["auto", "natural", "16"])
  func aligned(mode: String) throws {
    let conf = "guard:right,guard_align:\(mode)"
    let moves = try guarded("guard_aligned", ["moves"], conf: conf)
    moves.expect(moves.succeeded && moves.stdout == "ok\n" && moves.stderr == "" || mode == "16")
    let asked = try guarded("guard_aligned", ["asked"], conf: conf)
    asked.expect(asked.succeeded && asked.stdout == "ok\n" && asked.stderr == "")
    let freed = try guarded("guard_aligned", ["freed"], conf: conf)
    freed.expect(freed.status == .killed(signal: SIGSEGV) && freed.reportCount == 1)
    freed.expect(
      freed.reports("use-after-free: read of a freed block", offset: 0, ["load", "main"]))
    let beyond = try guarded("guard_aligned", ["beyond"], conf: conf)
    beyond.expect(
      beyond.reports("overflow: write past the end of a block", offset: 24, ["main"]))
  }

  @Test("what follows a report is on_error's choice")
  func onError() throws {
    let read = ["over-read", "24", "same", "malloc"]
    let left = try guarded("guard_faults", read, conf: "guard:right,on_error:exit,exit_code:17")
    left.expect(left.status == .exited(17) && left.reportCount == 1)
    left.expect(left.stderr.contains("\nkegmalloc: summary: process "))
    let aborted = try guarded("guard_faults", read, conf: "guard:right,on_error:abort")
    aborted.expect(aborted.status == .killed(signal: SIGABRT) && aborted.reportCount == 1)
    aborted.expect(aborted.stderr.contains("\nkegmalloc: summary: process "))
  }

  /// The setting, a size that it guards and one that it does not.
  @Test(
    "only what was chosen is guarded",
    arguments: [
      ("size:30-50", 40, 60), ("zone:malloc-64", 64, 65), ("zone:large", 100_000, 4096),
      ("sample:1", 40, nil),
    ])
  func chosen(setting: String, inside: Int, outside: Int?) throws {
    let found = try guarded(
      "guard_faults", ["freed-read", String(inside), "same", "malloc"], conf: "guard:\(setting)")
    found.expect(found.status == .killed(signal: SIGSEGV) && found.reportCount == 1)
    guard let outside else { return }
    let missed = try guarded(
      "guard_faults", ["freed-read", String(outside), "same", "malloc"], conf: "guard:\(setting)")
    missed.expect(missed.succeeded && missed.stdout == "ok\n")
  }

  @Test("of a sample some are guarded")
  func sample() throws {
    let scratch = try Scratch()
    let outcome = try guarded(
      "guard_memory", ["many"], conf: "guard:sample:100,json_file:\(scratch.path)/j")
    outcome.expect(outcome.succeeded)
    let text = try String(contentsOfFile: scratch.path + "/j", encoding: .utf8)
    let count = try #require(text.firstMatch(of: /"guarded":(\d+)/).flatMap { Int($0.1) })
    #expect(count > 50 && count < 1000, "of 20000")
  }

  @Test("a value that makes no sense is refused aloud")
  func nonsense() throws {
    let outcome = try guarded(
      "guard_faults", ["none", "40", "same", "malloc"], conf: "guard:up")
    outcome.expect(outcome.succeeded && outcome.stderr.hasPrefix("kegmalloc: guard: expected off, right"))
  }
}

@Suite("Guard pages: handlers", .enabled(if: DebugLibrary.isUsable, "the debug library is not built"))
struct GuardHandlerTests {
  /// A case and how many reports it comes with.
  @Test(
    "the program's handler is called as the kernel would have done",
    arguments: [
      ("sigaction", 2), ("signal", 1), ("alternate", 2), ("nested", 2), ("vfork", 1), ("threads", 1),
    ])
  func called(name: String, count: Int) throws {
    for side in ["right", "left"] {
      let outcome = try guarded("guard_handlers", [name], conf: "guard:\(side)")
      outcome.expect(outcome.status == .exited(99) && outcome.stdout == "ok\n", name)
      outcome.expect(outcome.reportCount == count, name)
      outcome.expect(
        outcome.reports("use-after-free: read of a freed block", offset: 50, ["read_freed"])
          || name == "threads", name)
    }
  }

  @Test("faults and signals that are not ours bring no report", arguments: ["overflow", "own-page", "sent"])
  func others(name: String) throws {
    let outcome = try guarded("guard_handlers", [name], conf: "guard:right")
    outcome.expect(outcome.succeeded && outcome.stdout == "ok\n" && outcome.stderr == "", name)
  }

  @Test("SA_RESETHAND: the second fault ends the program")
  func once() throws {
    let outcome = try guarded("guard_handlers", ["once"], conf: "guard:right")
    outcome.expect(outcome.status == .killed(signal: SIGSEGV) && outcome.stdout == "ok\n")
    outcome.expect(outcome.reportCount == 2)
  }

  @Test("a signal that was sent has its default effect")
  func sent() throws {
    let outcome = try guarded("guard_handlers", ["sent-default"], conf: "guard:right")
    outcome.expect(outcome.status == .killed(signal: SIGSEGV) && outcome.stderr == "")
  }

  @Test("a forked child goes on with guard pages and reports for itself")
  func fork() throws {
    let outcome = try guarded("guard_handlers", ["fork"], conf: "guard:right")
    outcome.expect(outcome.succeeded && outcome.stdout == "ok\n" && outcome.reportCount == 1)
  }

  @Test("a fault between the fork handlers ends the program, with a line", arguments: ["", "guard:right"])
  func betweenForkHandlers(conf: String) throws {
    let outcome = try guarded("fork_fault", ["freed"], conf: conf)
    if conf.isEmpty {
      outcome.expect(outcome.succeeded && outcome.stdout == "ok\n" && outcome.stderr == "")
    } else {
      outcome.expect(outcome.status == .killed(signal: SIGSEGV) && outcome.stdout == "")
      outcome.expect(
        outcome.stderr.hasPrefix("kegmalloc: fault at 0x") && outcome.stderr.hasSuffix(": not looked at\n"))
    }
    // The program's own handler is called as ever.
    let own = try guarded("fork_fault", ["own"], conf: conf)
    own.expect(own.succeeded && own.stdout == "ok\n" && own.stderr == "")
  }

  @Test(
    "who ends by a signal of its own has had a last check",
    arguments: [
      ("assert", SIGABRT), ("smashed", SIGABRT), ("abort", SIGABRT), ("raise", SIGABRT),
      ("trap", SIGILL), ("divide", SIGFPE),
    ])
  func deaths(name: String, signal: Int32) throws {
    let outcome = try guarded("deaths", [name], conf: "")
    outcome.expect(outcome.status == .killed(signal: signal) && outcome.reportCount == 1, name)
    outcome.expect(
      outcome.stderr.contains("overflow: write past the end of a block")
        && outcome.stderr.contains("kegmalloc: summary: process "), name)
  }

  @Test(
    "a fault far from a block, where the heap has no memory, is told with the block it missed",
    arguments: [
      ("write", 1 << 25, "overflow: write past the end of a block"),
      ("read", 1 << 25, "overflow: read past the end of a block"),
      ("write", -(1 << 25), "underflow: write before the start of a block"),
      ("read", -(1 << 20), "underflow: read before the start of a block"),
      ("handled", 1 << 25, "overflow: write past the end of a block"),
    ])
  func farAccess(how: String, offset: Int, what: String) throws {
    let outcome = try guarded("far_accesses", [how, "\(offset)"], conf: "")
    let isHandled = how == "handled"
    outcome.expect(outcome.status == (isHandled ? .exited(99) : .killed(signal: SIGSEGV)))
    outcome.expect(outcome.stdout == (isHandled ? "ok\n" : "") && outcome.reportCount == 1)
    outcome.expect(
      outcome.stderr.contains("ERROR: \(what) at ") && outcome.stderr.contains(": 40 bytes by malloc at ")
        && outcome.stderr.contains("offset \(offset), ") && outcome.stderr.contains("allocate_block"))
  }

  @Test("a fault further away names no block")
  func furtherAccess() throws {
    let outcome = try guarded("far_accesses", ["write", "\(1 << 30)"], conf: "")
    outcome.expect(outcome.status == .killed(signal: SIGSEGV) && outcome.reportCount == 1)
    outcome.expect(
      outcome.stderr.contains("overflow: write outside every block")
        && !outcome.stderr.contains("allocated by"))
  }

  @Test("such signals look to the program as they would without us")
  func asked() throws {
    for conf in ["", "guard:right"] {
      let outcome = try guarded("deaths", ["asks"], conf: conf)
      outcome.expect(outcome.succeeded && outcome.stdout == "ok\n" && outcome.stderr == "")
    }
  }

  @Test("a program that may write no file does not die of our report")
  func limited() throws {
    let scratch = try Scratch()
    for option in ["json_file", "log_file"] {
      let outcome = try guarded("deaths", ["limited"], conf: "\(option):\(scratch.path)/j,leak_show:reachable",
        leaks: true)
      outcome.expect(outcome.succeeded && outcome.stderr == "", option)
    }
  }

  @Test("python's faulthandler and ours both speak")
  func faulthandler() throws {
    let script = """
      import faulthandler, ctypes
      faulthandler.enable()
      libc = ctypes.CDLL(None)
      libc.malloc.restype = ctypes.c_void_p
      block = libc.malloc(100)
      libc.free(ctypes.c_void_p(block))
      ctypes.string_at(block, 1)
      """
    let outcome = try run(
      ["/usr/bin/python3", "-c", script],
      environment: [
        "LD_PRELOAD": DebugLibrary.path, "KEGMALLOC_CONF": "leak_check:off,guard:right",
      ])
    outcome.expect(outcome.status == .killed(signal: SIGSEGV))
    outcome.expect(outcome.stderr.contains("kegmalloc: ERROR: use-after-free: read of a freed block"))
    outcome.expect(outcome.stderr.contains("Fatal Python error: Segmentation fault"))
  }
}

@Suite("Guard pages: memory", .enabled(if: DebugLibrary.isUsable, "the debug library is not built"))
struct GuardMemoryTests {
  @Test("the number of mappings does not grow with the items", arguments: ["right", "left"])
  func mappings(side: String) throws {
    let outcome = try guarded("guard_memory", ["mappings"], conf: "guard:\(side)")
    // Before Linux 6.13 it must.
    if outcome.stderr.contains("between <= before"), !Self.kernelHasGuards { return }
    outcome.expect(outcome.succeeded && outcome.stdout == "ok\n" && outcome.stderr == "")
  }

  @Test("blocks that the program has protected do not end the last look", arguments: ["", "guard:right", "guard:left"])
  func protected(conf: String) throws {
    let outcome = try guarded("guard_memory", ["protected"], conf: conf)
    outcome.expect(outcome.succeeded && outcome.stdout == "ok\n" && outcome.stderr == "")
  }

  /// MADV_GUARD_INSTALL came with Linux 6.13.
  static let kernelHasGuards: Bool = {
    let page = mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    defer { munmap(page, 4096) }
    return madvise(page, 4096, 102) == 0
  }()

  @Test("pages are used again, and calloc's are zero", arguments: ["right", "left"])
  func reuse(side: String) throws {
    let outcome = try guarded("guard_memory", ["reuse"], conf: "guard:\(side)")
    outcome.expect(outcome.succeeded && outcome.stdout == "ok\n" && outcome.stderr == "")
  }

  @Test("a kernel without guard pages, and locked memory, get protected pages", arguments: ["many", "reuse"])
  func fallback(name: String) throws {
    let filter = [try Fixture.build("guard_memory"), "refusing"]
    let outcome = try guarded("guard_memory", [name], conf: "guard:right", through: filter)
    outcome.expect(outcome.succeeded && outcome.stdout == "ok\n" && outcome.stderr == "")
    let found = try guarded(
      "guard_faults", ["freed-read", "24", "same", "malloc"], conf: "guard:right", through: filter)
    found.expect(found.status == .killed(signal: SIGSEGV) && found.reportCount == 1)
    let locked = try guarded("guard_memory", ["locked"], conf: "guard:right")
    locked.expect(
      locked.succeeded && locked.stdout == "ok\n" && locked.stderr == "" || locked.stderr.contains("mlockall"))
  }

  @Test("beyond guard_limit items have red zones, and are counted")
  func limit() throws {
    let scratch = try Scratch()
    let outcome = try guarded(
      "guard_memory", ["overflow-of-many"], conf: "guard:right,guard_limit:8")
    outcome.expect(outcome.status == .exited(99) && outcome.stdout == "ok\n")
    outcome.expect(
      outcome.reports("overflow: write past the end of a block", offset: 19999 * 37 % 3000, ["take"]))
    let correct = try guarded(
      "guard_memory", ["many"], conf: "guard:right,guard_limit:8,json_file:\(scratch.path)/j")
    correct.expect(correct.succeeded && correct.stdout == "ok\n")
    let text = try String(contentsOfFile: scratch.path + "/j", encoding: .utf8)
    let guarded = try #require(text.firstMatch(of: /"guarded":(\d+)/).flatMap { Int($0.1) })
    let others = try #require(text.firstMatch(of: /"unguarded":(\d+)/).flatMap { Int($0.1) })
    #expect(guarded > 1000 && guarded <= 2048 && guarded + others >= 20000, "8 MiB are 2048 pages")
  }

  @Test("the leak check follows pointers of items at odd places", arguments: ["right", "left"])
  func leaks(side: String) throws {
    let held = try guarded("guard_memory", ["hold"], conf: "guard:\(side)", leaks: true)
    held.expect(held.succeeded && held.stdout == "ok\n" && held.stderr == "")
    let lost = try guarded("guard_memory", ["lose"], conf: "guard:\(side)", leaks: true)
    lost.expect(lost.status == .exited(99) && lost.stdout == "ok\n")
    lost.expect(lost.stderr.contains("definite 21 bytes in 1 block, indirect 94 bytes in 4 blocks"))
  }
}

@Suite("Guard pages: programs", .enabled(if: DebugLibrary.isUsable, "the debug library is not built"))
struct GuardProgramTests {
  /// Runs a command with and without the library; both must say the same.
  private func same(_ command: [String], environment: [String: String] = [:], conf: String) throws {
    let plain = try run(command, environment: environment, preload: false)
    let variables = environment.merging([
      "LD_PRELOAD": DebugLibrary.path, "KEGMALLOC_CONF": "leak_check:off,\(conf)",
    ]) { $1 }
    let checked = try run(command, environment: variables)
    checked.expect(
      checked.succeeded && plain.succeeded && checked.stdout == plain.stdout
        && checked.stderr == plain.stderr, "\(command) \(conf)")
    #expect(!plain.stdout.isEmpty)
  }

  @Test("python3, with its own small-object allocator and without", arguments: ["right", "left"])
  func python(side: String) throws {
    let script = """
      import json, re, threading, subprocess, decimal
      text = json.dumps({str(i): [i, str(i) * 3] for i in range(2000)})
      print(len(text), json.loads(text)["77"], len(re.findall("[0-9]+", text)))
      ts = [threading.Thread(target=lambda: sorted(str(i) for i in range(3000))) for _ in range(3)]
      [t.start() for t in ts]; [t.join() for t in ts]
      print(decimal.Decimal(2) ** 300, subprocess.run(["echo", "x"], capture_output=True).stdout)
      """
    for allocator in ["malloc", "pymalloc"] {
      try same(
        ["/usr/bin/python3", "-c", script], environment: ["PYTHONMALLOC": allocator],
        conf: "guard:\(side)")
    }
  }

  @Test("git", arguments: ["right", "left"])
  func git(side: String) throws {
    let scratch = try Scratch()
    let script = """
      cd \(scratch.path)
      export GIT_AUTHOR_DATE=@1000000000 GIT_COMMITTER_DATE=@1000000000 GIT_CONFIG_GLOBAL=/dev/null
      export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a
      rm -rf .git f?; git init -q -b main .
      for i in 1 2 3; do seq $i 500 > f$i; git add .; git commit -qm "commit $i"; done
      git gc -q; git log --stat; git fsck --strict; git blame f1 | tail -3
      """
    try same(["sh", "-c", script], conf: "guard:\(side)")
  }

  @Test("redis-server under load")
  func redis() throws {
    // A socket below the directory of the test: ports may be in use.
    let scratch = try Scratch()
    let script = """
      cd \(scratch.path)
      redis-server --port 0 --unixsocket \(scratch.path)/s --save '' --logfile \(scratch.path)/log &
      until env -u LD_PRELOAD redis-cli -s s ping 2>/dev/null | grep -q PONG; do sleep 0.02; done
      env -u LD_PRELOAD redis-benchmark -s s -q -n 1500 -c 5 -t set,lpush,hset,mset,lrange_100 > /dev/null
      env -u LD_PRELOAD redis-cli -s s set k value
      env -u LD_PRELOAD redis-cli -s s get k
      env -u LD_PRELOAD redis-cli -s s shutdown nosave
      wait $!
      echo status $?
      """
    try same(["sh", "-c", script], conf: "guard:right")
  }

  @Test("gcc and g++")
  func compilers() throws {
    let scratch = try Scratch()
    let source = try scratch.file(
      "x.cc", "#include <string>\n#include <cstdio>\nint main() { std::string s(40, 'x'); puts(s.c_str()); }\n")
    try same(
      ["sh", "-c", "g++ -O1 -o \(scratch.path)/x \(source) && \(scratch.path)/x"], conf: "guard:right")
    try same(
      ["sh", "-c", "echo 'int f(int a) { return a * 3; }' | gcc -O2 -S -x c -o - -"], conf: "guard:left")
  }

  @Test("a Swift program, whose objects are more aligned than their sizes tell", arguments: ["right", "left"])
  func swift(side: String) throws {
    guard let binary = try buildSwiftObjects() else { return print("skipped swift: no swiftc") }
    try same([binary, "5000"], conf: "guard:\(side)")
  }
}
