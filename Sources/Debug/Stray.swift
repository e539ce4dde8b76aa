// Stray.swift: writes that land far from any block.
//
//   slab   | item | item | untouched · · · |rest|        large block |······| rest |
//   heap   | slab | large block | free and clean · · · · · · · · · |
//
// What nobody has is zero: pages fresh from the kernel are, and slabs and large blocks
// made of used pages get their untouched parts cleared. Where something else stands,
// somebody wrote past a block, or before one: the nearest is named.
//
// Of long stretches only resident pages are read, so that looking makes no memory of
// address space.

import Base
import DebugPlatform
import Keg
import Malloc
import Pages
import Platform
import Vmem

/// No more than this of one stretch is looked at.
private var mostLooked: UInt { 1 &<< 30 }
/// Of shorter ones the kernel is not asked what is resident, which sandboxes forbid: its
/// page of zeros stands in for what is not.
private var leastAsked: UInt { 1 &<< 20 }

/// The first and the last byte of [start, end) that are not zero.
func damageOfZeros(_ start: UInt, _ end: UInt) -> Damage? {
  if end &- start < leastAsked { return nonzero(start, end) }
  var damage: Damage? = nil
  var at = start
  let end = min(end, start &+ mostLooked)
  while at < end {
    var runEnd: UInt = end
    at = keg_debug_resident(at, end, &runEnd)
    if at >= end { break }
    if let found = nonzero(at, runEnd) {
      damage = Damage(start: damage?.start ?? found.start, end: found.end)
    }
    at = runEnd
  }
  return damage
}

/// The same of bytes that may be read. Bounds need not be aligned.
@inline(__always)
func nonzero(_ start: UInt, _ end: UInt) -> Damage? {
  damageOfTrash(0, start, end)
}

/// Whether the parts of a slab that nobody has used were zero when it was made.
@inline(__always)
func isClean(_ slab: UnsafeMutablePointer<Slab>) -> Bool { !slab.pointee.span.pointee.isDirty }

/// Checks a slot that was never used, before it is prepared or in its stead.
/// Its last bytes may be the left zone of the slot behind it.
@inline(__always)
func checkUntouched(_ slot: UInt, _ capacity: UInt) {
  if let damage = nonzero(slot, slot &+ capacity &- leastRightZone) {
    reportStray(damage)
    writeTrash(0, slot, slot &+ capacity &- leastRightZone)
  }
  let last = slot &+ capacity &- leastRightZone
  if let damage = nonzero(last, slot &+ capacity), damageOfZone(last, slot &+ capacity) != nil {
    reportStray(damage)
  }
}

/// Where the slots of a slab end and its rest begins.
private func restOfSlab(_ slab: UnsafeMutablePointer<Slab>) -> UInt {
  let layout = slab.pointee.keg.pointee.layout
  return slab.pointee.base &+ layout.itemCount &* layout.stride
}

private func endOfSlab(_ slab: UnsafeMutablePointer<Slab>) -> UInt {
  slab.start &+ slab.pointee.keg.pointee.layout.byteCount
}

/// Clears what no slot of a slab of used pages covers.
func clearRest(_ slab: UnsafeMutablePointer<Slab>) {
  writeTrash(0, slab.start, slab.pointee.base)
  writeTrash(0, restOfSlab(slab), endOfSlab(slab))
}

/// Makes the end of a slab's margin the left zone of its first slot.
func prepareMargin(_ slab: UnsafeMutablePointer<Slab>, _ isClean: Bool) {
  if slab.start == slab.pointee.base { return }
  let zone = slab.pointee.base &- leastRightZone
  if isClean, let damage = nonzero(zone, slab.pointee.base) { reportStray(damage) }
  writeZone(zone, slab.pointee.base)
}

/// Checks the slots of a slab that nobody has used, and its rest.
func checkUntouched(_ slab: UnsafeMutablePointer<Slab>) {
  let layout = slab.pointee.keg.pointee.layout
  if layout.margin > leastRightZone { checkEmpty(slab.start, slab.pointee.base &- leastRightZone) }
  // Slots are used from the lowest on: behind the last one used there may be many pages.
  var used = layout.itemCount
  while used > 0, slab.record(used &- 1).state == .untouched { used &-= 1 }
  var i: UInt = 0
  while i < used {
    if slab.record(i).state == .untouched {
      checkUntouched(slab.pointee.base &+ i &* layout.stride, layout.stride)
    }
    i &+= 1
  }
  checkEmpty(slab.pointee.base &+ used &* layout.stride, endOfSlab(slab))
}

/// Checks and repairs a stretch that nobody has.
func checkEmpty(_ start: UInt, _ end: UInt) {
  if start >= end { return }
  if let damage = damageOfZeros(start, end) {
    reportStray(damage)
    writeTrash(0, damage.start & ~7, damage.end)
  }
}

