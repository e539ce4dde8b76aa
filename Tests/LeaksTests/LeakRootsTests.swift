// LeakRootsTests.swift: lines of /proc/self/maps to mappings, and mappings and threads
// to the pieces that are scanned.

import Base
import Pages
import Testing

@testable import Leaks

private func parse(_ text: String) -> [Mapping] {
  var parser = MapsParser()
  var mappings: [Mapping] = []
  for byte in text.utf8 { parser.take(byte) { mappings.append($0) } }
  return mappings
}

@Suite("Leak maps")
struct LeakMapsTests {
  @Test("bounds, permissions, inode")
  func fields() {
    let mappings = parse(
      """
      55d0c0de0000-55d0c0de1000 r--p 00000000 fe:00 1234                       /usr/bin/x y
      7f0000000000-7f0000021000 rw-s 00000000 00:05 77 /dev/zero (deleted)

      """)
    #expect(mappings.count == 2)
    #expect(mappings[0].start == 0x55d0_c0de_0000 && mappings[0].end == 0x55d0_c0de_1000)
    #expect(mappings[0].isReadable && !mappings[0].isWritable && !mappings[0].isShared)
    #expect(mappings[0].inode == 1234 && mappings[0].name == .other)
    #expect(mappings[1].isWritable && mappings[1].isShared && mappings[1].name == .none)
  }

  static let names: [(String, MappingName)] = [
    ("", .none), ("[heap]", .none), ("[anon:arena]", .none), ("/dev/shm/x", .none), ("/memfd:x (deleted)", .none),
    ("[stack]", .stack), ("[vvar]", .untouchable), ("[vsyscall]", .untouchable),
    ("/dev/dri/card0", .untouchable), ("/usr/lib/x86_64-linux-gnu/libc.so.6", .system),
    ("/lib64/ld-linux-x86-64.so.2", .system), ("/usr/lib/libstdc++.so.6.0.30", .system),
    ("/usr/lib/libcrypto.so.3", .other), ("/opt/libc.so/program", .other),
  ]
  @Test("names", arguments: names)
  func name(path: String, name: MappingName) {
    #expect(parse("1000-2000 rw-p 00000000 00:00 0 \(path)\n").first?.name == name)
    if path.hasPrefix("/usr") { #expect(path.withCString { mappingName(path: $0) } == name) }
  }
}

/// Roots over made-up memory; mappings whose contents matter are real.
private struct Rig {
  var scratch = LeakScratch(source: .kernel())
  var threads: [LeakThread] = []
  var layout = LeakLayout(
    stackEnd: 0x7FFF_0000_8000, staticTLS: 0x800, tidOffset: 720, resultOffset: 1584,
    isForked: false)
  var cuts: [LeakPiece] = []

  mutating func pieces(_ mappings: [Mapping]) -> (pieces: [LeakPiece], tables: [UInt]) {
    let memory = UnsafeMutablePointer<LeakThread>.allocate(capacity: threads.count + 1)
    defer {
      memory.deallocate()
      scratch.releaseAll()
    }
    for (i, thread) in threads.enumerated() { (memory + i).initialize(to: thread) }
    var list = LeakPieces(capacity: 64, scratch: &scratch)!
    for cut in cuts { list.append(cut.start, cut.end, cut.kind) }
    list.sort()
    var roots = LeakRoots(
      layout: layout, threads: memory, threadCount: threads.count, cuts: list,
      // What is made up cannot be read.
      read: { $1 < 1 << 32 ? 0 : LeakWorld.plainReader($0, $1, $2) }, pieces: LeakPieces(capacity: 64, scratch: &scratch)!,
      tables: LeakPieces(capacity: 64, scratch: &scratch)!)
    for mapping in mappings { roots.take(mapping) }
    return (
      (0..<roots.pieces.count).map { roots.pieces[$0] },
      (0..<roots.tables.count).map { roots.tables[$0].start }
    )
  }
}

extension LeakPiece: Equatable {
  public static func == (a: Self, b: Self) -> Bool {
    a.start == b.start && a.end == b.end && a.kind == b.kind && a.isFile == b.isFile
  }
  init(_ start: UInt, _ end: UInt, _ kind: LeakKind, isFile: Bool = false) {
    self.init(start: start, end: end, kind: kind, isFile: isFile)
  }
}

private func mapping(
  _ start: UInt, _ end: UInt, _ permissions: String = "rw", inode: UInt = 0,
  name: MappingName = .none
) -> Mapping {
  var mapping = Mapping()
  mapping.start = start
  mapping.end = end
  mapping.isReadable = permissions.contains("r")
  mapping.isWritable = permissions.contains("w")
  mapping.isShared = permissions.contains("s")
  mapping.inode = inode
  mapping.name = name
  return mapping
}

@Suite("Leak roots")
struct LeakRootsTests {
  @Test("data is scanned, code and devices are not; cuts are cut out or get their kind")
  func plain() {
    var rig = Rig()
    rig.cuts = [
      LeakPiece(0x3000, 0x4000, .system), LeakPiece(0x1800, 0x2000, .lost),
      LeakPiece(0x0, 0x1100, .lost),
    ]
    let found = rig.pieces([
      mapping(0x1000, 0x5000), mapping(0x5000, 0x6000, "x", inode: 3, name: .other),
      mapping(0x7000, 0x8000, inode: 4, name: .untouchable),
      mapping(0x9000, 0xA000, inode: 5, name: .system),
    ])
    #expect(
      found.pieces == [
        LeakPiece(0x1100, 0x1800, .reachable), LeakPiece(0x2000, 0x3000, .reachable),
        LeakPiece(0x3000, 0x4000, .system), LeakPiece(0x4000, 0x5000, .reachable),
        LeakPiece(0x9000, 0xA000, .system),
      ])
  }

