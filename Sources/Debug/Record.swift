// Record.swift: what is known of an item, beside the slab that holds it.
//
//   Slab.records ──▶ | record 0 | record 1 | … |       one for each slot of the slab
//   span's payload ─▶ | record |                       of a large block
//
//   slots of at most a page:
//   … | right zone of A |  what B was asked for  | right zone of B ··| C …
//                       slot = user              user + size         slot + capacity
//   greater ones, and blocks of their own:
//   | left zone |  what was asked for  | right zone ········|
//   slot        user                   user + size         slot + capacity
//
// In a slab the zone before an item is the end of the zone of the item before it, and of
// the first one the end of the slab's margin. Whatever a slot holds, its last 16 bytes
// are red zone.
//
// Records lie in metadata: nothing that a program writes past a block reaches them.
// The state changes by compare and swap at the boundary of the API, before any cache
// (D03), so of two frees of one item exactly one succeeds, whichever threads make
// them. Everything else in a record belongs to whoever has brought it to `.busy`, or
// has just taken the slot.
//
//   untouched ─▶ free ─▶ live ─▶ busy ─▶ freed ─▶ live …    (and busy ─▶ live: realloc)

import Base
import DebugPlatform
import Keg
import Malloc
import Platform
import Synchronization
import Vmem

enum ItemState: UInt32 {
  /// The slot was never used; its contents are unknown.
  case untouched = 0
  /// With the core and never used, but prepared; holds trash.
  case free
  /// The program's.
  case live
  /// In the quarantine, or with the core since; holds trash.
  case freed
  /// In a call of free or realloc.
  case busy
  /// Untouched; a thread writes zones and trash to it.
  case preparing
}

/// By what call memory came, in the order of the names that reports use.
enum AllocationKind: UInt32 {
  case malloc = 0
  case memalign
  case new
  case newArray
  case alignedNew
  case alignedNewArray
  /// An item of a zone of the program's: in ZoneItems, never in a slot.
  case zone

  /// Whether the caller named an alignment.
  var isAligned: Bool { self == .memalign || self == .alignedNew || self == .alignedNewArray }
}

typealias StackID = UInt32

struct Record: ~Copyable {
  /// state | kind << 3 | isPurged or hasCount << 6 | log2(alignment) - 4 << 7 | isGuarded << 12
  /// | mark << 13 | hasTrash << 14 | hasNoLeftZone << 15 | epoch << 16.
  fileprivate let meta: Atomic<UInt32>
  /// Milliseconds since start.
  var allocationTime: UInt32
  var allocationStack: StackID
  var freeStack: StackID
  /// Size | allocating thread << 20 | freeing thread << 42; 0: no such thread.
  fileprivate var sizeAndThreads: UInt

  static var byteCount: UInt { 24 }
  /// Stands for a size of 20 bits and more: it is in the word behind the record, which
  /// those of slots do not have.
  fileprivate static var wide: UInt { 0xFFFFF }
  /// The kernel's thread numbers are smaller.
  fileprivate static var threadMask: UInt { 0x3FFFFF }
}

typealias RecordPointer = UnsafeMutablePointer<Record>

extension UnsafeMutablePointer where Pointee == Record {
  @inline(__always)
  var word: UInt32 {
    get { pointee.meta.load(ordering: .relaxed) }
    nonmutating set { pointee.meta.store(newValue, ordering: .releasing) }
  }

  @inline(__always)
  var state: ItemState {
    // Never nil: only `set` and `change` write the bits.
    ItemState(rawValue: pointee.meta.load(ordering: .acquiring) & 7).unsafelyUnwrapped
  }
  @inline(__always)
  var kind: AllocationKind { AllocationKind(rawValue: word &>> 3 & 7).unsafelyUnwrapped }
  /// Bytes before what the program got.
  @inline(__always)
  var leftZone: UInt {
    let word = self.word
    if _fastPath(word & 0x8000 != 0) { return 0 }
    return _slowPath(word & 0x1000 != 0) ? guardOffset(self) : 1 &<< (UInt(word &>> 7 & 31) &+ 4)
  }
  /// Whether the item lies in a slot of at most a page, at its start.
  @inline(__always)
  var sharesZones: Bool { word & 0x9000 == 0x8000 }
  /// What the program asked for, at least 16.
  var alignment: UInt { 1 &<< (UInt(word &>> 7 & 31) &+ 4) }
  /// Bytes asked for.
  @inline(__always)
  var size: UInt {
    get {
      let size = pointee.sizeAndThreads & Record.wide
      return _fastPath(size != Record.wide) ? size : (address &+ Record.byteCount).word
    }
    nonmutating set {
      if newValue >= Record.wide { (address &+ Record.byteCount).word = newValue }
      pointee.sizeAndThreads = pointee.sizeAndThreads & ~Record.wide | min(newValue, Record.wide)
    }
  }
  /// Who allocated it; 0: nobody yet.
  var allocationThread: UInt32 {
    UInt32(truncatingIfNeeded: pointee.sizeAndThreads &>> 20 & Record.threadMask)
  }
  /// Who freed it; 0: nobody since it was last allocated.
  @inline(__always)
  var freeThread: UInt32 {
    get { UInt32(truncatingIfNeeded: pointee.sizeAndThreads &>> 42) }
    nonmutating set {
      pointee.sizeAndThreads =
        pointee.sizeAndThreads & ~(Record.threadMask &<< 42) | (UInt(newValue) & Record.threadMask) &<< 42
    }
  }

