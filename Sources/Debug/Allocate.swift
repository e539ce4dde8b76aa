// Allocate.swift: every way to get memory, checked.
//
//   1 the core gives a slot for left zone, bytes and right zone
//   2 if the slot was used before, nobody may have written to it since
//   3 red zones, trash (or zeros), record
//
// Slots that were never used get zones and trash a page at a time, when the first of
// them is handed out, so that a write far past it lands on bytes that are checked.

import Base
import DebugPlatform
import Keg
import Malloc
import Platform
import SizeClass
import Synchronization
import Vmem

/// How the calling thread came in.
enum Way {
  case straight
  /// From a signal handler over a call of ours, or from inside one.
  case nested
}

/// Enters the debug layer. `.straight` must be followed by `leaveDebug`.
@inline(__always)
func enterDebug() -> Way {
  let thread = keg_debug_thread()
  if _fastPath(thread.pointee.state == KEG_DEBUG_OUTSIDE) {
    thread.pointee.state = KEG_DEBUG_INSIDE
    keg_compiler_barrier()
    if _slowPath(keg_debug_is_forking()) { waitForFork() }
    return .straight
  }
  return slowEnterDebug()
}

/// Another thread forks: it waits until nobody is inside, and we until it is done.
@inline(never)
private func waitForFork() {
  let thread = keg_debug_thread()
  while keg_debug_is_forking() {
    thread.pointee.state = KEG_DEBUG_OUTSIDE
    keg_compiler_barrier()
    debug.pointee.forkLock.lock()
    debug.pointee.forkLock.unlock()
    thread.pointee.state = KEG_DEBUG_INSIDE
    keg_compiler_barrier()
  }
}

@inline(__always)
func leaveDebug() {
  keg_compiler_barrier()
  keg_debug_thread().pointee.state = KEG_DEBUG_OUTSIDE
}

@inline(never)
private func slowEnterDebug() -> Way {
  let thread = keg_debug_thread()
  if thread.pointee.state != KEG_DEBUG_UNATTACHED { return .nested }
  thread.pointee.state = KEG_DEBUG_NESTED
  keg_compiler_barrier()
  guard attachDebugThread() else {
    thread.pointee.state = KEG_DEBUG_UNATTACHED
    return .nested
  }
  thread.pointee.state = KEG_DEBUG_INSIDE
  keg_compiler_barrier()
  if keg_debug_is_forking() { waitForFork() }
  return .straight
}

/// Runs `body`, in which malloc may be called: by the C library, or the unwinder.
@inline(__always)
func nesting<Result>(_ body: () -> Result) -> Result {
  let thread = keg_debug_thread()
  let state = thread.pointee.state
  thread.pointee.state = KEG_DEBUG_NESTED
  keg_compiler_barrier()
  let result = body()
  keg_compiler_barrier()
  thread.pointee.state = state
  return result
}

/// Memory of `size` bytes, or nil with errno set.
/// - Parameter alignment: a power of two, at least 16; 16 for malloc.
@inline(never)
func allocate(
  _ size: UInt, alignment: UInt, _ kind: AllocationKind, zeroed: Bool = false
) -> UnsafeMutableRawPointer? {
  if _slowPath(keg_leak_is_requested()) { serveLeakRequest() }
  guard case .straight = enterDebug() else { return allocateNested(size, alignment, zeroed) }
  let item = allocateItem(size, alignment, kind, zeroed)
  leaveDebug()
  return item == 0 ? Core.fail() : UnsafeMutableRawPointer(bitPattern: item)
}

/// What `allocate` does between `enterDebug` and `leaveDebug`. 0: no memory.
@inline(__always)
func allocateItem(
  _ size: UInt, _ alignment: UInt, _ kind: AllocationKind, _ zeroed: Bool
) -> UInt {
  let item = allocatePlainly(size, alignment, kind, zeroed)
  return _fastPath(item != 0) ? item : allocateOther(size, alignment, kind, zeroed)
}

@inline(never)
private func allocateOther(
  _ size: UInt, _ alignment: UInt, _ kind: AllocationKind, _ zeroed: Bool
) -> UInt {
  let thread = keg_debug_thread()
  thread.pointee.countdown = debug.pointee.sampleEvery
  thread.pointee.calls &+= 1
  if thread.pointee.calls & 255 == 0 { runDue() }
  if size > Core.greatest {
    reportNegativeSize(size, kind)
    return 0
  }
  if _slowPath(debug.pointee.isFailing), mustFail(size) { return 0 }
  if size > greatestSize || alignment > Core.greatest / 4 { return 0 }
  if isGuarded(size) {
    let item = allocateGuarded(size, alignment, kind, zeroed)
    if item != 0 { return item }
  }
  if _fastPath(size &+ leastRightZone <= greatestShared && alignment <= greatestShared) {
    return allocateInSlab(size &+ leastRightZone, size, alignment, 0, kind, zeroed)
  }
  let bytes = slotBytes(size, leftZone: alignment)
  if bytes > SizeClass.largest { return allocateLargeItem(size, alignment, kind, zeroed) }
  return allocateInSlab(bytes, size, alignment, alignment, kind, zeroed)
}

