import Foundation
import Testing

@testable import kegmalloc

/// The debug library as `make` left it.
private let debugLibrary: String? = {
  let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent()
  let path = root.appendingPathComponent("out/lib/libkegmalloc-debug.so").path
  return FileManager.default.fileExists(atPath: path) ? path : nil
}()

/// From a bug in a program to the line in the report, through library and command.
@Suite(
  "kegmalloc debug with its library", .enabled(if: debugLibrary != nil, "make library first"),
  .serialized)
struct DebugLibraryTests {
  /// One bug for each first argument, in functions whose names say what they do.
  static let source = """
    #include <cstdlib>
    #include <cstring>
    #include <unistd.h>
    #include <sys/wait.h>
    #define OUT __attribute__((noinline))
    namespace shop { struct Basket { char items[40]; }; }
    static inline __attribute__((always_inline)) void *raw(size_t size) { return malloc(size); }
    OUT char *buy(size_t size) { char *p = (char *)raw(size); memset(p, 1, size); return p; }
    OUT void sell(char *p) { free(p); }
    OUT void scribble(char *p, long at) { ((volatile char *)p)[at] = 7; }
    OUT char peek(char *p, long at) { return ((volatile char *)p)[at]; }
    OUT void forget() { char *volatile p = buy(1000); p = nullptr; }
    void *kept[10];
    int main(int argc, char **argv) {
      switch (argv[1][0]) {
      case 'd': { char *p = buy(40); sell(p); sell(p); break; }
      case 'o': { char *p = buy(40); scribble(p, 40); sell(p); break; }
      case 'u': { char *p = buy(40); sell(p); scribble(p, 3); break; }
      case 'r': { char *p = buy(40); peek(p, 40); sell(p); break; }
      case 'l': { char *p = buy(40); peek(p, -1); sell(p); break; }
      case 'm': { shop::Basket *volatile p = new shop::Basket[2]; free(p); break; }
      case 'i': { char *p = buy(40); sell(p + 8); sell(p); break; }
      case 'f': { char *p = buy(40); sell(p); if (fork() == 0) { sell(p); _exit(0); } wait(nullptr); break; }
      case 'k': forget(); forget(); break;
      case 'p': for (int i = 0; i < 10; i++) { sell(buy(500)); kept[i] = buy(100); } break;
      default: sell(buy(40)); return 3;
      }
      char clean[4096];
      memset(clean, 0, sizeof clean);
      __asm__ volatile("" : : "r"(clean) : "memory");
      return 3;
    }
    """

  let scratch: Scratch
  let program: String

  init() throws {
    scratch = try Scratch()
    let file = try scratch.file("shop.cc", Self.source, mode: 0o644)
    program = scratch.path + "/shop"
    let built = try capture("/usr/bin/c++", ["-g", "-O1", "-w", file, "-o", program])
    try #require(built.status == 0, "\(built.errors)")
  }

