// main.swift: sessions of a server in a zone.
//
// A session owns what must be ended exactly once: here a place in a table, as it might
// be a descriptor. It is a noncopyable struct with a deinit. Its memory comes from a
// zone with a limit: when too many clients come, the next one waits or is refused.

import Foundation
import KegZones

/// The table of places, as the kernel has one of descriptors.
final class Table: @unchecked Sendable {
  private let lock = NSLock()
  private var isTaken: [Bool]
  private(set) var opened = 0

  init(_ size: Int) { isTaken = Array(repeating: false, count: size) }

  func open() throws(SessionError) -> Int {
    lock.lock()
    defer { lock.unlock() }
    guard let place = isTaken.firstIndex(of: false) else { throw SessionError.tableIsFull }
    isTaken[place] = true
    opened += 1
    return place
  }

  func close(_ place: Int) {
    lock.lock()
    defer { lock.unlock() }
    if !isTaken[place] { print("closed twice: \(place)") }
    isTaken[place] = false
  }

  var taken: Int { lock.withLock { isTaken.count { $0 } } }
}

enum SessionError: Error { case tableIsFull }

struct Session: ~Copyable {
  let place: Int
  let table: Table
  var received = 0

  init(_ table: Table) throws(SessionError) {
    place = try table.open()
    self.table = table
  }

  mutating func receive(_ bytes: Int) { received += bytes }

  consuming func end() {}

  deinit { table.close(place) }
}

func serve(_ zone: Zone<Session>, _ table: Table, clients: Int) -> Int {
  var total = 0
  for client in 0..<clients {
    do throws(AllocationError<SessionError>) {
      // Waits while the zone is at its limit, until another thread's session ends.
      var session = try zone.allocate(.forever) { () throws(SessionError) in try Session(table) }
      session.update { $0.receive(client % 1000) }
      total += session.borrow { $0.received }
    } catch {
      switch error {
      case .zone(let why): print("no memory for a session: \(why)")
      case .element(let why): print("no session: \(why)")
      }
    }
  }
  return total
}

let clients = CommandLine.arguments.count > 1 ? Int(CommandLine.arguments[1]) ?? 0 : 100_000
let table = Table(4)
let zone = try Zone<Session>("sessions", limit: 3)

do {
  let first = try zone.allocate(Session(table))
  let second = try zone.allocate(Session(table))
  let third = try zone.allocate(Session(table))
  print("three sessions: \(table.taken) places taken, \(zone.count) in the zone")
  // The zone is at its limit: the fourth session ends where it was to be moved in.
  do {
    _ = try zone.allocate(Session(table))
  } catch {
    print("the fourth is refused: \(error), \(table.taken) places taken")
  }
  // The zone has room, but the table has none: the memory goes back.
  third.take().end()
  let others = [try table.open(), try table.open()]
  do {
    _ = try zone.allocate { () throws(SessionError) in try Session(table) }
  } catch {
    print("the table is full: \(error), \(zone.count) in the zone")
  }
  for place in others { table.close(place) }
  print("places \(first.borrow { $0.place }) and \(second.borrow { $0.place }) are left")
}
print("they have ended: \(table.taken) places taken, \(zone.count) in the zone")
let opened = table.opened

let threads = (0..<4).map { _ in
  let thread = Thread { _ = serve(zone, table, clients: clients / 4) }
  thread.stackSize = 1 << 20
  return thread
}
for thread in threads { thread.start() }
while threads.contains(where: { !$0.isFinished }) { usleep(1000) }
print("\(table.opened - opened) sessions served, \(table.taken) places taken, \(zone.count) in the zone")
