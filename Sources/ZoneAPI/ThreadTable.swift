// ThreadTable.swift: a thread's bins for the zones of the program.
//
//   thread's array: … | word −1 | bin 0 | …          TLS points at bin 0
//                          │
//                          ▼
//   table, 64 KiB   | bin 0: empty | zone 1's bin | zone 2's bin | …
//
// A table has a bin for every number a zone can have, so the fast path does not ask how
// large it is; pages that hold no used bin are never touched. A thread gets its table
// when it first uses a zone, and shares an empty one until then.
//
// - Invariant: a bin without a bucket is all zero, and so is a table in the pool but for
//   its first word.
// Lock: as the thread's own bins: the owner only, in its slow paths under the lock of its
// cache; or who holds that lock, when the owner is known to be elsewhere.

import Base
import Keg
import Malloc
import Pages
import Platform
import Zone

/// The bin at `offset` of a table.
@inline(__always)
func tableBin(_ table: UInt, _ offset: UInt) -> UnsafeMutablePointer<Bin> {
  (table &+ offset).pointer(to: Bin.self)
}

/// The calling thread's table, made if need be; 0: it can have none. In a section.
func ownTable() -> UInt {
  let word = sectionTableWord
  if word == 0 { return 0 }
  if word.word != keg_empty_zone_table() { return word.word }
  guard let pool = zoneTable.pointee.tables else { return 0 }
  let table = pool.take()
  if table == 0 { return 0 }
  table.word = 0
  word.word = table
  return table
}

/// The calling thread's table if it has one, or 0. In a section.
func existingTable() -> UInt {
  let word = sectionTableWord
  return word == 0 || word.word == keg_empty_zone_table() ? 0 : word.word
}

private func forEachUsedBin(
  _ table: UInt, _ body: (UnsafeMutablePointer<Bin>, HandlePointer) -> Void
) {
  if table == 0 || table == keg_empty_zone_table() { return }
  guard let zones = registry?.zones else { return }
  var number: UInt = 1
  while number < zones.top {
    let bin = tableBin(table, number &<< Bin.strideShift)
    // Whoever destroys the zone takes this lock too: the zone of a used bin exists.
    if !bin.isUnused, let handle = zones.handle(number) { body(bin, handle) }
    number &+= 1
  }
}

func flushTable(_ table: UInt) {
  forEachUsedBin(table) { bin, handle in bin.flush(to: handle.pointee.zone) }
}

func releaseTable(_ table: UInt) {
  if table == 0 || table == keg_empty_zone_table() { return }
  registry?.zones.pointee.tables?.give(table)
}

func adoptTable(_ table: UInt) {
  forEachUsedBin(table) { bin, handle in bin.adoptOrphan(handle.pointee.zone) }
  releaseTable(table)
}

extension UnsafeMutablePointer where Pointee == Handle {
  /// Calls `body` with every thread's bin of this zone, each thread's cache locked.
  ///
  /// Called outside sections, with no lock held; no other thread uses the zone.
  func forEachThreadBin(_ body: (UnsafeMutablePointer<Bin>) -> Void) {
    if pointee.offset == 0 { return }
    let offset = pointee.offset
    forEachThreadTable { table in
      if table != 0, table != keg_empty_zone_table() { body(tableBin(table, offset)) }
    }
  }
}
