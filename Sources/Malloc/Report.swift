// Report.swift: what malloc_stats, malloc_info, mallinfo2 and the table at exit say.

import Base
import Keg
import Pages
import Platform
import SizeClass
import Stats
import Synchronization
import Vmem
import Zone

/// Items of class `index` in threads' arrays.
func itemsInArrays(_ index: UInt) -> UInt {
  var items = 0
  process.pointee.threadListLock.lock()
  process.pointee.threads.forEach { items &+= max($0.bin(index).cachedCount, 0) }
  process.pointee.threadListLock.unlock()
  return UInt(bitPattern: items)
}

/// How the rows of zones are written.
private enum RowFormat: UInt8 {
  case none
  case table
  case xml
}

/// Counts all that the process has, and writes a row for every zone in use.
@inline(never)
private func snapshot(_ format: RowFormat, to text: inout Text) -> Totals {
  var totals = Totals()
  guard let heap = process.pointee.heap else { return totals }
  totals.threads = UInt(bitPattern: process.pointee.threads.count)
  var index: UInt = 1
  while index <= SizeClass.count {
    if let zone = process.pointee.existingZone(index) {
      add(zone, itemsInArrays(index), to: &totals, format, &text)
    }
    index &+= 1
  }
  forEachProgramZone { add($0, $1, to: &totals, format, &text) }
  add(heap.pointee.arena.sizes, to: &totals)
  add(heap.pointee.outsideArena.sizes, to: &totals)
  let recent = heap.recentBytes
  totals.dirty &+= recent
  let headroom = heap.headroomBytes
  totals.clean &+= headroom
  totals.usedLarge &-= min(totals.slabs &+ recent &+ headroom, totals.usedLarge)
  totals.metadata = heap.pointee.metadata.pointee.usedBytes
  totals.purged = heap.pointee.purgedBytes
  totals.purgeCount = heap.pointee.purgeCount
  return totals
}

/// Calls `body` with every zone of the program and its items in arrays.
private func forEachProgramZone(_ body: (UnsafeMutablePointer<Zone>, UInt) -> Void) {
  let above = layerAbove
  var figures: (UInt, UInt) = (0, 0)
  var number: UInt = 1
  let top = above.pointee.zoneTop?() ?? 0
  while number < top {
    let pin = withUnsafeMutablePointer(to: &figures.0) { above.pointee.pinZone?(number, $0) ?? 0 }
    if pin != 0 {
      body(figures.0.pointer(to: Zone.self), figures.1)
      above.pointee.unpinZone?(pin)
    }
    number &+= 1
  }
}

/// Counts a zone, and writes its row.
@inline(never)
private func add(
  _ zone: UnsafeMutablePointer<Zone>, _ inArrays: UInt, to totals: inout Totals,
  _ format: RowFormat, _ text: inout Text
) {
  let row = ZoneRow(zone, inArrays: inArrays)
  // The keg of a secondary zone is in its primary's row.
  if !zone.pointee.flags.contains(.secondary) { totals.add(row) }
  switch format {
  case .none: break
  case .table: write(row, to: &text)
  case .xml: writeXML(row, to: &text)
  }
}

/// Counts an arena; what is in use includes the slabs.
private func add(_ sizes: ArenaSizes, to totals: inout Totals) {
  totals.heap &+= sizes.total
  totals.dirty &+= sizes.dirty
  totals.clean &+= sizes.free &- sizes.dirty
  totals.usedLarge &+= sizes.inUse
}

/// Prints the zone table.
@c func keg_print_statistics(_ descriptor: Int32) {
  guard boot() else { return }
  var text = Text(to: descriptor)
  writeHeading(to: &text)
  let totals = snapshot(.table, to: &text)
  writePools(&text)
  write(totals, to: &text)
  text.flush()
}

/// The allocator's own zones, which have no arrays (U01).
@inline(never)
private func writePools(_ text: inout Text) {
  guard let heap = process.pointee.heap else { return }
  @inline(never)
  func row(_ pool: UnsafeMutablePointer<Pool>, _ text: inout Text) {
    writePool(
      pool.pointee.name, itemBytes: pool.pointee.itemBytes, used: pool.pointee.usedCount,
      free: pool.pointee.freeCount, to: &text)
  }
  row(heap.pointee.tags, &text)
  var i = 0
  while i < Heap.slabHeaderPoolCount {
    if (heap.pointee.slabHeaders + i).pointee.usedCount > 0 {
      row(heap.pointee.slabHeaders + i, &text)
    }
    i &+= 1
  }
  i = 0
  while i < BucketSize.count {
    if let pool = process.pointee.bucketPools?.pointee.pool(at: i), pool.pointee.usedCount > 0 {
      row(pool, &text)
    }
    i &+= 1
  }
  if let threads = process.pointee.threadCaches { row(threads, &text) }
  if let zones = process.pointee.classZones { row(zones, &text) }
}

/// malloc_info(3).
@c func keg_write_malloc_info(
  _ write: @convention(c) (UnsafeMutableRawPointer?, UnsafePointer<CChar>?, Int) -> Void,
  _ context: UnsafeMutableRawPointer?
) {
  var text = Text(to: write, context: context)
  writeXMLHeading(to: &text)
  let totals = snapshot(.xml, to: &text)
  writeXML(totals, to: &text)
  text.flush()
}

/// mallinfo2(3): arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks,
/// fordblks, keepcost. Large blocks count as uordblks, not as mapped ones.
@c func keg_read_mallinfo(_ figures: UnsafeMutablePointer<UInt>) {
  var text = Text(to: -1)
  let totals = snapshot(.none, to: &text)
  figures[0] = totals.heap
  figures[1] = totals.freeItems
  figures[7] = totals.used
  figures[8] = totals.heap &- totals.used
  figures[9] = totals.dirty
}

/// Prints the zone table if the options ask for it at exit.
@c func keg_report_at_exit() {
  if isRunning, process.pointee.options[.statistics] == StatisticsMode.exit {
    keg_print_statistics(process.pointee.reportDescriptor)
  }
}

/// keg_stats_print of kegmalloc.h.
@c public func keg_stats_print(_ descriptor: Int32) { keg_print_statistics(descriptor) }

/// keg_reclaim of kegmalloc.h: 0 or EINVAL.
@c public func keg_reclaim(_ level: Int32) -> Int32 {
  guard level >= 1, level <= 3 else { return 22 /* EINVAL */ }
  if isRunning, layerAbove.pointee.state.load(ordering: .acquiring) != 0 {
    layerAbove.pointee.reclaim?(level)
  }
  if level == 3 {
    _ = keg_trim(0)
    return 0
  }
  let entry = enter()
  defer { leave(entry) }
  if case .emergency = entry { return 0 }
  guard let heap = process.pointee.heap else { return 0 }
  process.pointee.forEachZone { $0.reclaim(level == 1 ? .trim : .drain) }
  _ = heap.purge(notAfter: .max)
  return 0
}
