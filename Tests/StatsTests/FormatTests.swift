import Base
import Foundation
import FoundationXML
import Keg
import Stats
import Testing
import TestSupport
import Zone

/// A zone with 40 items in use; `name` is what its row is called.
private func withRow(_ name: StaticString = "malloc-512", _ body: (ZoneRow) -> Void) {
  Rig.use { rig in
    let zone = rig.zone(name, size: 512, keg: rig.keg(size: 512))
    let bin = rig.bin()
    let items = (0..<100).map { _ in bin.allocate(zone) }
    for item in items.prefix(60) { bin.free(item, zone) }
    body(ZoneRow(zone, inArrays: UInt(bin.cachedCount)))
  }
}

private func sampleTotals() -> Totals {
  var totals = Totals()
  totals.usedSmall = 1
  totals.cachedSmall = 20
  totals.freeInSlabs = 300
  totals.usedLarge = 4000
  totals.dirty = 50_000
  totals.clean = 600_000
  totals.heap = 654_321
  totals.metadata = 7
  totals.purged = 8
  totals.threads = 9
  return totals
}

@Suite struct TableTests {
  @Test("U43: the columns of vmstat -z, each number below the end of its heading")
  func columns() {
    withRow { row in
      let lines = written { text in
        writeHeading(to: &text)
        write(row, to: &text)
      }.split(separator: "\n")
      #expect(lines.count == 2)
      let heading = lines[0].split(separator: " ").map(String.init)
      #expect(
        heading == [
          "ITEM", "SIZE", "LIMIT", "USED", "FREE", "REQ", "FAIL", "SLEEP", "XDOMAIN", "SLABS",
          "BUCKET",
        ])
      let fields = lines[1].split(separator: " ").map(String.init)
      #expect(
        fields == [
          "malloc-512:", "512", "0", "40", "\(row.free)", "\(row.requests)", "0", "0",
          "\(row.exchanged)", "\(row.slabCount)", "\(row.bucketEntries)",
        ])
      #expect(columnEnds(lines[0]).dropFirst() == columnEnds(lines[1]).dropFirst())
    }
  }

  /// Where the words of a line end.
  private func columnEnds(_ line: Substring) -> [Int] {
    let bytes = Array(line.utf8) + [32]
    return bytes.indices.dropFirst().filter { bytes[$0] == 32 && bytes[$0 - 1] != 32 }
  }

  @Test("a name that is too long moves the columns and is not cut")
  func longName() {
    withRow("a-zone-with-a-very-long-name") { row in
      let line = written { write(row, to: &$0) }
      #expect(line.hasPrefix("a-zone-with-a-very-long-name:"))
      #expect(line.split(separator: " ").count == 11)
    }
  }

  @Test("a pool has the first columns of the table")
  func pools() {
    let line = written { writePool("buckets", itemBytes: 256, used: 3, free: 4, to: &$0) }
    #expect(line.split(whereSeparator: \.isWhitespace) == ["buckets:", "256", "0", "3", "4"])
  }

  @Test("the totals with + add up to the one with =")
  func totals() {
    let lines = written { write(sampleTotals(), to: &$0) }.split(separator: "\n")
    #expect(lines.count == 10)
    var sum = 0
    for (index, line) in lines.enumerated() {
      let sign = line.first!
      let value = Int(line.dropFirst().split(separator: " ")[0])!
      if index == 0 || sign == "+" { sum += value }
      if sign == "=" { #expect(value == sum) }
    }
    #expect(lines.filter { $0.hasPrefix("=") }.count == 1)
    #expect(sum == 654_321)
  }
}

@Suite struct XMLTests {
  /// The elements of a document with their attributes, or nil when it is malformed.
  private final class Reader: NSObject, XMLParserDelegate {
    var elements: [(name: String, attributes: [String: String])] = []
    func parser(
      _ parser: XMLParser, didStartElement elementName: String, namespaceURI: String?,
      qualifiedName: String?, attributes: [String: String] = [:]
    ) {
      elements.append((elementName, attributes))
    }
    static func read(_ text: String) -> [(name: String, attributes: [String: String])]? {
      let reader = Reader()
      let parser = XMLParser(data: Data(text.utf8))
      parser.delegate = reader
      return parser.parse() ? reader.elements : nil
    }
  }

  @Test("malloc_info is well-formed XML and says what the row says")
  func document() throws {
    var document = ""
    var expected: [String: String] = [:]
    withRow { row in
      expected = [
        "name": "malloc-512", "size": "512", "used": "40",
        "cached": "\(row.inArrays + row.inDepot)", "free": "\(row.freeInSlabs)",
        "slabs": "\(row.slabCount)", "requests": "\(row.requests)", "failures": "0",
      ]
      document = written { text in
        writeXMLHeading(to: &text)
        for _ in 0..<20 { writeXML(row, to: &text) }
        writeXML(sampleTotals(), to: &text)
      }
    }
    let elements = try #require(Reader.read(document))
    #expect(elements.first?.name == "malloc")
    #expect(elements.first?.attributes["version"] == "kegmalloc-1")
    let zones = elements.filter { $0.name == "zone" }
    #expect(zones.count == 20 && zones.allSatisfy { $0.attributes == expected })
    let totals = elements.filter { $0.name == "total" }
    let sizes = Dictionary(
      uniqueKeysWithValues: totals.map { ($0.attributes["type"]!, $0.attributes["size"]!) })
    #expect(
      sizes == [
        "heap": "654321", "used-small": "1", "cached": "20", "free-in-slabs": "300",
        "used-large": "4000", "dirty": "50000", "clean": "600000", "metadata": "7",
      ])
  }

  @Test("a name with characters that XML reserves is escaped")
  func escaping() throws {
    var document = ""
    withRow("a<b>&\"c\"") { row in
      document = written { text in
        writeXMLHeading(to: &text)
        writeXML(row, to: &text)
        writeXML(Totals(), to: &text)
      }
    }
    let elements = try #require(Reader.read(document))
    #expect(elements.first { $0.name == "zone" }?.attributes["name"] == "a<b>&\"c\"")
  }
}