  /// Sets the size, who allocates, and that nobody has freed.
  @inline(__always)
  func setSize(_ size: UInt, by thread: UInt32) {
    if _slowPath(size >= Record.wide) { (address &+ Record.byteCount).word = size }
    pointee.sizeAndThreads = min(size, Record.wide) | (UInt(thread) & Record.threadMask) &<< 20
  }

  // For PlainItem.swift, which reads and writes whole words. Words of items that share
  // zones, so that their sizes are in `sizeAndThreads`:

  /// What tells how an item lies: state, kind, isGuarded, hasNoLeftZone.
  static var placeMask: UInt32 { 0x903F }
  static var sharesZonesBits: UInt32 { 0x8000 }
  static var hasTrashBit: UInt32 { 0x4000 }
  static var hasCountBit: UInt32 { 0x40 }
  static var stateMask: UInt32 { 7 }

  @inline(__always)
  var sharedSize: UInt { pointee.sizeAndThreads & Record.wide }

  /// The words of a live item of the usual alignment, but for the stack.
  @inline(__always)
  func setPlain(_ size: UInt, by thread: UInt32, at time: UInt32) {
    pointee.sizeAndThreads = size | (UInt(thread) & Record.threadMask) &<< 20
    pointee.allocationTime = time
    pointee.freeStack = 0
  }

  @inline(__always)
  func setFreed(by thread: UInt32, _ stack: StackID) {
    pointee.sizeAndThreads = pointee.sizeAndThreads & ~(Record.threadMask &<< 42) | UInt(thread) &<< 42
    pointee.freeStack = stack
  }

  /// Makes a live item with this `word` a busy one. False: it has another word by now.
  @inline(__always)
  func makeBusy(_ word: UInt32) -> Bool {
    pointee.meta.compareExchange(
      expected: word, desired: word & ~Self.stateMask | ItemState.busy.rawValue,
      ordering: .acquiringAndReleasing
    ).exchanged
  }

  /// Whether the item lies between guard pages, and the record in a GuardSlot.
  @inline(__always)
  var isGuarded: Bool { word & 0x1000 != 0 }
  /// Whether the user's bytes hold the pattern of freed memory.
  var hasTrash: Bool { word & 0x4000 != 0 }
  /// Whether the pages of the whole block are the kernel's zeros instead.
  var isPurged: Bool { word & 0x40 != 0 }
  /// Of a freed item in a slab: whether its first word may be a count (ArrayCount.swift).
  var hasCount: Bool { word & Self.hasCountBit != 0 }
  /// The count of leak marks when the item was allocated.
  var epoch: UInt32 { word &>> 16 }

  /// For the leak scan, while the world is stopped.
  var isMarked: Bool {
    get { word & 0x2000 != 0 }
    nonmutating set { word = newValue ? word | 0x2000 : word & ~0x2000 }
  }

  @inline(__always)
  func set(
    _ state: ItemState, kind: AllocationKind, alignment: UInt, hasLeftZone: Bool, hasTrash: Bool,
    epoch: UInt32
  ) {
    let shift = UInt32(truncatingIfNeeded: alignment.log2Floor &- 4)
    let high = (hasTrash ? 0x4000 : 0) | (hasLeftZone ? 0 : 0x8000) | epoch &<< 16
    word = state.rawValue | kind.rawValue &<< 3 | shift &<< 7 | high
  }

  /// The same for an item between guard pages.
  func set(_ state: ItemState, kind: AllocationKind, guardedBy alignment: UInt, epoch: UInt32) {
    let shift = UInt32(truncatingIfNeeded: alignment.log2Floor &- 4)
    word = state.rawValue | kind.rawValue &<< 3 | shift &<< 7 | 0x1000 | epoch &<< 16
  }

  /// Sets the state, which only the owner of the item may do.
  @inline(__always)
  func set(_ state: ItemState, hasTrash: Bool) {
    word = word & ~0x4007 | state.rawValue | (hasTrash ? 0x4000 : 0)
  }

  /// Makes a large block a freed one without contents.
  func setPurged() { word = word & ~0x4007 | ItemState.freed.rawValue | 0x40 }

  /// Notes that the first word of a freed item is a count.
  func setCounted() { word = word | Self.hasCountBit }

  /// Brings the item from one state to another, if it is in that one.
  /// - Returns: the state it was in.
  @inline(__always)
  func change(from old: ItemState, to new: ItemState) -> ItemState {
    var word = self.word
    while word & 7 == old.rawValue {
      let result = pointee.meta.compareExchange(
        expected: word, desired: word & ~7 | new.rawValue, ordering: .acquiringAndReleasing)
      if result.exchanged { return old }
      word = result.original
    }
    return ItemState(rawValue: word & 7).unsafelyUnwrapped
  }
}

