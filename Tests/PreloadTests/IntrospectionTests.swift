// IntrospectionTests.swift: mallinfo and its relatives, and memory that goes back.

import Foundation
import FoundationXML
import Testing

@Suite("Introspection", .libraryPresent, .ours)
struct IntrospectionTests {
  @Test("mallinfo2 counts what was allocated and freed")
  func figures() throws { try expectOK("introspection", ["figures"]) }

  @Test("malloc_trim returns 64 MiB to the kernel and says so")
  func trim() throws { try expectOK("introspection", ["trim"]) }

  @Test("malloc_info writes well-formed XML with glibc's root element")
  func xml() throws {
    let outcome = try run([try Fixture.build("introspection"), "info"])
    outcome.expect(outcome.succeeded)
    let parser = XMLParser(data: Data(outcome.stdout.utf8))
    let root = RootElement()
    parser.delegate = root
    #expect(parser.parse(), "\(String(describing: parser.parserError)) in \(outcome.stdout.prefix(500))")
    #expect(root.name == "malloc")
  }

  @Test("malloc_stats writes to standard error")
  func stats() throws {
    let outcome = try run([try Fixture.build("introspection"), "stats"])
    outcome.expect(outcome.succeeded && outcome.stdout == "ok\n")
    #expect(!outcome.stderr.isEmpty)
  }

  private final class RootElement: NSObject, XMLParserDelegate {
    var name: String?
    func parser(
      _ parser: XMLParser, didStartElement name: String, namespaceURI: String?,
      qualifiedName: String?, attributes: [String: String]
    ) {
      if self.name == nil { self.name = name }
    }
  }
}

@Suite("Memory goes back", .libraryPresent, .ours)
struct MemoryTests {
  @Test(
    "of 256 MiB freed at most a fifth stays for three seconds",
    arguments: ["small", "medium", "large", "thread"])
  func returns(kind: String) throws {
    try expectOK("memory_returns", [kind], environment: ["KEGMALLOC_CONF": "decay_ms:200"])
  }

  @Test("also while no thread calls the allocator, and in a forked child", arguments: ["idle", "idle-child"])
  func idle(kind: String) throws {
    try expectOK("memory_returns", [kind], environment: ["KEGMALLOC_CONF": "decay_ms:200"])
  }
}
