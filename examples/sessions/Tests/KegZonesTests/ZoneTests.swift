// ZoneTests.swift: KegZones as a program uses it, linked with the library.

import Foundation
import KegZones
import Testing

/// Counts what is made and what ends.
private final class Ledger: @unchecked Sendable {
  private let lock = NSLock()
  private var count = 0
  var alive: Int { lock.withLock { count } }
  func begin() { lock.withLock { count += 1 } }
  func end() { lock.withLock { count -= 1 } }
}

private struct Failure: Error, Equatable { let code: Int }

private struct Resource: ~Copyable, Sendable {
  let ledger: Ledger
  var value: Int
  init(_ ledger: Ledger, _ value: Int = 0) {
    self.ledger = ledger
    self.value = value
    ledger.begin()
  }
  init(_ ledger: Ledger, failing code: Int) throws(Failure) {
    self.ledger = ledger
    value = 0
    ledger.begin()
    throw Failure(code: code)
  }
  deinit { ledger.end() }
}

@Suite("Zones for Swift")
struct ZoneTests {
  private let ledger = Ledger()

  @Test("an element ends with its item, once, and not before")
  func lifetime() throws {
    let zone = try Zone<Resource>("lifetime")
    do {
      var item = try zone.allocate(Resource(ledger, 7))
      #expect(ledger.alive == 1 && zone.count == 1)
      #expect(item.borrow { $0.value } == 7)
      item.update { $0.value += 1 }
      #expect(item.borrow { $0.value } == 8)
    }
    #expect(ledger.alive == 0 && zone.count == 0)
  }

  @Test("an element that is taken out of its item lives on")
  func take() throws {
    let zone = try Zone<Resource>("take")
    let resource = try zone.allocate(Resource(ledger, 3)).take()
    #expect(ledger.alive == 1 && zone.count == 0 && resource.value == 3)
    _ = consume resource
    #expect(ledger.alive == 0)
  }

  @Test("what making throws arrives, and the item goes back")
  func failingInit() throws {
    let zone = try Zone<Resource>("failing")
    for code in 1...1000 {
      do {
        _ = try zone.allocate { () throws(Failure) in try Resource(ledger, failing: code) }
        Issue.record("nothing was thrown")
      } catch {
        guard case .element(let failure) = error else {
          Issue.record("\(error)")
          return
        }
        #expect(failure == Failure(code: code))
      }
    }
    #expect(zone.count == 0)
    let item = try zone.allocate { () throws(Failure) in Resource(ledger, 5) }
    #expect(item.borrow { $0.value } == 5 && zone.count == 1)
  }

  @Test("the limit refuses, times out, waits, and can be raised")
  func limit() async throws {
    let zone = try Zone<Resource>("limited", limit: 2)
    #expect(zone.limit == 2)
    let first = try zone.allocate(Resource(ledger))
    let second = try zone.allocate(Resource(ledger))
    #expect(throws: ZoneError.limitReached) { _ = try zone.allocate(Resource(ledger)) }
    #expect(throws: ZoneError.timedOut) {
      _ = try zone.allocate(Resource(ledger), .milliseconds(20))
    }
    #expect(ledger.alive == 2, "what was refused has ended")
    let shared = ledger
    let thread = Thread {
      // Not before the first item ends.
      if let item = try? zone.allocate(Resource(shared, 9), .forever) { _ = consume item }
    }
    thread.start()
    _ = consume first
    while !thread.isFinished { usleep(1000) }
    zone.limit = 3
    let third = try zone.allocate(Resource(ledger))
    let fourth = try zone.allocate(Resource(ledger))
    #expect(zone.count == 3)
    zone.limit = nil
    #expect(zone.limit == nil)
    _ = consume second
    _ = consume third
    _ = consume fourth
    #expect(ledger.alive == 0)
  }

  @Test("a zone lives as long as its items, and copies name the same one")
  func lastItem() throws {
    func makeItem() throws -> Item<Resource> {
      let zone = try Zone<Resource>("gone")
      let copy = zone
      #expect(copy.name == zone.name)
      return try copy.allocate(Resource(ledger, 11))
    }
    let item = try makeItem()
    #expect(item.borrow { $0.value } == 11)
    // The name is taken as long as the item is there.
    #expect(try Zone<Resource>("gone").name != "gone")
    _ = consume item
    #expect(ledger.alive == 0)
    #expect(try Zone<Resource>("gone").name == "gone")
  }

  @Test("alignment is the element's, and so is its size")
  func alignment() throws {
    let zone = try Zone<SIMD8<Double>>("aligned")
    for index in 0..<100 {
      var item = try zone.allocate(SIMD8(repeating: Double(index)))
      let address = item.update { element in
        withUnsafePointer(to: &element) { UInt(bitPattern: $0) }
      }
      #expect(address % 64 == 0 && item.borrow { $0[7] } == Double(index))
    }
    let empty = try Zone<Void>("empty")
    let nothing = try empty.allocate(())
    #expect(empty.count == 1)
    _ = consume nothing
  }

  @Test("arguments that make no sense")
  func invalid() {
    #expect(throws: ZoneError.invalidArgument) { _ = try Zone<Int>("x", limit: 0) }
    #expect(throws: ZoneError.invalidArgument) { _ = try Zone<Huge>("huge") }
  }

  @Test("items freed by other threads, and options")
  func threads() throws {
    let zone = try Zone<Resource>("threads", options: [.keepsMemory, .isNotDumped])
    let shared = ledger
    let threads = (0..<4).map { seed in
      Thread {
        var held: [Holder] = []
        for index in 0..<20_000 {
          if let item = try? zone.allocate(Resource(shared, index)) { held.append(Holder(item)) }
          if held.count > 50 { held.removeFirst(25 + seed) }
        }
      }
    }
    for thread in threads { thread.start() }
    while threads.contains(where: { !$0.isFinished }) { usleep(1000) }
    #expect(ledger.alive == 0 && zone.count == 0)
    zone.reclaim(.drainThreads)
    try zone.prefill(8)
  }
}

private struct Huge { var bytes: InlineArray<2_000_000, UInt8> }

private final class Holder {
  let item: Item<Resource>
  init(_ item: consuming Item<Resource>) { self.item = item }
}
