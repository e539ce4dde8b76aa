// AbiTests.swift: what the library exports, needs and promises to the loader.

import Foundation
import Testing

@Suite("ABI", .libraryPresent, .ours)
struct AbiTests {
  func readelf(_ flags: String...) throws -> String {
    let outcome = try run(
      ["readelf"] + flags + [Library.path], environment: ["LC_ALL": "C"], preload: false)
    outcome.expect(outcome.succeeded)
    return outcome.stdout
  }

  @Test("every symbol of the malloc surface resolves to the library")
  func symbols() throws {
    try expectOK("abi_symbols", [Library.path])
  }

  @Test("the exported names are those of exports.golden")
  func exports() throws {
    let golden = try String(
      contentsOfFile: Repository.root + "/Tests/PreloadTests/exports.golden", encoding: .utf8)
    let wanted = Set(
      golden.split(separator: "\n").filter { !$0.hasPrefix("#") }.map(String.init))
    let outcome = try run(["nm", "-D", "--defined-only", Library.path], preload: false)
    let exported = Set(
      outcome.stdout.split(separator: "\n").compactMap { line -> String? in
        // An absolute symbol without a value names a version, not a function.
        let fields = line.split(separator: " ")
        guard fields.count == 3, fields[1] != "A" else { return nil }
        return fields[2].split(separator: "@").first.map(String.init)
      })
    #expect(exported.subtracting(wanted).sorted() == [], "exported without being in exports.golden")
    #expect(wanted.subtracting(exported).sorted() == [], "in exports.golden without being exported")
  }

  @Test("the C library is all it needs, and its name is libkegmalloc.so.1")
  func dynamicSection() throws {
    let lines = try readelf("-dW").split(separator: "\n")
    let needed = lines.filter { $0.contains("(NEEDED)") }
    #expect(needed.count == 1 && needed.first?.contains("[libc.so.6]") == true, "\(needed)")
    #expect(lines.contains { $0.contains("(SONAME)") && $0.contains("[libkegmalloc.so.1]") })
    #expect(!lines.contains { $0.contains("RUNPATH") || $0.contains("RPATH") || $0.contains("TEXTREL") })
    let flags = lines.filter { $0.contains("(FLAGS") }.joined(separator: " ")
    // readelf writes BIND_NOW for DT_FLAGS and NOW for DT_FLAGS_1.
    for flag in ["NOW", "NODELETE", "STATIC_TLS"] {
      #expect(flags.contains(flag), "\(flag) is missing in \(flags)")
    }
  }

  @Test("relocations are read-only after start, and nothing is writable and executable")
  func segments() throws {
    let lines = try readelf("-lW").split(separator: "\n")
    #expect(lines.contains { $0.contains("GNU_RELRO") })
    #expect(lines.contains { $0.contains("GNU_EH_FRAME") })
    #expect(!lines.contains { $0.contains("RWE") })
    let stack = lines.first { $0.contains("GNU_STACK") }
    #expect(stack?.contains("RW ") == true, "\(stack ?? "no GNU_STACK")")
  }

  @Test("debuggers find a build-id and unwind tables")
  func forDebuggers() throws {
    let sections = try readelf("-SW")
    #expect(sections.contains(".note.gnu.build-id"))
    #expect(sections.contains(" .eh_frame "))
    #expect(try readelf("-nW").contains("Build ID:"))
  }

  @Test("thread-local storage is two words (bins, section), so that dlopen always finds room")
  func threadLocal() throws {
    let line = try readelf("-lW").split(separator: "\n").first { $0.contains(" TLS ") }
    let fields = (line ?? "").split(separator: " ")
    try #require(fields.count > 5, "no TLS segment")
    #expect(Int(fields[5].dropFirst(2), radix: 16).map { $0 <= 16 } == true, "\(line ?? "")")
  }
}
