// Emergency.swift: malloc for a signal handler that interrupted the allocator (S03).
//
// POSIX does not allow malloc in handlers; programs do it all the same (G34). A
// handler over a slow path may find any lock held by its own thread, so it gets
// memory from a pool of its own that takes no lock:
//
//   | size | item … | size | item … |····· untouched ·····|   256 KiB of the heap
//                                   ▲ front (atomic)
//
// Freed items go to a stack per power of two, linked by offsets; the upper half of
// a stack's head counts up so that a stale head is never taken for a fresh one.
// What the pool cannot hold is mapped, with a header that names itself.

import Base
import Keg
import Pages
import Platform
import Synchronization
import Vmem

struct EmergencyPool: ~Copyable {
  static var byteCount: UInt { 1 &<< 18 }
  /// Blocks of 32 bytes to 32 KiB, header included.
  static var classCount: UInt { 11 }
  static var headerBytes: UInt { 16 }

  /// 0: there is no pool.
  var start: UInt = 0
  /// Bytes handed out from the front; may run past the end.
  let front = Atomic<UInt>(0)
  /// Per power of two from 32 bytes up: count << 32 | offset, 0 when empty.
  /// Written and read by any thread and its handlers; a push releases the link
  /// that a pop acquires.
  var stacks: UnsafeMutablePointer<Atomic<UInt>>?

  init() {}
}

/// Makes the pool. Called at boot.
func makeEmergencyPool(_ heap: UnsafeMutablePointer<Heap>) {
  guard let stacks = heap.pointee.metadata.room(for: Atomic<UInt>.self, count: 16), let span = heap.allocateSpan(EmergencyPool.byteCount) else { return }
  let start = span.pointee.start
  heap.pageMap(ofOwn: start).enterEmergencyPool(
    at: start, chunkCount: EmergencyPool.byteCount &>> Chunk.shift)
  process.pointee.emergency.stacks = stacks
  process.pointee.emergency.start = start
}

/// Memory for a handler, or 0. Takes no lock.
func emergencyAllocate(_ size: UInt, alignment: UInt) -> UInt {
  let extra = alignment > 16 ? alignment : 0
  if size > greatestRequest / 2 || alignment > greatestRequest / 4 { return 0 }
  let total = size &+ extra &+ EmergencyPool.headerBytes
  let exponent = max(total, 32).log2Ceiling
  if exponent >= 5 &+ EmergencyPool.classCount || process.pointee.emergency.start == 0 {
    return emergencyMap(size, alignment: alignment)
  }
  var block = popEmergency(exponent)
  if block == 0 { block = cutEmergency(exponent) }
  if block == 0 { return emergencyMap(size, alignment: alignment) }
  let item = (block &+ EmergencyPool.headerBytes).roundedUp(to: max(alignment, 16))
  // The word before the item says where its block is and how large.
  (item &- 8).word = (block &- process.pointee.emergency.start) &<< 8 | exponent
  return item
}

/// Gives a block of the pool back. Takes no lock.
func emergencyFree(_ item: UInt) {
  let pool = process.pointee.emergency.start
  let header = (item &- 8).word
  let exponent = header & 0xFF
  let offset = header &>> 8
  guard item.isMultiple(ofPowerOfTwo: 16), exponent >= 5, exponent < 5 &+ EmergencyPool.classCount,
    offset < EmergencyPool.byteCount, pool &+ offset < item,
    item < pool &+ offset &+ 1 &<< exponent
  else { die("invalid free of", at: item, zone: nil) }
  (item &- 8).word = 0
  let stack = process.pointee.emergency.stacks.unsafelyUnwrapped + Int(exponent &- 5)  // there is a pool
  var head = stack.pointee.load(ordering: .relaxed)
  while true {
    (pool &+ offset).word = head & 0xFFFF_FFFF
    let new = (head &>> 32 &+ 1) &<< 32 | (offset &+ 1)
    let result = stack.pointee.compareExchange(expected: head, desired: new, ordering: .releasing)
    if result.exchanged { return }
    head = result.original
  }
}

private func popEmergency(_ exponent: UInt) -> UInt {
  let stack = process.pointee.emergency.stacks.unsafelyUnwrapped + Int(exponent &- 5)  // there is a pool
  var head = stack.pointee.load(ordering: .acquiring)
  while head & 0xFFFF_FFFF != 0 {
    let block = process.pointee.emergency.start &+ (head & 0xFFFF_FFFF) &- 1
    // If somebody takes the block first, what is read here is not used.
    let new = (head &>> 32 &+ 1) &<< 32 | (block.word & 0xFFFF_FFFF)
    let result = stack.pointee.compareExchange(expected: head, desired: new, ordering: .acquiring)
    if result.exchanged { return block }
    head = result.original
  }
  return 0
}

private func cutEmergency(_ exponent: UInt) -> UInt {
  if process.pointee.emergency.front.load(ordering: .relaxed) >= EmergencyPool.byteCount { return 0 }
  let size = (1 as UInt) &<< exponent
  let offset = process.pointee.emergency.front.wrappingAdd(size, ordering: .relaxed).oldValue
  return offset &+ size <= EmergencyPool.byteCount ? process.pointee.emergency.start &+ offset : 0
}

// MARK: - Mapped blocks

/// The 64 bytes before a block with a mapping of its own: the block's address, a mark,
/// and where the mapping starts and how long it is.
private var mappedHeader: UInt { 64 }
private var mappedMark: UInt { 0x6B65_676D_6170_7065 }

private func emergencyMap(_ size: UInt, alignment: UInt) -> UInt {
  guard let heap = process.pointee.heap else { return 0 }
  let source = heap.pointee.reservation.source
  let extra = max(alignment, mappedHeader)
  let whole = (size &+ mappedHeader &+ extra).roundedUp(to: process.pointee.pageSize)
  let start = source.reserve(whole)
  guard start != 0 else { return 0 }
  guard source.commit(start, whole) else {
    _ = source.release(start, whole)
    return 0
  }
  let item = (start &+ mappedHeader).roundedUp(to: extra)
  let header = item &- mappedHeader
  header.word = item
  (header &+ 8).word = mappedMark
  (header &+ 16).word = start
  (header &+ 24).word = whole
  return item
}

/// The bytes that a block of the pool, or a mapped one, can hold; nil for others.
func emergencySize(_ item: UInt) -> UInt? {
  let pool = process.pointee.emergency.start
  if pool != 0, item &- pool < EmergencyPool.byteCount {
    let header = (item &- 8).word
    let end = pool &+ header &>> 8 &+ 1 &<< (header & 0x1F)
    return end > item ? end &- item : nil
  }
  guard isMapped(item) else { return nil }
  let header = item &- mappedHeader
  return (header &+ 16).word &+ (header &+ 24).word &- item
}

private func isMapped(_ item: UInt) -> Bool {
  let header = item &- mappedHeader
  guard item.isMultiple(ofPowerOfTwo: mappedHeader), keg_is_readable(header) else { return false }
  return header.word == item && (header &+ 8).word == mappedMark
}

/// Unmaps a mapped block. False: it is none.
func emergencyUnmap(_ item: UInt) -> Bool {
  guard isMapped(item), let heap = process.pointee.heap else { return false }
  let header = item &- mappedHeader
  (header &+ 8).word = 0
  return heap.pointee.reservation.source.release((header &+ 16).word, (header &+ 24).word)
}
