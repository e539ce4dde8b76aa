// Handle.swift: what a `keg_zone *` points to.
//
//   Handle                        in metadata; a handle's memory is always a handle's
//   | flags | item | take | give | ctor | dtor | size | … | Zone | Keg or BackedKeg | name |
//      │       │      └──────┴ where the zone's bin lies in a thread's table; 0: bin 0,
//      │       │                which is always empty: the slow way
//      └───────┴ up to which flags, from which item on nothing of the program's is called
//
// keg_zone_alloc and keg_zone_free (Items.swift) read `flags` and `take`, `item` and
// `give`, and nothing else, unless there are constructor and destructor, which lie in the
// same cache line. A zone with a limit or an injected failure has 0 in `take` and `give`.
//
// A pin keeps a zone from being destroyed while a reclaim, a tick or a report that met it
// in the table is busy with it (source 001: destroy racing with the timer).

import Base
import Keg
import Malloc
import Pages
import SizeClass
import Synchronization
import Zone

/// The program's functions, as kegmalloc.h has them.
typealias Constructor =
  @convention(c) (UnsafeMutableRawPointer?, Int, UnsafeMutableRawPointer?, Int32) -> Int32
typealias Destructor =
  @convention(c) (UnsafeMutableRawPointer?, Int, UnsafeMutableRawPointer?) -> Void
typealias MaxAction =
  @convention(c) (UnsafeMutableRawPointer?, UnsafeMutableRawPointer?) -> Void
typealias DrainHook = @convention(c) (UnsafeMutableRawPointer?) -> Void

struct HandleFlags: Flags {
  let rawValue: UInt64
  init(rawValue: UInt64) { self.rawValue = rawValue }
  static var zeroInit: HandleFlags { HandleFlags(rawValue: 1 << 0) }
  static var noFree: HandleFlags { HandleFlags(rawValue: 1 << 1) }
  static var allFini: HandleFlags { HandleFlags(rawValue: 1 << 2) }
  static var noTouch: HandleFlags { HandleFlags(rawValue: 1 << 3) }
  static var noBucket: HandleFlags { HandleFlags(rawValue: 1 << 4) }
  static var maxBucket: HandleFlags { HandleFlags(rawValue: 1 << 5) }
  static var counted: HandleFlags { HandleFlags(rawValue: 1 << 6) }
  static var noDump: HandleFlags { HandleFlags(rawValue: 1 << 7) }
  /// Every flag of kegmalloc.h.
  static var known: HandleFlags { HandleFlags(rawValue: 0xFF) }
  /// One of malloc's zones.
  static var ofMalloc: HandleFlags { HandleFlags(rawValue: 1 << 32) }
  static var secondary: HandleFlags { HandleFlags(rawValue: 1 << 33) }
  static var cache: HandleFlags { HandleFlags(rawValue: 1 << 34) }
  /// The debug library checks every item: no call takes the fast way.
  static var checked: HandleFlags { HandleFlags(rawValue: 1 << 35) }
  /// Functions of the program may run when items enter or leave the zone's keg.
  static var callsOut: HandleFlags { HandleFlags(rawValue: 1 << 36) }
}

enum HandleState: UInt32 {
  case gone = 0
  case live = 1
}

typealias HandlePointer = UnsafeMutablePointer<Handle>

struct Handle: ~Copyable {
  // Read by the fast paths.
  /// Flags of an allocation less 1 are below this if no constructor is called: 2, WAITOK or
  /// NOWAIT; 0 for a zone that has one.
  let plainFlags: UInt32
  /// Written under the registry lock.
  var state = HandleState.gone
  /// Items are at or above this if no destructor is called: 1, all but NULL, which the
  /// slow way ignores; the greatest number for a zone that has one.
  let leastPlainItem: UInt
  // Written by `publishOffsets`, read by any thread at any time: relaxed, plain moves.
  let take = Atomic<UInt>(0)
  let give = Atomic<UInt>(0)
  let constructor: Constructor?
  let destructor: Destructor?
  let itemSize: Int
  let zone: UnsafeMutablePointer<Zone>
  // To here one cache line.
  /// Of the zone's bin in a thread's table; 0: the zone has no bins of threads.
  var offset: UInt = 0
  /// Index into the table of zones; 0 for zones of malloc.
  var number: UInt = 0
  var flags = HandleFlags.none
  var backed: UnsafeMutablePointer<BackedKeg>?
  var primary: HandlePointer?
  /// Zones that share this one's keg. Written under the registry lock.
  var secondaryCount: UInt = 0
  /// Address of the CPUs' arrays, once the zone had a limit, else 0; see Arrays.swift.
  let arrays = Atomic<UInt>(0)
  /// What buckets hold without a limit.
  var entries: Int = 0
  var warning: UnsafePointer<CChar>?
  /// When the warning was last printed, nanoseconds; 0: never.
  let warned = Atomic<UInt64>(0)
  var maxAction: MaxAction?
  var maxArgument: UnsafeMutableRawPointer?
  var drainHook: DrainHook?
  var drainArgument: UnsafeMutableRawPointer?
  /// Mean number of allocations between injected failures; 0: none.
  let meanFailures = Atomic<UInt32>(0)
  /// Allocations that failed, for whatever reason; relaxed: a count.
  let failures = Atomic<UInt64>(0)
  /// There are more items out than the limit allows: none is cached until that is over.
  let isOver = Atomic<Bool>(false)
  /// A tick is over that could not trim, for want of a thread of the program's own.
  let wantsTrim = Atomic<Bool>(false)

