// LeakWorld.swift: the process as the leak check finds it: its live items, the memory
// that is ours, and its mappings.

import Base
import DebugPlatform
import Keg
import Leaks
import Malloc
import Pages
import Platform
import Vmem

/// Puts every item with a record that the program has into `items`.
func collectItems(
  _ items: inout LeakItems, _ scratch: inout LeakScratch, _ blocks: inout LeakBlocks
) -> Bool {
  forEachItem {
    let state = $0.record.state
    if state == .live || state == .busy {
      items.announce($0.user, $0.record.size, blocks: &blocks)
    }
  }
  guard items.makeRoom(scratch: &scratch) else { return false }
  forEachItem {
    // A stopped thread is about to free it, or to move it: not lost.
    let state = $0.record.state
    if state == .live {
      items.place($0.user, $0.record.size, isOfAbsentThread($0.record) ? .reachable : .lost)
    }
    if state == .busy { items.place($0.user, $0.record.size, .reachable) }
  }
  return true
}

/// Calls `body` with memory that the core has handed out and this layer keeps no record
/// of. It may hold items. Not certain: who uses it now.
func forEachUncheckedRange(_ body: (_ start: UInt, _ end: UInt, _ isCertain: Bool) -> Void) {
  let heap = Core.heap
  let map = heap.pointee.pageMap
  unchecked(map, heap.pointee.reservation.heapStart, heap.pointee.reservation.heapTop, body)
  heap.pointee.outside.forEach { region in
    unchecked(PageMap(tables: region.tables), region.start, region.end, body)
  }
}

private func unchecked(
  _ map: PageMap, _ start: UInt, _ end: UInt, _ body: (UInt, UInt, Bool) -> Void
) {
  var chunk = start
  while chunk < end {
    var next = chunk &+ Chunk.size
    switch map.owner(at: map.index(of: chunk)) {
    case .slab(let slab):
      if slab.start == chunk {
        next = chunk &+ slab.pointee.keg.pointee.layout.byteCount
        unchecked(slab, body)
      }
    case .span(let span):
      if span.pointee.start == chunk {
        next = chunk &+ span.pointee.size
        if span.pointee.payload & recordBit == 0 {
          body(chunk, chunk &+ span.pointee.payload, true)
        }
      }
    case .emergency: body(chunk, next, false)
    case .freed, .nobody: break
    }
    chunk = next
  }
}

/// Slots of a slab that the core has handed out, or that lie in an array, without a
/// record that says whose they are.
private func unchecked(_ slab: UnsafeMutablePointer<Slab>, _ body: (UInt, UInt, Bool) -> Void) {
  let layout = slab.pointee.keg.pointee.layout
  let hasRecords = slab.pointee.records != 0
  // Every allocation is checked: what has no record was never handed out.
  if hasRecords, debug.pointee.sampleEvery <= 1 { return }
  var i: UInt = 0
  while i < layout.itemCount {
    let state: ItemState = hasRecords ? slab.record(i).state : .untouched
    if state == .untouched || state == .free, !slab.isFree(i) {
      let start = slab.pointee.base &+ i &* layout.stride
      body(start, start &+ layout.stride, true)
    }
    i &+= 1
  }
}

/// What is ours, or the check's, and not scanned as part of any mapping.
func addOwnMemory(
  _ cuts: inout LeakPieces, _ tableBytes: UInt, _ table: UInt, _ scratch: LeakScratch,
  _ blocks: LeakBlocks
) {
  let heap = Core.heap
  withUnsafeMutablePointer(to: &cuts) { cuts in
    cuts.pointee.append(heap.pointee.reservation.start, heap.pointee.reservation.end, .lost)
    heap.pointee.outside.forEach { cuts.pointee.append($0.start, $0.end, .lost) }
    debug.pointee.guardArena.forEachRange { cuts.pointee.append($0, $1, .lost) }
    scratch.forEach { cuts.pointee.append($0, $0 &+ $1, .lost) }
    blocks.forEach { cuts.pointee.append($0, $0 &+ $1, .lost) }
    heap.pointee.metadata.pointee.forEachRegion { cuts.pointee.append($0, $1, .lost) }
    cuts.pointee.append(table, table &+ tableBytes, .lost)
    cuts.pointee.append(keg_text_start(), keg_leak_own_end(), .lost)
    // Zero-initialised data has no name in the maps, and what is mapped next to it joins it.
    keg_leak_each_segment(
      { context, start, end, isWritable, name in
        if isWritable, mappingName(path: name) == .system {
          UInt(bitPattern: context).pointer(to: LeakPieces.self).pointee
            .append(start.roundedDown(to: 4096), end.roundedUp(to: 4096), .system)
        }
      }, UnsafeMutableRawPointer(cuts))
    var bytes: UInt = 0
    let helper = keg_leak_helper_memory(&bytes)
    if helper != 0 { cuts.pointee.append(helper, helper &+ bytes, .lost) }
  }
}

