// Live.swift: walks over the items, for the leak check and for validation.

import Base
import DebugPlatform
import Keg
import Malloc
import Pages
import Vmem

/// An item that the program has and has not freed.
struct LiveItem {
  let record: RecordPointer
  /// What the program got.
  let address: UInt
  let size: UInt
  let stack: StackID
  let thread: UInt32
  /// Milliseconds since start.
  let time: UInt32
  /// How many leak marks had been set when it was allocated.
  let epoch: UInt32

  init(_ item: Item) {
    record = item.record
    address = item.user
    size = item.record.size
    stack = item.record.pointee.allocationStack
    thread = item.record.allocationThread
    time = item.record.pointee.allocationTime
    epoch = item.record.epoch
  }

  var isMarked: Bool {
    get { record.isMarked }
    nonmutating set { record.isMarked = newValue }
  }
}

/// Calls `body` with every item that has a record. Takes no lock: called while the other
/// threads are outside the allocator, or stopped, so that no slab goes meanwhile.
func forEachItem(_ body: (Item) -> Void) {
  guard Core.isUp else { return }
  let heap = Core.heap
  let map = heap.pointee.pageMap
  walk(map, from: heap.pointee.reservation.heapStart, to: heap.pointee.reservation.heapTop, body)
  heap.pointee.outside.forEach { region in
    walk(PageMap(tables: region.tables), from: region.start, to: region.end, body)
  }
  if keg_debug_is_running() { debug.pointee.guardArena.forEach(body) }
}

/// Calls `body` with the items of the chunks in [start, end).
private func walk(_ map: PageMap, from start: UInt, to end: UInt, _ body: (Item) -> Void) {
  var chunk = start
  while chunk < end {
    var next = chunk &+ Chunk.size
    switch map.owner(at: map.index(of: chunk)) {
    case .slab(let slab):
      let layout = slab.pointee.keg.pointee.layout
      if slab.start == chunk {
        next = chunk &+ layout.byteCount
        if slab.pointee.records != 0 { walk(slab, layout, body) }
      }
    case .span(let span):
      if span.pointee.start == chunk {
        next = chunk &+ span.pointee.size
        if let item = largeItem(span) { body(item) }
      }
    default: break
    }
    chunk = next
  }
}

private func walk(
  _ slab: UnsafeMutablePointer<Slab>, _ layout: SlabLayout, _ body: (Item) -> Void
) {
  var i: UInt = 0
  while i < layout.itemCount {
    let record = slab.record(i)
    if record.state != .untouched, record.state != .preparing {
      body(
        Item(
          record: record, slot: slab.pointee.base &+ i &* layout.stride, capacity: layout.stride,
          slab: slab))
    }
    i &+= 1
  }
}

/// Calls `body` with every slab that has records.
func forEachSlab(_ body: (UnsafeMutablePointer<Slab>) -> Void) {
  let heap = Core.heap
  let map = heap.pointee.pageMap
  var chunk = heap.pointee.reservation.heapStart
  while chunk < heap.pointee.reservation.heapTop {
    if case .slab(let slab) = map.owner(at: map.index(of: chunk)), slab.start == chunk {
      if slab.pointee.records != 0 { body(slab) }
      chunk &+= slab.pointee.keg.pointee.layout.byteCount
    } else {
      chunk &+= Chunk.size
    }
  }
}

func forEachLiveItem(_ body: (LiveItem) -> Void) {
  forEachItem { if $0.record.state == .live { body(LiveItem($0)) } }
}

/// The live item that `address` points at or into; one past its end counts as well.
func liveItem(containing address: UInt) -> LiveItem? {
  guard case .item(let item) = place(of: address), item.record.state == .live,
    address >= item.user, address <= item.userEnd
  else { return nil }
  return LiveItem(item)
}
