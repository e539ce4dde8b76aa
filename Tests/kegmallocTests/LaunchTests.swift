import Foundation
import Testing

@testable import kegmalloc

@Suite("Environment, library and command look-up")
struct LaunchTests {
  @Test(
    "the library comes first in LD_PRELOAD, once",
    arguments: [
      (nil, "/l/libkegmalloc.so"),
      ("", "/l/libkegmalloc.so"),
      ("/a.so", "/l/libkegmalloc.so:/a.so"),
      ("/a.so:/b.so", "/l/libkegmalloc.so:/a.so:/b.so"),
      ("/a.so /b.so", "/l/libkegmalloc.so:/a.so:/b.so"),
      ("/a.so:/l/libkegmalloc.so", "/l/libkegmalloc.so:/a.so"),
      ("/other/libkegmalloc.so::/a.so", "/l/libkegmalloc.so:/a.so"),
    ] as [(String?, String)])
  func preload(existing: String?, expected: String) {
    #expect(Launch.preload("/l/libkegmalloc.so", before: existing) == expected)
  }

  @Test("options follow those already set")
  func configuration() {
    #expect(Launch.configuration([], after: nil) == nil)
    #expect(Launch.configuration([], after: "a:1") == "a:1")
    #expect(Launch.configuration(["b:2", "c:3"], after: "a:1") == "a:1,b:2,c:3")
    #expect(Launch.configuration(["b:2"], after: "") == "b:2")
  }

  @Test("the library beside the command wins over an installed one")
  func library() throws {
    let scratch = try Scratch()
    for directory in ["bin", "lib", "installed"] {
      try FileManager.default.createDirectory(
        atPath: scratch.path + "/" + directory, withIntermediateDirectories: true)
    }
    let installed = try scratch.file("installed/libkegmalloc.so", "")
    let command = scratch.path + "/bin/kegmalloc"
    let places = [scratch.path + "/installed"]
    #expect(try Launch.library(chosen: nil, command: command, installed: places) == installed)
    let beside = try scratch.file("lib/libkegmalloc.so", "")
    #expect(try Launch.library(chosen: nil, command: command, installed: places) == beside)
  }

  @Test("a library that is missing or cannot be named in LD_PRELOAD is refused")
  func refusedLibrary() throws {
    let scratch = try Scratch()
    #expect(throws: Refusal.self) {
      try Launch.library(chosen: nil, command: "/none/bin/kegmalloc", installed: [])
    }
    #expect(throws: Refusal.self) {
      try Launch.library(chosen: scratch.path + "/absent.so", command: "", installed: [])
    }
    let blank = try scratch.file("a b.so", "")
    #expect(throws: Refusal.self) {
      try Launch.library(chosen: blank, command: "", installed: [])
    }
  }

  @Test("the command is looked up as execvp does")
  func locate() throws {
    let scratch = try Scratch()
    for directory in ["first", "second"] {
      try FileManager.default.createDirectory(
        atPath: scratch.path + "/" + directory, withIntermediateDirectories: true)
    }
    let plain = try scratch.file("first/tool", "", mode: 0o644)
    let path = "\(scratch.path)/first:\(scratch.path)/second"
    #expect(throws: Refusal(line: "\(plain) is not executable", exitCode: Refusal.notExecutable)) {
      try Launch.locate("tool", path: path)
    }
    let tool = try scratch.file("second/tool", "")
    #expect(try Launch.locate("tool", path: path) == tool)
    #expect(try Launch.locate(tool, path: nil) == tool)
    for (command, code) in [
      ("absent", Refusal.notFound), ("", Refusal.notFound), (scratch.path + "/none", Refusal.notFound),
      (scratch.path + "/first", Refusal.notExecutable), (plain + "/x", Refusal.notFound),
    ] {
      #expect { try Launch.locate(command, path: path) } throws: {
        ($0 as? Refusal)?.exitCode == code
      }
    }
  }
}

@Suite("Settings")
struct SettingTests {
  let known = ["decay_ms", "background", "thp"].map {
    KnownOption(key: $0, unit: "ms", defaultText: "1000", rangeText: "0...10", help: "Help \($0).")
  }

  @Test("pairs are split at commas, values may hold colons")
  func pairs() throws {
    #expect(try Setting.parse("thp:never", known: known) == ["thp:never"])
    #expect(try Setting.parse("thp:never,decay_ms:5", known: known) == ["thp:never", "decay_ms:5"])
    #expect(try Setting.parse("thp:a:b", known: known) { _ in true } == ["thp:a:b"])
  }

  @Test(
    "a value that the library would not take is refused, with what it takes",
    arguments: [
      ("decay_ms:abc", "0 ... 3600000"), ("decay_ms:3600001", "0 ... 3600000"),
      ("decay_ms:-1", "0 ... 3600000"), ("decay_ms:1 ", "0 ... 3600000"),
      ("thp:sometimes", "system|never|always"), ("thp:always,background:Auto", "auto|on|off"),
    ])
  func badValue(argument: String, range: String) {
    #expect {
      try Setting.parse(argument, known: KnownOption.all)
    } throws: { error in
      guard let refusal = error as? Refusal else { return false }
      return refusal.exitCode == 2 && refusal.line.hasSuffix("expected \(range)")
    }
  }

  @Test("every default of the library's table is a value that it takes")
  func defaults() {
    for option in KnownOption.all where !option.defaultText.isEmpty {
      #expect(KnownOption.libraryAccepts("\(option.key):\(option.defaultText)"), "\(option.key)")
    }
    #expect(!KnownOption.libraryAccepts("nonsense:1"))
  }

  @Test("what is not key:value is refused", arguments: ["", "thp", "thp:", ":1", "thp:1,", "thp=1"])
  func malformed(argument: String) {
    #expect(throws: Refusal.self) { try Setting.parse(argument, known: known) }
  }

  @Test("an unknown key names the nearest one")
  func unknown() {
    #expect {
      try Setting.parse("decay_sm:1", known: known)
    } throws: { error in
      guard let refusal = error as? Refusal else { return false }
      return refusal.exitCode == 2 && refusal.line.contains("did you mean decay_ms?")
    }
  }

  @Test("distance counts single-letter edits")
  func distance() {
    #expect(Setting.distance("", "abc") == 3)
    #expect(Setting.distance("kitten", "sitting") == 3)
    #expect(Setting.distance("thp", "thp") == 0)
  }

  @Test("the table has one line an option, in columns")
  func table() {
    let lines = Setting.table(known).split(separator: "\n")
    #expect(lines.count == known.count + 1)
    #expect(lines[1] == "decay_ms    1000     0...10  ms    Help decay_ms.")
  }
}
