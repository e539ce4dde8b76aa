// Quarantine.swift: freed items are kept from reuse for a while (P10).
//
//   thread's batch ──full──▶ newest batch … oldest batch ──▶ back to the core
//     no lock                 under one lock
//
// Frees go to an array of the thread, which is handed over as a whole: one lock for
// hundreds of frees. What is beyond the bound in bytes or items leaves at the other
// end, by the thread that handed over.

import Base
import DebugPlatform
import Keg
import Malloc
import Pages
import Platform
import Vmem

/// Slots of freed items, oldest first.
struct Batch {
  static var capacity: Int { 500 }
  var next: UInt = 0
  var count: Int = 0
  var bytes: UInt = 0
  var items: InlineArray<500, UInt> = InlineArray(repeating: 0)
}

struct Quarantine: ~Copyable {
  private var oldest: UInt = 0
  private var newest: UInt = 0
  /// Batches without items.
  private var spare: UInt = 0
  private(set) var bytes: UInt = 0
  private(set) var count: UInt = 0
  /// The options; 0: by the size of the heap, and no bound.
  private var mostBytes: UInt = 0
  private var mostItems: UInt = 0
  /// A tenth of the machine's memory.
  private var machineShare: UInt = 1 &<< 26

  init() {}

  mutating func configure() {
    mostBytes = Core.option(.debugQuarantine) &<< 20
    mostItems = Core.option(.debugQuarantineCount)
    machineShare = keg_debug_memory_bytes() / 10
  }

  /// The bound in bytes now.
  private var limit: UInt {
    if mostBytes != 0 { return mostBytes }
    let inUse = Core.heap.pointee.arena.bytesInUseAndDirty.inUse
    return min(machineShare, max(1 &<< 22, min(1 &<< 26, inUse / 16)))
  }

  /// What an item takes beside its slot while it waits: its record, its place in a batch.
  static var bookBytes: UInt { Record.byteCount &+ 8 }

  /// A batch may not hold more than this: a few large blocks are not kept by a thread.
  static var mostBatchBytes: UInt { 1 &<< 20 }

  /// Takes over a thread's batch, which is empty afterwards. Called with the lock held.
  /// - Returns: a batch that leaves, or 0.
  mutating func add(_ batch: UnsafeMutablePointer<Batch>) {
    var copy = spare
    if copy != 0 {
      spare = copy.pointer(to: Batch.self).pointee.next
    } else {
      let metadata = Core.heap.pointee.metadata
      copy = metadata.pointee.lock.withLock {
        metadata.pointee.cut(UInt(MemoryLayout<Batch>.stride).roundedUp(to: 64), alignment: 64)
      }
      if copy == 0 { return }
    }
    let kept = copy.pointer(to: Batch.self)
    let from = UnsafeRawPointer(batch)
    UnsafeMutableRawPointer(kept).copyMemory(
      from: from, byteCount: MemoryLayout<Batch>.stride)
    kept.pointee.next = 0
    bytes &+= batch.pointee.bytes
    count &+= UInt(bitPattern: batch.pointee.count)
    batch.pointee.count = 0
    batch.pointee.bytes = 0
    if newest == 0 { oldest = copy } else { newest.pointer(to: Batch.self).pointee.next = copy }
    newest = copy
  }

  /// Takes the oldest batch off if the bounds want that. Called with the lock held.
  mutating func takeSurplus(all: Bool = false) -> UnsafeMutablePointer<Batch>? {
    guard oldest != 0, all || bytes > limit || mostItems != 0 && count > mostItems else { return nil }
    let batch = oldest.pointer(to: Batch.self)
    oldest = batch.pointee.next
    if oldest == 0 { newest = 0 }
    bytes &-= batch.pointee.bytes
    count &-= UInt(bitPattern: batch.pointee.count)
    return batch
  }

  mutating func recycle(_ batch: UnsafeMutablePointer<Batch>) {
    batch.pointee.next = spare
    spare = batch.address
  }
}