/// A slot, its record, and where it lies.
struct Item {
  let record: RecordPointer
  /// The first byte of the slot.
  let slot: UInt
  /// Its bytes.
  let capacity: UInt
  /// nil: a large block.
  let slab: UnsafeMutablePointer<Slab>?

  @inline(__always)
  var user: UInt { slot &+ record.leftZone }
  @inline(__always)
  var userEnd: UInt { user &+ record.size }
  var end: UInt { slot &+ capacity }
  /// Where the red zone before the item begins; of a great alignment a page is checked.
  @inline(__always)
  var leftStart: UInt {
    let zone = record.leftZone
    if zone != 0 { return user &- min(zone, 4096) }
    return slot &- 16
  }

  /// Starts to load the record and the ends of the slot.
  @inline(__always)
  func prefetch() {
    keg_prefetch(record.address)
    keg_prefetch(record.address &+ Record.byteCount &- 1)
    keg_prefetch(slot)
    keg_prefetch(end &- 1)
  }

  /// Of a large block: where its span ends.
  var spanEnd: UInt {
    guard slab == nil, !isGuarded, let map = Core.heap.pageMap(for: slot),
      case .span(let span) = map.owner(at: map.index(of: slot))
    else { return end }
    return span.pointee.end
  }

  /// The name of the zone, NUL-terminated; nil: a large block.
  var zone: UnsafePointer<CChar>? { slab?.pointee.keg.pointee.name }

  var isGuarded: Bool { record.isGuarded }

  /// The slot before or behind this one in its slab, if that was ever used.
  func neighbour(_ distance: Int) -> Item? {
    guard let item = slot(at: distance) else { return nil }
    return item.record.state == .untouched || item.record.state == .preparing ? nil : item
  }

  /// The slot behind this one in its slab.
  var slotBehind: Item? { slot(at: 1) }

  private func slot(at distance: Int) -> Item? {
    guard let slab else { return nil }
    let keg = slab.pointee.keg
    let stride = keg.pointee.layout.stride
    let index = Int(bitPattern: keg.slot(of: slot, in: slab)) &+ distance
    guard index >= 0, index < Int(bitPattern: keg.pointee.layout.itemCount) else { return nil }
    return Item(
      record: slab.record(UInt(bitPattern: index)),
      slot: slab.pointee.base &+ UInt(bitPattern: index) &* stride, capacity: stride, slab: slab)
  }
}

extension UnsafeMutablePointer where Pointee == Slab {
  /// The record of a slot. The slab must have records.
  @inline(__always)
  func record(_ index: UInt) -> RecordPointer {
    (pointee.records &+ index &* Record.byteCount).pointer(to: Record.self)
  }
}

/// What lies at an address.
enum Place {
  case item(Item)
  /// The core's own: an item that is not checked, or one of another zone.
  case unchecked
  /// Memory for signal handlers.
  case emergency
  /// A large block started here and is gone.
  case gone
  /// Nothing of ours.
  case outside
}

/// A large block's payload is its record with this bit, or its size.
var recordBit: UInt { 1 &<< 63 }

/// The item whose slot holds `address`, or what else is there.
func place(of address: UInt) -> Place {
  guard Core.isUp, let map = Core.heap.pageMap(for: address) else {
    if keg_debug_is_running(), let item = debug.pointee.guardArena.find(address) {
      return item.record.state == .untouched || address >= item.end &+ GuardArena.page ? .outside : .item(item)
    }
    return Core.isUp && Core.isEmergencyMapping(address) ? .emergency : .outside
  }
  switch map.owner(at: map.index(of: address)) {
  case .slab(let slab):
    guard slab.pointee.records != 0 else { return .unchecked }
    let keg = slab.pointee.keg
    let index = keg.slot(of: address, in: slab)
    // The rest at the end of a slab is nobody's.
    guard index < keg.pointee.layout.itemCount else { return .outside }
    let stride = keg.pointee.layout.stride
    return .item(
      Item(
        record: slab.record(index), slot: slab.pointee.base &+ index &* stride, capacity: stride,
        slab: slab))
  case .span(let span):
    return largeItem(span).map { .item($0) } ?? .unchecked
  case .freed: return .gone
  case .emergency: return .emergency
  case .nobody: return .outside
  }
}

/// The item that is the whole of a span; nil: one of the core's.
func largeItem(_ span: TagPointer) -> Item? {
  let payload = span.pointee.payload
  guard payload & recordBit != 0 else { return nil }
  let record = (payload & ~recordBit).pointer(to: Record.self)
  return Item(
    record: record, slot: span.pointee.start,
    capacity: slotBytes(record.size, leftZone: record.leftZone).roundedUp(to: Core.pageSize),
    slab: nil)
}

/// Slots of this size and less share their zones with their neighbours.
var greatestShared: UInt { 4096 }

/// The least right zone, in bytes.
var leastRightZone: UInt { 16 }

/// The bytes that a slot must have.
@inline(__always)
func slotBytes(_ size: UInt, leftZone: UInt) -> UInt { leftZone &+ size &+ leastRightZone }