  init(
    zone: UnsafeMutablePointer<Zone>, constructor: Constructor? = nil, destructor: Destructor? = nil
  ) {
    self.zone = zone
    itemSize = Int(bitPattern: zone.pointee.itemSize)
    self.constructor = constructor
    self.destructor = destructor
    plainFlags = constructor == nil ? 2 : 0
    leastPlainItem = destructor == nil ? 1 : .max
  }

  /// NUL-terminated, at most 39 bytes.
  static var nameBytes: UInt { 40 }
  private static var zonePlace: UInt { UInt(MemoryLayout<Handle>.stride).roundedUp(to: 64) }
  private static var kegPlace: UInt {
    zonePlace &+ UInt(MemoryLayout<Zone>.stride).roundedUp(to: 64)
  }
  private static var namePlace: UInt {
    kegPlace
      &+ UInt(max(MemoryLayout<Keg>.stride, MemoryLayout<BackedKeg>.stride)).roundedUp(to: 64)
  }
  /// Bytes of a handle with all that belongs to it.
  static var byteCount: UInt { pinsPlace &+ 8 }
  fileprivate static var pinsPlace: UInt { namePlace &+ nameBytes }

  static func zone(at handle: UInt) -> UnsafeMutablePointer<Zone> {
    (handle &+ zonePlace).pointer(to: Zone.self)
  }
  static func keg(at handle: UInt) -> UnsafeMutablePointer<Keg> {
    (handle &+ kegPlace).pointer(to: Keg.self)
  }
  static func backedKeg(at handle: UInt) -> UnsafeMutablePointer<BackedKeg> {
    (handle &+ kegPlace).pointer(to: BackedKeg.self)
  }
  static func name(at handle: UInt) -> UnsafeMutablePointer<CChar> {
    (handle &+ namePlace).pointer(to: CChar.self)
  }
}

extension UnsafeMutablePointer where Pointee == Handle {
  var keg: UnsafeMutablePointer<Keg>? { pointee.zone.pointee.keg }
  var name: UnsafePointer<CChar> { pointee.zone.pointee.name }

  /// The functions of the program may run when items enter or leave this zone's keg.
  var hasFunctions: Bool { pointee.flags.contains(.callsOut) }

  func noteFailure() { pointee.failures.wrappingAdd(1, ordering: .relaxed) }

  /// Sets what the fast paths read, after anything they must not overlook has changed.
  func publishOffsets() {
    let isChecked = pointee.flags.contains(.checked)
    let isPlain =
      !pointee.zone.isLimited && pointee.meanFailures.load(ordering: .relaxed) == 0
      && !failuresAreInjected && !isChecked
    pointee.take.store(isPlain ? pointee.offset : 0, ordering: .relaxed)
    pointee.give.store(
      !pointee.zone.isLimited && !isChecked ? pointee.offset : 0, ordering: .relaxed)
  }

  /// Where the zone's bin lies, for allocations and for frees; 0: the slow way.
  @inline(__always)
  var takeOffset: UInt { pointee.take.load(ordering: .relaxed) }
  @inline(__always)
  var giveOffset: UInt { pointee.give.load(ordering: .relaxed) }

  /// Dies on NULL and on a zone that was destroyed.
  @inline(__always)
  func check() {
    if _slowPath(address == 0 || pointee.state != .live) { dieOfDestruction() }
  }
}

extension UnsafeMutablePointer where Pointee == Handle {
  @inline(never)
  private func dieOfDestruction() {
    if address == 0 { die("call for a zone that is NULL") }
    _ = reportsMisuse(.destroyedZone)
    die("use of a destroyed zone at", at: address, zone: nil)
  }
}

/// The handle that a `keg_zone *` is.
@inline(__always)
func handle(_ zone: UnsafeMutableRawPointer) -> HandlePointer {
  UInt(bitPattern: zone).pointer(to: Handle.self)
}

extension UnsafeMutablePointer where Pointee == Handle {
  /// Who is busy with the zone and met it in the table. Not part of the handle: who was
  /// just about to pin the zone that had this memory before takes its pin back later.
  var pins: UnsafeMutablePointer<Atomic<UInt32>> {
    (address &+ Handle.pinsPlace).pointer(to: Atomic<UInt32>.self)
  }
}
