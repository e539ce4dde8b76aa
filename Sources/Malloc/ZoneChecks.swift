// ZoneChecks.swift: what the debug library does when a zone of the program's gives and
// takes items.
//
//   ZoneAPI ──▶ process.zoneChecks ──▶ Debug
//               nil in the fast library
//
// The layer Debug knows neither zones' handles nor their flags, and ZoneAPI nothing of
// reports, so they meet here. A zone asks once, when it is made, whether it is to be
// checked; such a zone takes the slow way for every call. All of these are called outside
// sections, with no lock held.

import Base
import Keg

/// An item that changes hands.
package struct ZoneItem {
  /// The zone's handle, and its name, NUL-terminated.
  package let zone: UInt
  package let name: UnsafePointer<CChar>
  package let address: UInt
  package let size: UInt
  /// What the address is unique in: 0, the address space; else the zone's handle, whose
  /// items are no memory, or somebody else's.
  package let space: UInt
  /// The keg, if a free item's bytes are nobody's: no init, not kept from use to use.
  package let keg: UnsafeMutablePointer<Keg>?

  package init(
    zone: UInt, name: UnsafePointer<CChar>, address: UInt, size: UInt, space: UInt,
    keg: UnsafeMutablePointer<Keg>?
  ) {
    self.zone = zone
    self.name = name
    self.address = address
    self.size = size
    self.space = space
    self.keg = keg
  }
}

/// Misuse that has no item.
package enum ZoneMisuse: UInt32 {
  case destroyedZone = 0
  case bothWaits
  case noWait
}

package struct ZoneChecks {
  /// malloc and free as the program has them. 0: no memory.
  package var allocate: (@convention(c) (_ size: UInt) -> UInt)?
  package var free: (@convention(c) (_ address: UInt) -> Void)?
  /// An item on its way to the program, before its constructor; the argument is the
  /// address of a `ZoneItem`.
  package var gives: (@convention(c) (_ item: UInt) -> Void)?
  /// The program frees an item; before its destructor. False: it may not; it was
  /// reported, and nothing more shall be done.
  package var takes: (@convention(c) (_ item: UInt) -> Bool)?
  /// The same item, destroyed: nobody may use it.
  package var tookBack: (@convention(c) (_ item: UInt) -> Void)?
  /// A zone that is to be destroyed has items in use.
  package var inUse: (@convention(c) (_ zone: UInt) -> Void)?
  /// The zone is destroyed.
  package var forgets: (@convention(c) (_ zone: UInt) -> Void)?
  /// False: it is not reported.
  package var misuse: (@convention(c) (_ what: UInt32, _ zone: UInt) -> Bool)?

  package init() {}
}

/// Set by the debug library's boot, before the first zone is made.
package var zoneChecks: UnsafeMutablePointer<ZoneChecks> {
  withUnsafeMutablePointer(to: &process.pointee.zoneChecks) { $0 }
}

/// malloc and free as the program has them, for what zones keep in blocks.
package func allocateForProgram(_ size: UInt) -> UInt {
  if isRunning, let allocate = zoneChecks.pointee.allocate { return allocate(size) }
  return allocateBytes(size)
}

package func freeForProgram(_ address: UInt) {
  if isRunning, let free = zoneChecks.pointee.free { return free(address) }
  freeBytes(address)
}