  @Test("what is read-only: memory, and of private files what was written to before")
  func readOnly() {
    var rig = Rig()
    rig.cuts = [LeakPiece(0x5000, 0x6000, .system), LeakPiece(0x8000, 0x9000, .lost)]
    let found = rig.pieces([
      mapping(0x1000, 0x2000, "rx", inode: 9, name: .other),
      mapping(0x2000, 0x3000, "r", inode: 9, name: .other),
      mapping(0x3000, 0x4000, inode: 9, name: .other),
      mapping(0x4000, 0x6000, "r", inode: 8, name: .other), mapping(0x7000, 0x9000, "r"),
      mapping(0xA000, 0xB000, "rs", inode: 7, name: .other),
      mapping(0xB000, 0xC000, "rs", inode: 6), mapping(0xC000, 0xD000, "", inode: 5),
      mapping(0xD000, 0xE000, "r", inode: 4, name: .system),
    ])
    #expect(
      found.pieces == [
        LeakPiece(0x1000, 0x2000, .reachable, isFile: true),
        LeakPiece(0x2000, 0x3000, .reachable, isFile: true), LeakPiece(0x3000, 0x4000, .reachable),
        LeakPiece(0x4000, 0x5000, .reachable, isFile: true),
        LeakPiece(0x5000, 0x6000, .system, isFile: true), LeakPiece(0x7000, 0x8000, .reachable),
        LeakPiece(0xB000, 0xC000, .reachable), LeakPiece(0xD000, 0xE000, .system, isFile: true),
      ])
  }

  @Test("main's stack: dead below its pointer, arguments above its end")
  func mainStack() {
    let stack = mapping(0x7FFF_0000_0000, 0x7FFF_0000_9000, name: .stack)
    func found(_ pointer: UInt, ended: Bool = false) -> [LeakPiece] {
      var rig = Rig()
      rig.threads = [LeakThread(tid: 1, stackPointer: pointer, threadPointer: 0, hasEnded: ended)]
      return rig.pieces([stack]).pieces
    }
    let top = LeakPiece(0x7FFF_0000_8000, 0x7FFF_0000_9000, .system)
    #expect(found(0x7FFF_0000_5008) == [LeakPiece(0x7FFF_0000_5008, 0x7FFF_0000_8000, .stack), top])
    #expect(found(0x7FFF_0000_8000) == [top], "after main has returned")
    #expect(found(0, ended: true) == [top], "after pthread_exit")
    #expect(
      found(0x1234) == [LeakPiece(0x7FFF_0000_0000, 0x7FFF_0000_8000, .stack), top],
      "on another stack at the moment")
  }

  /// A stack as the C library lays it out, with its thread block, in memory of ours.
  private func withThreadStack(
    tid: Int32, _ body: (_ start: UInt, _ end: UInt, _ block: UInt) -> Void
  ) {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 32768, alignment: 4096)
    memory.initializeMemory(as: UInt8.self, repeating: 0, count: 32768)
    defer { memory.deallocate() }
    let start = UInt(bitPattern: memory)
    let end = start + 32768
    let block = end - 2304
    block.word = block
    (block + 16).word = block
    (block + 720).word = UInt(UInt32(bitPattern: tid))
    body(start, end, block)
  }

  @Test("a thread's stack: frames from its pointer on, then TLS")
  func threadStack() {
    withThreadStack(tid: 7) { start, end, block in
      var rig = Rig()
      rig.threads = [LeakThread(tid: 7, stackPointer: start + 0x4000, threadPointer: block)]
      let found = rig.pieces([mapping(start, end)])
      #expect(
        found.pieces == [
          LeakPiece(start + 0x4000, end - 0x800, .stack), LeakPiece(end - 0x800, end, .reachable),
        ])
      #expect(found.tables.isEmpty)
      // Not stopped: all of it may be alive.
      rig.threads = [LeakThread(tid: 7, stackPointer: 0, threadPointer: 0)]
      #expect(rig.pieces([mapping(start, end)]).pieces.first == LeakPiece(start, end - 0x800, .stack))
    }
  }

  @Test("the stack of a thread that has ended holds nothing but its result")
  func endedThread() {
    withThreadStack(tid: 0) { start, end, block in
      var rig = Rig()
      let found = rig.pieces([mapping(start, end)])
      #expect(found.pieces == [LeakPiece(block + 1584, block + 1592, .reachable)])
      #expect(found.tables == [block + 8])
    }
    withThreadStack(tid: -1) { start, end, block in
      var rig = Rig()
      #expect(rig.pieces([mapping(start, end)]).pieces.isEmpty, "joined: it has been fetched")
      rig.layout.isForked = true
      #expect(rig.pieces([mapping(start, end)]).pieces == [LeakPiece(start, end, .stack)])
    }
  }

  @Test("memory that merely looks full is data")
  func notAStack() {
    withThreadStack(tid: 0) { start, end, block in
      block.word = 0
      var rig = Rig()
      #expect(rig.pieces([mapping(start, end)]).pieces == [LeakPiece(start, end, .reachable)])
    }
  }
}