/// Checks the clean pages of the heap that are free. Called while no thread is inside.
func checkFreeSpans() {
  // Nothing may be reported while the arena is locked.
  var found = InlineArray<8, Damage>(repeating: Damage(start: 0, end: 0))
  var count = 0
  let heap = Core.heap
  let top = heap.pointee.reservation.heapTop
  heap.pointee.arena.walk { tag in
    if tag.pointee.kind != .free || tag.pointee.isDirty || count == 8 { return }
    if tag.pointee.start >= top { return }
    if let damage = damageOfZeros(tag.pointee.start, min(tag.pointee.end, top)) {
      found[count] = damage
      count &+= 1
    }
  }
  var i = 0
  while i < count {
    reportStray(found[i])
    i &+= 1
  }
}

/// Somebody wrote where nobody has anything: past the block before, or before the next.
@inline(never)
func reportStray(_ damage: Damage, _ occasion: Occasion = .checking) {
  if let item = missedBlock(damage.start, damage.end) {
    reportDamage(item.user < damage.start ? .overflow : .underflow, damage, item, occasion)
  } else {
    var finding = Finding(.overflow, "write outside every block", at: damage.start)
    finding.access = .write
    report(finding)
  }
}

/// Whether `address` lies in the address space of the heap.
func isHeapSpace(_ address: UInt) -> Bool {
  let heap = Core.heap
  let start = heap.pointee.reservation.start
  return address &- start < heap.pointee.reservation.end &- start
}

/// What an access to address space of the heap that has no memory yet is. No block is named
/// that lies further away than `farthest`.
func strayAccess(_ address: UInt, _ isWrite: Bool) -> Finding {
  let farthest: UInt = 1 &<< 26
  let heap = Core.heap
  let (start, top) = (heap.pointee.reservation.heapStart, heap.pointee.reservation.heapTop)
  let near = min(max(address, start), top &- 1)
  let isNear = max(address, near) &- min(address, near) <= farthest
  if isNear, let item = missedBlock(near, near) { return findingOutside(item, address, isWrite) }
  var finding = Finding(
    .overflow, isWrite ? "write outside every block" : "read outside every block", at: address)
  finding.access = isWrite ? .write : .read
  return finding
}

/// The block that is nearest to the bytes from `start` to `end`, which nobody has.
private func missedBlock(_ start: UInt, _ end: UInt) -> Item? {
  let before = blockBefore(start)
  let after = blockAfter(end)
  guard let before, let after else { return before ?? after }
  return start &- before.userEnd <= after.user &- end ? before : after
}

/// The live block that begins a few bytes behind `address`, where nobody has anything:
/// who frees that may mean a header of his own.
func blockJustBehind(_ address: UInt) -> Item? {
  guard keg_debug_is_running() else { return nil }
  let first = debug.pointee.guardArena.contains(address) ? debug.pointee.guardArena.next(after: nil) : nil
  guard let item = first ?? blockAfter(address), item.record.state == .live,
    item.user &- address <= 64
  else { return nil }
  return item
}

/// How many chunks around a stray write are searched for the block that it missed.
private var searchedChunks: UInt { 64 }

/// The block that begins next below `address`.
private func blockBefore(_ address: UInt) -> Item? {
  guard let map = Core.heap.pageMap(for: address) else { return nil }
  var chunk = address & ~(Chunk.size &- 1)
  var left = searchedChunks
  while left > 0, Core.heap.pageMap(for: chunk) != nil {
    switch map.owner(at: map.index(of: chunk)) {
    case .slab(let slab) where slab.pointee.records != 0:
      let layout = slab.pointee.keg.pointee.layout
      var i = address < slab.pointee.base
        ? 0 : min(layout.itemCount, (address &- slab.pointee.base) / layout.stride &+ 1)
      while i > 0 {
        i &-= 1
        if let item = usedItem(slab, i) { return item }
      }
      chunk = slab.start
    case .span(let span):
      if let item = largeItem(span) { return item }
    default: break
    }
    chunk &-= Chunk.size
    left &-= 1
  }
  return nil
}

/// The block that begins next above `address`.
private func blockAfter(_ address: UInt) -> Item? {
  guard let map = Core.heap.pageMap(for: address) else { return nil }
  var chunk = address & ~(Chunk.size &- 1)
  var left = searchedChunks
  while left > 0, Core.heap.pageMap(for: chunk) != nil {
    switch map.owner(at: map.index(of: chunk)) {
    case .slab(let slab) where slab.pointee.records != 0:
      let layout = slab.pointee.keg.pointee.layout
      let offset = address > slab.pointee.base ? address &- slab.pointee.base : 0
      var i = offset / layout.stride
      while i < layout.itemCount {
        if let item = usedItem(slab, i), item.user >= address { return item }
        i &+= 1
      }
      chunk = slab.start &+ layout.byteCount &- Chunk.size
    case .span(let span):
      if let item = largeItem(span), item.user >= address { return item }
    default: break
    }
    chunk &+= Chunk.size
    left &-= 1
  }
  return nil
}

/// The item in a slot, if the program ever had one there.
func usedItem(_ slab: UnsafeMutablePointer<Slab>, _ index: UInt) -> Item? {
  let record = slab.record(index)
  let state = record.state
  if state != .live, state != .busy, record.freeThread == 0 { return nil }
  let stride = slab.pointee.keg.pointee.layout.stride
  return Item(
    record: record, slot: slab.pointee.base &+ index &* stride, capacity: stride, slab: slab)
}
