// Handle.swift: what a `keg_zone *` points to.
//
//   Handle                        in metadata; a handle's memory is always a handle's
//   | alloc | free | take | give | offset | … | Zone | Keg or BackedKeg | name |
//      │       │      │      │       └ where the zone's bin lies in a thread's table
//      └───────┴──────┴──────┴ the same, or 0: bin 0 is always empty: the slow way
//
// keg_zone_alloc and keg_zone_free (Items.swift) read the first two words and nothing
// else. A zone with a limit or an injected failure has 0 in all four, one with a
// constructor in the first, one with a destructor in the second.
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
}

enum HandleState: UInt32 {
  case gone = 0
  case live = 1
}

typealias HandlePointer = UnsafeMutablePointer<Handle>

struct Handle: ~Copyable {
  // Read by the fast paths.
  var allocOffset: UInt = 0
  var freeOffset: UInt = 0
  /// The same, whether there are constructor and destructor or not.
  var takeOffset: UInt = 0
  var giveOffset: UInt = 0
  /// Of the zone's bin in a thread's table; 0: the zone has no bins of threads.
  var offset: UInt = 0
  /// Written under the registry lock.
  var state = HandleState.gone
  /// Index into the table of zones; 0 for zones of malloc.
  var number: UInt = 0
  var flags = HandleFlags.none
  let zone: UnsafeMutablePointer<Zone>
  var backed: UnsafeMutablePointer<BackedKeg>?
  var constructor: Constructor?
  var destructor: Destructor?
  var primary: HandlePointer?
  /// Zones that share this one's keg. Written under the registry lock.
  var secondaryCount: UInt = 0
  /// Arrays of CPUs, once the zone had a limit; see Arrays.swift.
  var arrays: UnsafeMutablePointer<ArraySlot>?
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
  /// Who is busy with the zone and met it in the table.
  let pins = Atomic<UInt32>(0)

  init(zone: UnsafeMutablePointer<Zone>) {
    self.zone = zone
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
  static var byteCount: UInt { namePlace &+ nameBytes }

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
  var hasFunctions: Bool {
    if pointee.flags.contains(.cache) || pointee.backed != nil { return true }
    if pointee.zone.pointee.hooks.itemInit != nil || pointee.zone.pointee.hooks.itemFini != nil {
      return true
    }
    guard let keg else { return true }
    return keg.pointee.itemInit != nil || keg.pointee.itemFini != nil
  }

  func noteFailure() { pointee.failures.wrappingAdd(1, ordering: .relaxed) }

  /// Sets what the fast paths read, after anything they must not overlook has changed.
  func publishOffsets() {
    let isChecked = pointee.flags.contains(.checked)
    let isPlain =
      !pointee.zone.isLimited && pointee.meanFailures.load(ordering: .relaxed) == 0
      && !failuresAreInjected && !isChecked
    pointee.takeOffset = isPlain ? pointee.offset : 0
    pointee.giveOffset = !pointee.zone.isLimited && !isChecked ? pointee.offset : 0
    pointee.allocOffset = pointee.constructor == nil ? pointee.takeOffset : 0
    pointee.freeOffset = pointee.destructor == nil ? pointee.giveOffset : 0
  }

  /// Dies on a zone that was destroyed.
  @inline(__always)
  func check() {
    if _slowPath(pointee.state != .live) { dieOfDestruction() }
  }
}

extension UnsafeMutablePointer where Pointee == Handle {
  @inline(never)
  private func dieOfDestruction() {
    _ = reportsMisuse(.destroyedZone)
    die("use of a destroyed zone at", at: address, zone: nil)
  }
}

/// The handle that a `keg_zone *` is.
@inline(__always)
func handle(_ zone: UnsafeMutableRawPointer) -> HandlePointer {
  UInt(bitPattern: zone).pointer(to: Handle.self)
}
