import Foundation
import Testing

@testable import kegmalloc

@Suite("Debug: heap profiles")
struct HeapProfileTests {
  static let text = """
    heap profile: 2: 200 [7: 700] @ heapprofile
    2: 200 [3: 300] @ 0x55d000001011 0x55d000002021
    0: 0 [4: 400] @ 0x401001 0x7f0000001235
    0: 0 [1: 9] @

    MAPPED_LIBRARIES:
    00400000-00402000 r-xp 00000000 08:01 9                  /bin/fixed
    55d000000000-55d000001000 r--p 00000000 08:01 11         /bin/pro g
    55d000001000-55d000003000 r-xp 00001000 08:01 11         /bin/pro g
    7f0000000000-7f0000002000 rw-p 00000000 00:00 0
    """
  let profile = HeapProfile(text) { $0 == "/bin/fixed" }

  @Test("figures are read, and return addresses become places of calls in files")
  func reading() {
    #expect(
      profile.samples.map(\.figures) == [
        HeapProfile.Figures(held: 2, heldBytes: 200, allocations: 3, allocatedBytes: 300),
        HeapProfile.Figures(allocations: 4, allocatedBytes: 400),
        HeapProfile.Figures(allocations: 1, allocatedBytes: 9),
      ])
    #expect(
      profile.samples.map { $0.places.map { "\($0.module ?? "?")+\($0.offset ?? $0.pc)" } } == [
        ["/bin/pro g+0x1010", "/bin/pro g+0x2020"], ["/bin/fixed+0x401000", "?+0x7f0000001234"], [],
      ])
  }

  private func named() -> NamedProfile {
    let symbols = FixedSymbols()
    symbols.answers[0x1010] = [
      SymbolizedFrame(function: "inner;x", file: "/a.c", line: 3),
      SymbolizedFrame(function: "outer", start: 0x1000, file: "/a.c", line: 8),
    ]
    symbols.answers[0x2020] = [SymbolizedFrame(function: "main", file: "/a.c", line: 20)]
    return NamedProfile([profile, profile], symbolizer: Symbolizer(backend: symbols))
  }

  @Test("collapsed stacks begin at main, add up, and leave out what has no bytes")
  func folded() {
    #expect(named().folded(\.heldBytes) == "main;outer;inner:x 400\n")
    #expect(
      named().folded(\.allocatedBytes)
        == "0x7f0000001234;/bin/fixed 800\nmain;outer;inner:x 600\nunknown 18\n")
  }

  @Test("gzip's form is right for no, one and several blocks", arguments: [0, 1, 65_535, 65_536, 200_000])
  func gzip(count: Int) throws {
    let scratch = try Scratch()
    let data = Data((0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) })
    let file = try scratch.file("data.gz", GZip.stored(data), mode: 0o644)
    let plain = scratch.path + "/data"
    #expect(try capture("/bin/sh", ["-c", "gzip -dc \(file) > \(plain)"]).status == 0)
    #expect(FileManager.default.contents(atPath: plain) == data)
  }

  @Test("the checksum is CRC-32")
  func checksum() { #expect(GZip.checksum(Data("123456789".utf8)) == 0xcbf4_3926) }

  @Test("numbers are coded seven bits a byte")
  func proto() {
    var message = ProtoMessage()
    message.add(1, 300)
    message.add(2, Data("ab".utf8))
    message.add(3, packed: [1, -1])
    #expect(
      message.bytes == Data([8, 0xac, 2, 0x12, 2, 0x61, 0x62, 0x1a, 11, 1] + [UInt8](repeating: 0xff, count: 9) + [1]))
  }

  static let go = ["/usr/bin/go"].first { FileManager.default.isExecutableFile(atPath: $0) }

  @Test("pprof reads it", .enabled(if: go != nil, "golang-go is not installed"))
  func pprof() throws {
    let scratch = try Scratch()
    let file = try scratch.file("p.pb.gz", PprofWriter.file(named()), mode: 0o644)
    let go = try #require(Self.go)
    let environment = ["HOME": scratch.path, "PATH": "/usr/bin:/bin", "GOFLAGS": "-mod=mod"]
    let held = try capture(go, ["tool", "pprof", "-raw", file], environment: environment)
    #expect(held.status == 0, "\(held.errors)")
    let words = held.output.split { $0 == " " || $0 == "\n" }.joined(separator: " ")
    for part in [
      "alloc_objects/count alloc_space/bytes inuse_objects/count inuse_space/bytes[dflt]",
      "6 600 4 400: 1 2", "inner;x /a.c:3", "outer /a.c:8", "main /a.c:20",
    ] {
      #expect(words.contains(part), "\(part) in \(held.output)")
    }
  }
}
