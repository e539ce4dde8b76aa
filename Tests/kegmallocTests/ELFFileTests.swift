import Foundation
import Testing

@testable import kegmalloc

@Suite("ELF reader")
struct ELFFileTests {
  func read(_ path: String) throws -> ELFFile {
    try ELFFile(Data(contentsOf: URL(fileURLWithPath: path)))
  }

  @Test("a dynamic program has its loader, its libraries and its symbols")
  func dynamic() throws {
    let scratch = try Scratch()
    let file = try read(try #require(try scratch.program("dynamic", flags: [])))
    #expect(file.is64Bit && file.isLittleEndian && file.isDynamic)
    #expect(file.machine == Verdict.machine)
    #expect(file.interpreter?.contains("ld-linux") == true)
    #expect(file.needed == ["libc.so.6"])
    #expect(file.mentionsSymbol("__libc_start_main"))
    #expect(!file.mentionsSymbol("__libc_start"), "a prefix of a name is not the name")
    #expect(!file.mentionsSymbol("libc_start_main"), "neither is a suffix")
  }

  @Test("static and static-pie programs have no loader")
  func statics() throws {
    let scratch = try Scratch()
    if let path = try scratch.program("static", flags: ["-static", "-no-pie"]) {
      let file = try read(path)
      #expect(file.interpreter == nil && !file.isDynamic && file.type == 2)
    }
    if let path = try scratch.program("static-pie", flags: ["-static-pie"]) {
      let file = try read(path)
      #expect(file.interpreter == nil && file.isDynamic && file.type == 3)
    }
  }

  @Test("what is not ELF is told from what is damaged")
  func failures() throws {
    #expect(throws: ELFFile.Failure.notELF) { try ELFFile(Data()) }
    #expect(throws: ELFFile.Failure.notELF) { try ELFFile(Data("#!/bin/sh\nexit 0 # long\n".utf8)) }
    #expect(throws: ELFFile.Failure.damaged) {
      try ELFFile(elfHeader(machine: Verdict.machine).prefix(40))
    }
  }

  @Test("a file cut anywhere never reads past its end")
  func truncated() throws {
    let scratch = try Scratch()
    let path = try #require(try scratch.program("whole", flags: []))
    let whole = try Data(contentsOf: URL(fileURLWithPath: path))
    for length in stride(from: 0, to: whole.count, by: 97) {
      _ = try? ELFFile(whole.prefix(length))
    }
  }

  @Test("a header of random numbers never reads past the end (seed 1)")
  func garbled() throws {
    let scratch = try Scratch()
    let path = try #require(try scratch.program("garbled", flags: []))
    let whole = try Data(contentsOf: URL(fileURLWithPath: path))
    var state: UInt64 = 1
    for _ in 0..<2000 {
      var copy = whole.prefix(4096)
      for _ in 0..<4 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        copy[copy.startIndex + 16 + Int(state >> 33) % 800] = UInt8(truncatingIfNeeded: state >> 24)
      }
      _ = try? ELFFile(copy)
    }
  }
}
