// Support.swift: zones of kegmalloc.h in the test process itself, so that the thread
// sanitizer sees the allocator's own code.
//
//   PreloadTests    a C program and the library as it ships     what is promised holds
//   here            the same sources, hosted, INVARIANTS on     ranks of locks, data races
//
// The process has one allocator, which boots with the first zone; its malloc stays the
// C library's.

import Base
import Glibc
import Platform
import TestSupport
import Testing

@testable import Malloc
@testable import ZoneAPI

/// The layer Debug is linked into the same program, for its own tests, and has connected
/// itself: zones would be checked, and no call would take the fast way.
private let withoutChecks: Void = {
  _ = keg_reclaim(1)  // boots
  zoneChecks.pointee = ZoneChecks()
}()

/// Has the calling thread's cache go in the first round of destructors, not in a later one:
/// then the sanitizer knows nothing of the thread any more.
private func leaveEarly() {
  let bins = keg_get_thread_bins()
  if keg_bins_are_shared(bins) { return }
  (bins &- ThreadCache.headerBytes).pointer(to: ThreadCache.self).pointee.exitRounds =
    ThreadCache.lastExitRound - 1
}

/// Runs `body` with 0 ..< `count` on a thread each, and waits for all.
func inThreads(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) {
  leaveEarly()
  Parallel.run(count) { index in
    body(index)
    leaveEarly()
  }
}

/// A zone that threads share.
struct TestZone: @unchecked Sendable {
  let pointer: UnsafeMutableRawPointer

  /// - Parameter change: sets attributes.
  init(_ name: String, size: UInt, _ change: (inout ZoneAttributes) -> Void = { _ in }) {
    _ = withoutChecks
    var attributes = ZoneAttributes()
    change(&attributes)
    let made = withUnsafePointer(to: &attributes) { keg_zone_create_attr(name, size, $0) }
    guard let made else { die("test: no zone") }
    pointer = made
    leaveEarly()
  }

  var handle: HandlePointer { UInt(bitPattern: pointer).pointer(to: Handle.self) }

  /// An item; waits at the limit.
  func take() -> UInt { UInt(bitPattern: keg_zone_alloc(pointer, AllocFlags.waitOK)) }
  /// An item, or 0.
  func tryToTake() -> UInt { UInt(bitPattern: keg_zone_alloc(pointer, AllocFlags.noWait)) }
  func give(_ item: UInt) { keg_zone_free(pointer, UnsafeMutableRawPointer(bitPattern: item)) }

  var figures: ZoneFigures { handle.figures() }

  /// Ends the zone, which must be empty.
  func end(sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(figures.used == 0, sourceLocation: sourceLocation)
    #expect(keg_zone_destroy(pointer, 0) == 0, sourceLocation: sourceLocation)
  }
}

/// Takes `count` items, marks them as one thread's, looks, and gives them back: who got an
/// item that somebody else has would see the other's mark, and the sanitizer both writes.
func useItems(of zone: TestZone, _ count: Int, mark: UInt) {
  var items: [UInt] = []
  for _ in 0..<count {
    let item = zone.take()
    if item == 0 { die("test: no item") }
    item.word = mark
    items.append(item)
  }
  for item in items {
    if item.word != mark { die("test: an item was given twice") }
    zone.give(item)
  }
}
