import Foundation
import Testing

@testable import kegmalloc

@Suite("Debug: symbolisers", .serialized)
struct SymbolizerTests {
  let scratch: Scratch
  let program: DebuggedProgram

  init() throws {
    scratch = try Scratch()
    program = try #require(try DebuggedProgram(in: scratch))
  }

  private var record: FrameRecord {
    FrameRecord(
      pc: "0x5500", module: program.path, offset: "0x\(String(program.allocation, radix: 16))",
      function: DebuggedProgram.makeLinkage)
  }

  private func check(_ backend: any Symbolizing, columns: Bool) throws {
    let symbolizer = Symbolizer(backend: backend)
    // Twice: a process that lost step would answer the second question wrongly.
    for _ in 0..<2 {
      let frames = Symbolizer(backend: backend).frames(record)
      #expect(frames.last?.function == "Node* make<Node>(unsigned long)")
      // addr2line calls the innermost frame by the ELF symbol when first asked.
      if columns { #expect(frames.first?.function == "fresh") }
      #expect(frames.map(\.line) == [4, 7])
      #expect(frames.allSatisfy { $0.file == scratch.path + "/node.cc" })
      #expect(frames.map(\.inlined) == [true, nil])
      #expect((frames[0].column != nil) == columns)
      let unknown = FrameRecord(pc: "0x1", module: program.path, offset: "0x2", function: nil)
      #expect(symbolizer.frames(unknown).first?.file == nil)
      let absent = FrameRecord(pc: "0x1", module: "/none", offset: "0x2", function: "given")
      #expect(symbolizer.frames(absent).map(\.function) == ["given"])
    }
  }

  @Test("llvm-symbolizer names inlined frames, files, lines and columns")
  func llvm() throws {
    let tool = try Launch.locate("llvm-symbolizer", path: nil)
    try check(try #require(LLVMSymbolizer(tool)), columns: true)
  }

  @Test("addr2line does the same, less columns")
  func addressToLine() throws {
    try check(AddressToLine(try Launch.locate("addr2line", path: nil)), columns: false)
  }

  @Test("the first that is installed is taken, and none is no error")
  func choice() {
    #expect(Symbolizer.installed(path: "/usr/bin") is LLVMSymbolizer)
    #expect(Symbolizer.installed(path: "/none") == nil)
    let frames = Symbolizer(backend: nil).frames(record)
    #expect(frames.map(\.function) == ["Node* make<Node>(unsigned long)"])
  }

  @Test("a symboliser that dies leaves the ELF names")
  func dies() throws {
    let broken = try scratch.file("broken", "#!/bin/sh\nexit 1\n")
    let backend = try #require(LLVMSymbolizer(broken))
    signal(SIGPIPE, SIG_IGN)
    let frames = Symbolizer(backend: backend).frames(record)
    #expect(frames.map(\.function) == ["Node* make<Node>(unsigned long)"])
  }

  @Test(
    "addr2line's places are understood",
    arguments: [
      ("main", "/a b/c.c:12", "main|/a b/c.c|12"), ("main", "/c.c:3 (discriminator 4)", "main|/c.c|3"),
      ("??", "/c.c:?", "nil|/c.c|nil"), ("f", "??:0", "f|nil|nil"),
    ])
  func places(function: String, place: String, expected: String) throws {
    let frame = try #require(AddressToLine.frame(function, place))
    let parts = [frame.function, frame.file, frame.line.map(String.init)].map { $0 ?? "nil" }
    #expect(parts.joined(separator: "|") == expected)
    #expect(AddressToLine.frame("??", "??:0") == nil)
  }

  @Test("symbolize rewrites the stacks of a log and nothing else")
  func rewriting() throws {
    let offset = "0x\(String(program.allocation, radix: 16))"
    let input = """
      text of the program
      kegmalloc: ERROR: leak: 40 bytes in 1 item lost at 0x7f0000001000
        allocated by thread 1:
          #0 0x5500 \(DebuggedProgram.makeLinkage)+0x1f (\(program.path)+\(offset))
          #1 0x5600 other (part)+0x2 (/none/lib.so+0x10)
          #2 not a frame

      """
    let file = try scratch.file("log", input, mode: 0o644)
    let result = try capture("/bin/sh", ["-c", "exec \(commandPath) symbolize < \(file)"])
    #expect(result.status == 0)
    #expect(
      result.output == """
        text of the program
        kegmalloc: ERROR: leak: 40 bytes in 1 item lost at 0x7f0000001000
          allocated by thread 1:
            #0 0x5500 fresh \(scratch.path)/node.cc:4:36 (inlined)
            #1 0x5500 Node* make<Node>(unsigned long) \(scratch.path)/node.cc:7:15
            #2 0x5600 other (part)+0x2 (/none/lib.so+0x10)
            #2 not a frame

        """)
  }
}