/// Whether an option makes this allocation fail: now and then on purpose (libumem's
/// mtbf, L09), once the program has started; or because the heap would grow beyond `limit`.
@inline(never)
private func mustFail(_ size: UInt) -> Bool {
  let mean = UInt(processMeanFailures)
  if mean != 0, keg_debug_has_started(), randomNumber() % mean == 0 { return true }
  let limit = Core.option(.debugLimit) &<< 20
  if limit == 0 { return false }
  let arena = Core.heap.pointee.arena
  if arena.bytesInUseAndDirty.inUse &+ size <= limit { return false }
  giveUpQuarantine()
  return arena.bytesInUseAndDirty.inUse &+ size > limit
}

/// A TiB is more than any program fills, and looking for leaks in it would take minutes.
private var greatestSize: UInt { 1 &<< 40 }

/// An item in a slot of `bytes`, or 0 without memory.
@inline(__always)
private func allocateInSlab(
  _ bytes: UInt, _ size: UInt, _ alignment: UInt, _ leftZone: UInt, _ kind: AllocationKind,
  _ zeroed: Bool
) -> UInt {
  var slot = takeSlot(bytes, alignment)
  if _slowPath(slot == 0) {
    giveUpQuarantine()
    slot = takeSlot(bytes, alignment)
    if slot == 0 { return 0 }
  }
  guard let slab = slabForRecords(slot) else {
    // A large block for a great alignment, one for a handler, or no memory for
    // records: not checked.
    if zeroed { writeTrash(0, slot, slot &+ size) }
    return slot
  }
  let keg = slab.pointee.keg
  let index = keg.slot(of: slot, in: slab)
  let item = Item(
    record: slab.record(index), slot: slot, capacity: keg.pointee.layout.stride, slab: slab)
  // It has left the caches: it is loaded while the stack is walked.
  item.prefetch()
  let stack = startStack()
  prepare(item, index)
  settle(item, size, alignment, leftZone, kind, zeroed, stack)
  return slot &+ leftZone
}

/// The slab of a slot, with records; nil: none of both.
@inline(__always)
private func slabForRecords(_ slot: UInt) -> UnsafeMutablePointer<Slab>? {
  guard let map = Core.heap.pageMap(for: slot),
    case .slab(let slab) = map.owner(at: map.index(of: slot)),
    slab.pointee.records != 0 || slab.makeRecords()
  else { return nil }
  return slab
}

@inline(__always)
private func takeSlot(_ bytes: UInt, _ alignment: UInt) -> UInt {
  if _slowPath(keg_debug_is_sampling()) { return takeSampleSlot(bytes, alignment) }
  return alignment > 16 ? Core.takeSlot(bytes, alignment: alignment) : Core.takeSlot(bytes)
}

/// Sees to it that the slot's contents are known, and checks those that were.
@inline(never)
func prepare(_ item: Item, _ index: UInt) {
  let state = item.record.state
  if _fastPath(state == .freed || state == .free) { return checkFree(item) }
  if state == .untouched || state == .preparing { return prepareUntouched(item, index) }
  die("the core handed out a block that is in use:", at: item.slot, zone: item.zone)
}

/// Writes zones and trash to this slot and the others on the same OS page, and the left
/// zone of the first, which is the end of the slot before it or of the margin. Of a slab
/// of used pages all slots are prepared.
@inline(never)
private func prepareUntouched(_ item: Item, _ index: UInt) {
  guard let slab = item.slab else { return }
  let isClean = isClean(slab)
  let count = slab.pointee.keg.pointee.layout.itemCount
  var i = index
  var slot = item.slot
  let pageStart = isClean ? item.slot & ~(Core.pageSize &- 1) : slab.pointee.base
  while i > 0, slot &- item.capacity >= pageStart {
    i &-= 1
    slot = slot &- item.capacity
  }
  // Pages from here on may never have been read.
  var page = (i > 0 || slab.start != slab.pointee.base ? slot &- leastRightZone : slot) & ~7
  if isClean { touch(&page, to: slot) }
  if i > 0 {
    let record = slab.record(i &- 1)
    if claim(record) {
      // Another thread, with a slot on this page, too, may have written the zone before.
      if isClean, let damage = nonzero(slot &- 16, slot), damageOfZone(slot &- 16, slot) != nil {
        reportStray(damage)
      }
      writeZone(slot &- 16, slot)
      record.set(.untouched, hasTrash: false)
    }
  }
  if !isClean, claim(slab.record(0)) {
    clearRest(slab)
    slab.record(0).set(.untouched, hasTrash: false)
  }
  let pageEnd = isClean ? item.end.roundedUp(to: Core.pageSize) : ~0
  while i < count, slot < pageEnd {
    let record = slab.record(i)
    if claim(record) {
      if isClean {
        touch(&page, to: slot &+ item.capacity)
        checkUntouched(slot, item.capacity)
      }
      if i == 0 { prepareMargin(slab, isClean) }
      writeTrash(Trash.freed, slot, slot &+ item.capacity &- 16)
      writeZone(slot &+ item.capacity &- 16, slot &+ item.capacity)
      record.size = item.capacity &- 16
      record.set(
        .free, kind: .malloc, alignment: 16, hasLeftZone: false, hasTrash: true, epoch: 0)
    }
    slot = slot &+ item.capacity
    i &+= 1
  }
}

