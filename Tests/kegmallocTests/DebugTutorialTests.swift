import Foundation
import Testing

@testable import kegmalloc

private let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
  .deletingLastPathComponent().deletingLastPathComponent()
private let tutorialLibrary = root.appendingPathComponent("out/lib/libkegmalloc-debug.so").path

/// What differs from run to run, and from one symboliser to another: addresses, bytes of
/// red zones, numbers of processes, times, columns.
private func normalised(_ text: String) -> [String] {
  text.split(separator: "\n").compactMap { line in
    // Bytes of red zones differ; so do the C library's own frames.
    if line.hasPrefix("    0x") || line.contains("./") || line.contains("strdup") { return nil }
    var line = String(line)
    for (pattern, replacement) in [
      ("0x[0-9a-f]+", "0x"), ("(process|thread) [0-9]+", "$1"), ("after [0-9]+ ms", "after"),
      ("(:[0-9]+):[0-9]+", "$1"), ("#[0-9]+", "#"), (" [^ ]*/([^ /]+:[0-9]+)", " $1"),
    ] {
      line = line.replacingOccurrences(of: pattern, with: replacement, options: .regularExpression)
    }
    return line
  }
}

/// The five bugs of docs/debugging.md: their output there is what comes out.
@Suite(
  "the tutorial of docs/debugging.md",
  .enabled(if: FileManager.default.fileExists(atPath: tutorialLibrary), "make library first"))
struct DebugTutorialTests {
  /// Compiles an example and runs it under `kegmalloc debug`.
  private func run(_ source: String, _ flags: [String]) throws -> Captured {
    let scratch = try Scratch()
    let binary = scratch.path + "/program"
    let compiler = source.hasSuffix(".cc") ? "/usr/bin/c++" : "/usr/bin/cc"
    let made = try capture(
      compiler,
      ["-g", "-O0", "-o", binary] + flags + [root.path + "/examples/bugs/" + source],
      environment: ["PATH": "/usr/bin:/bin"])
    try #require(made.status == 0, "\(made.errors)")
    return try capture(
      commandPath, ["debug", "--lib", tutorialLibrary, binary], environment: ["PATH": "/usr/bin:/bin"])
  }

  @Test(
    "the report is the one in the text; the fixed program has none",
    arguments: ["path.c", "sessions.c", "image.cc", "names.cc", "cache.c"])
  func bug(source: String) throws {
    let text = try String(contentsOf: root.appendingPathComponent("docs/debugging.md"), encoding: .utf8)
    let known = Set(normalised(text))
    let found = try run(source, [])
    #expect(found.status == 99)
    let report = normalised(found.errors).filter { $0.hasPrefix("kegmalloc") || $0.contains(source) }
    #expect(report.count >= 3)
    for line in report { #expect(known.contains(line), "\(source): \(line)") }
    let fixed = try run(source, ["-DFIXED"])
    #expect(fixed.status == 0 && fixed.errors.hasPrefix("kegmalloc: 0 errors, no leaks; "))
  }
}