// MARK: - Mappings

/// Calls `body` with every mapping, in the order of addresses.
func forEachMapping(_ body: (Mapping) -> Void) {
  // Of a process whose first thread has ended the kernel tells nothing under `self`.
  let path: StaticString = "/proc/thread-self/maps"
  let file = keg_syscall6(
    257 /* openat */, -100, Int(bitPattern: path.utf8Start), 0o2000000, 0, 0, 0)
  if file < 0 { return forEachMappingWithoutProc(body) }
  var parser = MapsParser()
  var lines = 0
  var buffer = InlineArray<4096, UInt8>(repeating: 0)
  while true {
    let count = withUnsafeMutablePointer(to: &buffer) {
      keg_syscall6(0 /* read */, file, Int(bitPattern: $0), 4096, 0, 0, 0)
    }
    if count <= 0 { break }
    var i = 0
    while i < count {
      parser.take(buffer[i]) {
        lines &+= 1
        body($0)
      }
      i &+= 1
    }
  }
  _ = keg_syscall6(3 /* close */, file, 0, 0, 0, 0, 0)
  if lines == 0 { forEachMappingWithoutProc(body) }
}

/// Asks the kernel where it would not map: what is there is something. Protections are
/// not known, so all that can be read is data, but for what the loader lists as code.
private func forEachMappingWithoutProc(_ body: (Mapping) -> Void) {
  var segments = SegmentList()
  withUnsafeMutablePointer(to: &segments) {
    keg_leak_each_segment(
      { context, start, end, isWritable, name in
        UInt(bitPattern: context).pointer(to: SegmentList.self).pointee
          .add(start, end, isWritable, mappingName(path: name))
      }, UnsafeMutableRawPointer($0))
  }
  let ourStart = Core.heap.pointee.reservation.start
  let ourEnd = Core.heap.pointee.reservation.end
  var address: UInt = 1 &<< 16
  let limit: UInt = 1 &<< 47 &- 4096
  var start: UInt = 0
  var end: UInt = 0
  while true {
    // The reservation is large and known.
    if address >= ourStart, address < ourEnd { address = ourEnd }
    guard keg_leak_next_range(address, address < ourStart ? ourStart : limit, &start, &end)
    else {
      if address < ourStart {
        address = ourEnd
        continue
      }
      return
    }
    segments.split(start, end, body)
    address = end
  }
}

/// The loader's segments, at most 512 of them.
private struct SegmentList {
  private var starts: InlineArray<512, UInt> = InlineArray(repeating: 0)
  private var ends: InlineArray<512, UInt> = InlineArray(repeating: 0)
  /// The name's class, and whether it can be written in bit 7.
  private var kinds: InlineArray<512, UInt8> = InlineArray(repeating: 0)
  private var count = 0

  mutating func add(_ start: UInt, _ end: UInt, _ isWritable: Bool, _ name: MappingName) {
    guard count < 512 else { return }
    var i = count
    while i > 0, starts[i &- 1] > start {
      starts[i] = starts[i &- 1]
      ends[i] = ends[i &- 1]
      kinds[i] = kinds[i &- 1]
      i &-= 1
    }
    starts[i] = start.roundedDown(to: 4096)
    ends[i] = end.roundedUp(to: 4096)
    kinds[i] = name.rawValue | (isWritable ? 0x80 : 0)
    count &+= 1
  }

  /// Calls `body` with [start, end) in pieces: segments, and what lies between them.
  func split(_ start: UInt, _ end: UInt, _ body: (Mapping) -> Void) {
    var address = start
    var i = 0
    while i < count {
      if ends[i] > address, starts[i] < end {
        if starts[i] > address { plain(address, starts[i], body) }
        var mapping = Mapping()
        mapping.start = max(starts[i], address)
        mapping.end = min(ends[i], end)
        mapping.isReadable = true
        mapping.isWritable = kinds[i] & 0x80 != 0
        mapping.inode = 1
        mapping.name = MappingName(rawValue: kinds[i] & 0x7F).unsafelyUnwrapped  // stored above
        if mapping.start < mapping.end { body(mapping) }
        address = max(address, mapping.end)
      }
      i &+= 1
    }
    if address < end { plain(address, end, body) }
  }

  /// Memory of no module: in runs of pages that can be read, or that cannot, such as
  /// those below the stacks of threads. What is behind a GiB is taken for readable.
  private func plain(_ start: UInt, _ end: UInt, _ body: (Mapping) -> Void) {
    var address = start
    while address < end {
      var mapping = Mapping()
      mapping.start = address
      mapping.isReadable = keg_is_readable(address)
      mapping.isWritable = mapping.isReadable
      address = address &+ 4096
      while address < end, address &- mapping.start < 1 &<< 30,
        keg_is_readable(address) == mapping.isReadable
      {
        address = address &+ 4096
      }
      if address &- mapping.start >= 1 &<< 30 { address = end }
      mapping.end = address
      body(mapping)
    }
  }
}
