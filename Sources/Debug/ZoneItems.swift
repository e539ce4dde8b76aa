// ZoneItems.swift: the items of the program's own zones (keg_zone_alloc), by address.
//
//   hash of space and address ─▶ bucket ─▶ ZoneEntry ─▶ ZoneEntry …
//                                          | record | size | space | address | zone | next |
//
// A zone's item has no red zones: its size is the slot's. What it has is a record, as
// malloc's items have, from its first allocation until its zone is destroyed. Items that
// are no memory, and those of cache zones, belong to spaces of their own: the same
// number may be an item of two zones.
//
// Whose bytes nobody may rely on after a free (no init, no NOFREE: the kegs of
// `ZoneItem.keg`) hold trash while they are free. The trash is not looked at if the keg
// has given any slab back since: the memory may have had other uses.
//
// Lock: DebugState.zoneLock; metadata's is taken under it. Reports are written without it.

import Base
import DebugPlatform
import Keg
import Malloc
import Pages
import Platform

struct ZoneEntry: ~Copyable {
  var record: Record
  /// Its size, if it is great.
  var size: UInt
  var space: UInt
  var address: UInt
  /// The handle of the zone that gave the item last, and its name.
  var zone: UInt
  var name: UnsafePointer<CChar>
  /// Slabs that the keg had given back when the trash was written.
  var slabsGone: UInt
  var next: UnsafeMutablePointer<ZoneEntry>?
}

typealias ZoneEntryPointer = UnsafeMutablePointer<ZoneEntry>

extension UnsafeMutablePointer where Pointee == ZoneEntry {
  var record: RecordPointer { withUnsafeMutablePointer(to: &pointee.record) { $0 } }

  /// The item as reports show it.
  var item: Item {
    Item(record: record, slot: pointee.address, capacity: record.size, slab: nil)
  }
}

/// Every item that a zone ever gave. All of it under the lock.
struct ZoneItems: ~Copyable {
  private static var bucketCount: UInt { 1 &<< 16 }
  /// Addresses of entries; 0 until the first zone gives an item.
  private var buckets: UInt = 0
  private var pool: UnsafeMutablePointer<Pool>?
  /// There was no memory for an entry: an item that is not here may be one all the same.
  private(set) var isIncomplete = false

  init() {}

  private static func bucket(_ space: UInt, _ address: UInt) -> UInt {
    let hash = (address ^ space &<< 1) &* 0x9E37_79B9_7F4A_7C15
    return hash &>> 48
  }

  private mutating func open() -> Bool {
    if buckets != 0 { return true }
    let metadata = Core.heap.pointee.metadata
    guard let pool = metadata.room(for: Pool.self) else { return false }
    pool.initialize(
      to: Pool(
        name: "zone items", itemBytes: UInt(MemoryLayout<ZoneEntry>.stride), metadata: metadata))
    self.pool = pool
    buckets = metadata.pointee.lock.withLock {
      metadata.pointee.cut(ZoneItems.bucketCount &* 8, alignment: 64)
    }
    return buckets != 0
  }

  private func head(_ bucket: UInt) -> UnsafeMutablePointer<ZoneEntryPointer?> {
    (buckets &+ bucket &* 8).pointer(to: ZoneEntryPointer?.self)
  }

  func find(_ space: UInt, _ address: UInt) -> ZoneEntryPointer? {
    if buckets == 0 { return nil }
    var entry = head(Self.bucket(space, address)).pointee
    while let here = entry {
      if here.pointee.address == address, here.pointee.space == space { return here }
      entry = here.pointee.next
    }
    return nil
  }

  /// The entry of an item, made if need be; nil: no memory.
  mutating func entry(_ item: ZoneItem) -> ZoneEntryPointer? {
    if let found = find(item.space, item.address) { return found }
    guard open(), let memory = pool?.take(), memory != 0 else {
      isIncomplete = true
      return nil
    }
    let head = head(Self.bucket(item.space, item.address))
    UnsafeMutableRawPointer(bitPattern: memory).unsafelyUnwrapped  // an entry of the pool
      .initializeMemory(as: UInt8.self, repeating: 0, count: MemoryLayout<ZoneEntry>.stride)
    let made = memory.pointer(to: ZoneEntry.self)
    made.pointee.space = item.space
    made.pointee.address = item.address
    made.pointee.next = head.pointee
    head.pointee = made
    return made
  }

  /// The first item in use of a zone from bucket `bucket` on, behind `depth` others there.
  func nextLive(_ zone: UInt, _ bucket: inout UInt, _ depth: inout UInt) -> ZoneEntryPointer? {
    while buckets != 0, bucket < ZoneItems.bucketCount {
      var entry = head(bucket).pointee
      var passed: UInt = 0
      while let here = entry {
        passed &+= 1
        if passed > depth, here.pointee.zone == zone, here.record.state == .live {
          depth = passed
          return here
        }
        entry = here.pointee.next
      }
      bucket &+= 1
      depth = 0
    }
    return nil
  }

  /// Drops what a zone gave.
  mutating func forget(_ zone: UInt) {
    if buckets == 0 { return }
    var bucket: UInt = 0
    while bucket < ZoneItems.bucketCount {
      var link = head(bucket)
      while let here = link.pointee {
        if here.pointee.zone == zone {
          link.pointee = here.pointee.next
          pool?.give(here.address)
        } else {
          link = withUnsafeMutablePointer(to: &here.pointee.next) { $0 }
        }
      }
      bucket &+= 1
    }
  }
}

/// Calls `body` with the table, locked.
@inline(__always)
func withZoneItems<Result>(_ body: (UnsafeMutablePointer<ZoneItems>) -> Result) -> Result {
  debug.pointee.zoneLock.lock()
  let result = body(withUnsafeMutablePointer(to: &debug.pointee.zoneItems) { $0 })
  debug.pointee.zoneLock.unlock()
  return result
}

/// The entry of the item in the address space that starts at `address`, or holds it.
func zoneEntry(of address: UInt) -> ZoneEntryPointer? {
  guard keg_debug_is_running() else { return nil }
  let found = withZoneItems { $0.pointee.find(0, address) }
  if found != nil { return found }
  guard Core.isUp, let map = Core.heap.pageMap(for: address),
    case .slab(let slab) = map.owner(at: map.index(of: address))
  else { return nil }
  let keg = slab.pointee.keg
  let index = keg.slot(of: address, in: slab)
  guard index < keg.pointee.layout.itemCount else { return nil }
  let start = slab.pointee.base &+ index &* keg.pointee.layout.stride
  return withZoneItems { $0.pointee.find(0, start) }
}