/// Makes the pages from `address` to `end` writable ones before they are read: who reads
/// them first pays for another page fault, for the kernel's page of zeros.
@inline(__always)
private func touch(_ address: inout UInt, to end: UInt) {
  while address < end {
    // A stray write of another thread's stays.
    _ = address.pointer(to: Atomic<UInt>.self).pointee.compareExchange(
      expected: 0, desired: 0, ordering: .relaxed)
    address = (address &+ Core.pageSize) & ~(Core.pageSize &- 1)
  }
}

/// Makes an untouched slot `.preparing`, or waits until another thread has prepared it.
/// - Returns: false when it is not untouched any more.
private func claim(_ record: RecordPointer) -> Bool {
  while true {
    switch record.change(from: .untouched, to: .preparing) {
    case .untouched: return true
    case .preparing:
      // The other thread may be one that a child of _Fork does not have.
      if processID() != debug.pointee.pid { return true }
      keg_cpu_relax()
    default: return false
    }
  }
}

/// Makes a checked slot the program's.
@inline(never)
func settle(
  _ item: Item, _ size: UInt, _ alignment: UInt, _ leftZone: UInt, _ kind: AllocationKind,
  _ zeroed: Bool, _ stack: PendingStack
) {
  let record = item.record
  let user = item.slot &+ leftZone
  let end = user &+ size
  // The zones of the item before this one, of the same size, are as they should be.
  if record.size != size || record.leftZone != leftZone {
    writeZone(item.slot, user)
    // The last bytes of a slot are red zone always, or a count.
    writeZone(end, item.end &- leastRightZone)
  }
  fill(user, end, zeroed, isZero: false)
  note(record, size, stack)
  record.set(
    .live, kind: kind, alignment: alignment, hasLeftZone: leftZone != 0, hasTrash: false,
    epoch: debug.pointee.epoch)
  if kind.isOne { writeCount(user) }
}

/// Gives fresh memory its contents.
@inline(__always)
func fill(_ user: UInt, _ end: UInt, _ zeroed: Bool, isZero: Bool) {
  if zeroed {
    if !isZero { writeTrash(0, user, end) }
  } else if debug.pointee.isTrashing {
    writeTrash(Trash.allocated, user, min(end, user &+ trashLimit))
  }
}

/// Of fresh memory no more than this is filled, so that a program that allocates
/// much and touches little stays small.
private var trashLimit: UInt { 1 &<< 17 }

/// Writes down who allocates.
@inline(__always)
func note(_ record: RecordPointer, _ size: UInt, _ stack: PendingStack = startStack()) {
  let thread = keg_debug_thread()
  record.setSize(size, by: thread.pointee.id)
  record.pointee.allocationTime = debug.pointee.now
  record.pointee.freeStack = 0
  let stack = finishStack(stack)
  record.pointee.allocationStack = stack
  if _slowPath(debug.pointee.profile.isOn) { debug.pointee.profile.count(stack, size) }
  if thread.pointee.quarantine != 0 {
    thread.pointee.quarantine.pointer(to: DebugThread.self).pointee.counts.allocations &+= 1
  }
}

/// What comes up now and then. Called in `.straight`, without a lock.
@inline(never)
private func runDue() {
  debug.pointee.now = milliseconds()
  adoptOrphans()
}

/// Memory for who comes in nested: plain, from the pool for handlers.
@inline(never)
private func allocateNested(_ size: UInt, _ alignment: UInt, _ zeroed: Bool)
  -> UnsafeMutableRawPointer?
{
  noteNested()
  guard Core.start() else { return Core.fail() }
  let block = Core.emergency(size, alignment: alignment)
  if block == 0 { return Core.fail() }
  if zeroed { writeTrash(0, block, block &+ size) }
  return UnsafeMutableRawPointer(bitPattern: block)
}