/// Puts a freed item, which keeps so many bytes from others, into the thread's batch.
@inline(__always)
func quarantine(_ item: Item, _ bytes: UInt) {
  let address = keg_debug_thread().pointee.quarantine
  if address == 0 { return release(item.slot) }
  let part = address.pointer(to: DebugThread.self)
  let count = part.pointee.batch.count
  part.pointee.batch.items[count] = item.slot
  part.pointee.batch.bytes &+= bytes &+ Quarantine.bookBytes
  keg_compiler_barrier()
  part.pointee.batch.count = count &+ 1
  if count &+ 1 == Batch.capacity || part.pointee.batch.bytes > Quarantine.mostBatchBytes {
    handOver(part)
  }
}

/// Gives a thread's batch to the common quarantine, and what has to leave that to the core.
@inline(never)
func handOver(_ part: UnsafeMutablePointer<DebugThread>) {
  if part.pointee.batch.count == 0 { return }
  debug.pointee.now = milliseconds()
  debug.pointee.quarantineLock.lock()
  debug.pointee.quarantine.add(&part.pointee.batch)
  while let leaving = debug.pointee.quarantine.takeSurplus() {
    debug.pointee.quarantineLock.unlock()
    releaseAll(leaving)
    debug.pointee.quarantineLock.lock()
    debug.pointee.quarantine.recycle(leaving)
  }
  debug.pointee.quarantineLock.unlock()
  // No memory for a batch: what was freed is not kept.
  if part.pointee.batch.count > 0 {
    releaseAll(&part.pointee.batch)
    part.pointee.batch.count = 0
    part.pointee.batch.bytes = 0
  }
}

/// Memory is short: everything that is kept back goes to the core. Called in `.straight`.
@inline(never)
func giveUpQuarantine() {
  let address = keg_debug_thread().pointee.quarantine
  if address != 0 { handOver(address.pointer(to: DebugThread.self)) }
  debug.pointee.quarantineLock.lock()
  while let leaving = debug.pointee.quarantine.takeSurplus(all: true) {
    debug.pointee.quarantineLock.unlock()
    releaseAll(leaving)
    debug.pointee.quarantineLock.lock()
    debug.pointee.quarantine.recycle(leaving)
  }
  debug.pointee.quarantineLock.unlock()
  _ = Core.trim()
}

private func releaseAll(_ batch: UnsafeMutablePointer<Batch>) {
  var i = 0
  while i < batch.pointee.count {
    release(batch.pointee.items[i])
    i &+= 1
  }
}

/// Gives the slot of a freed item back to the core.
///
/// Neither item nor record is read here: they have left the processor's caches long
/// ago. They begin to be loaded, and are checked when the slot is used again, when its
/// slab goes, or at the end; whatever was written in between is found as well.
func release(_ slot: UInt) {
  guard let map = Core.heap.pageMap(for: slot) else { return }
  switch map.owner(at: map.index(of: slot)) {
  case .slab(let slab):
    let keg = slab.pointee.keg
    Item(
      record: slab.record(keg.slot(of: slot, in: slab)), slot: slot,
      capacity: keg.pointee.layout.stride, slab: slab
    ).prefetch()
    giveSlot(slot, keg)
  case .span(let span):
    guard let item = largeItem(span) else { return }
    checkFree(item)
    releaseLargeItem(item)
  default: break
  }
}

@inline(__always)
private func giveSlot(_ slot: UInt, _ keg: UnsafeMutablePointer<Keg>) {
  if _fastPath(keg.pointee.bin != 0) { Core.giveSlot(slot) } else { keg.give(slot) }
}

/// Gives a slot back to where it came from.
func giveSlot(_ slot: UInt) {
  guard let map = Core.heap.pageMap(for: slot), case .slab(let slab) = map.owner(at: map.index(of: slot))
  else { return Core.giveSlot(slot) }
  giveSlot(slot, slab.pointee.keg)
}

func milliseconds() -> UInt32 {
  UInt32(truncatingIfNeeded: (keg_monotonic_nanoseconds() &- debug.pointee.start) / 1_000_000)
}