  private func debug(_ options: [String], _ bug: String) throws -> Captured {
    try capture(
      commandPath, ["debug", "--lib", try #require(debugLibrary)] + options + ["--", program, bug],
      environment: ["PATH": "/usr/bin:/bin"])
  }

  /// The line of the source that begins so.
  private func line(_ start: String) throws -> Int {
    let lines = Self.source.split(separator: "\n", omittingEmptySubsequences: false)
    return try #require(lines.firstIndex { $0.contains(start) }) + 1
  }

  @Test("a program without a bug has its own exit code, and no report")
  func clean() throws {
    for options in [[], ["--guard", "right"], ["--guard", "left"]] {
      let result = try debug(options, "n")
      #expect(result.status == 3 && !result.errors.contains("ERROR"), "\(result.errors)")
      #expect(result.errors.contains("0 errors, no leaks"))
    }
  }

  @Test(
    "each bug is named with its class, and the files and lines of its stacks",
    arguments: [
      ("d", "double-free", ["detected", "allocated", "freed"]), ("o", "overflow", ["allocated"]),
      ("u", "use-after-free", ["allocated", "freed"]), ("i", "invalid-free", ["detected", "allocated"]),
      ("f", "double-free", ["detected", "allocated", "freed"]),
    ])
  func bugs(bug: String, name: String, stacks: [String]) throws {
    let json = scratch.path + "/json"
    let result = try debug(["--json", json], bug)
    #expect(result.status == 99)
    #expect(result.errors.contains("kegmalloc: ERROR: \(name): "))
    let object = try firstObject(json)
    #expect(object["class"] as? String == name)
    for stack in stacks {
      let frames = try frames(object, stack)
      let named = frames.map { "\($0["function"] as? String ?? "?")" }
      let isAllocation = stack == "allocated"
      #expect(named.prefix(2) == (isAllocation ? ["raw", "buy(unsigned long)"] : ["sell(char*)", "main"])[...])
      let place = try line(isAllocation ? "static inline __attribute__" : "OUT void sell")
      #expect(frames.first?["line"] as? Int == place)
      #expect(frames.first?["file"] as? String == scratch.path + "/shop.cc")
      #expect(frames.first?["inlined"] as? Bool == (isAllocation ? true : nil))
    }
  }

  @Test("C++ kinds of allocation are told apart, and their callers demangled")
  func mismatch() throws {
    let result = try debug([], "m")
    #expect(result.status == 99 && result.errors.contains("kegmalloc: ERROR: mismatch: "))
    #expect(result.errors.contains("by new[]"))
    #expect(result.errors.contains("main \(scratch.path)/shop.cc:\(try line("case 'm'"))"))
  }

  @Test("--guard both finds the read on each side")
  func reads() throws {
    for (bug, name) in [("r", "overflow"), ("l", "underflow")] {
      let json = scratch.path + "/json"
      let result = try debug(["--guard", "both", "--json", json], bug)
      #expect(result.status == 99, "\(result.errors)")
      let object = try firstObject(json)
      #expect(object["class"] as? String == name && object["access"] as? String == "read")
      #expect(object["guards"] as? [String] == [bug == "r" ? "right" : "left"])
      #expect(try frames(object, "detected").first?["function"] as? String == "peek(char*, long)")
      #expect(try frames(object, "detected").first?["line"] as? Int == line("OUT char peek"))
    }
  }

  @Test("leaks are merged by stack, and hidden by the block made for them")
  func leaks() throws {
    let result = try debug(["--gen-suppressions"], "k")
    #expect(result.status == 99)
    #expect(result.errors.contains("2,000 bytes leaked in 2 blocks"))
    let block = try #require(result.errors.range(of: "{\n"))
    let end = try #require(result.errors.range(of: "}\n", options: .backwards))
    let rules = try scratch.file(
      "rules", String(result.errors[block.lowerBound..<end.upperBound]), mode: 0o644)
    let hidden = try debug(["--suppressions", rules], "k")
    #expect(hidden.status == 3 && hidden.errors.contains("no leaks"), "\(hidden.errors)")
    #expect(try debug(["--no-leaks"], "k").status == 3)
  }

  @Test("a profile counts what is held and what was allocated, by function")
  func profile() throws {
    let (allocated, held) = (scratch.path + "/allocated", scratch.path + "/held")
    let result = try debug(["--flame-allocated", allocated, "--flame-held", held], "p")
    #expect(result.status == 3, "\(result.errors)")
    let function = "main;buy(unsigned long);raw"
    #expect(try String(contentsOfFile: allocated, encoding: .utf8).contains("\(function) 6000\n"))
    #expect(try String(contentsOfFile: held, encoding: .utf8).contains("\(function) 1000\n"))
  }

  @Test("symbolize names lines in what the bare library writes")
  func symbolized() throws {
    let library = try #require(debugLibrary)
    let script = "LD_PRELOAD=\(library) \(program) d 2>&1 | \(commandPath) symbolize"
    let result = try capture("/bin/sh", ["-c", script])
    #expect(result.output.contains("kegmalloc: ERROR: double-free: "))
    #expect(result.output.contains("raw \(scratch.path)/shop.cc:\(try line("static inline __attribute__"))"))
    #expect(result.output.contains("(inlined)\n"))
  }

  private func firstObject(_ path: String) throws -> [String: Any] {
    let line = try #require(try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n").first)
    return try #require(JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
  }

  private func frames(_ object: [String: Any], _ stack: String) throws -> [[String: Any]] {
    let stacks = try #require(object["stacks"] as? [String: Any])
    return try #require((stacks[stack] as? [String: Any])?["frames"] as? [[String: Any]], "\(stack)")
  }
}
