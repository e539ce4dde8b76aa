// Checks.swift: zones under the debug library.
//
//   keg_zone_alloc ─▶ … item ─▶ gives ─▶ ZERO, ctor ─▶ the program
//   the program ─▶ keg_zone_free ─▶ takes ─▶ dtor ─▶ tookBack ─▶ …
//                                      └─▶ not live, or another zone's: reported, dropped
//
// What the checks are is Debug's affair (Malloc/ZoneChecks.swift). They sit at the
// boundary of the API, before any cache, so that an item in an array is as checked as
// any. Zones of malloc give what malloc gives.

import Base
import Keg
import Malloc
import Zone

/// Whether zones that are made now shall be checked. False in the fast library.
var zonesAreChecked: Bool { zoneChecks.pointee.gives != nil }

/// Whether malloc is not the core's own.
var mallocIsChecked: Bool { zoneChecks.pointee.allocate != nil }

extension UnsafeMutablePointer where Pointee == Handle {
  @inline(__always)
  var isChecked: Bool { pointee.flags.contains(.checked) }

  /// What stands for an item in calls of the checks.
  private func checked(_ item: UInt) -> ZoneItem {
    let isForeign = pointee.flags.contains(.noTouch) || pointee.flags.contains(.cache)
    return ZoneItem(
      zone: address, name: name, address: item, size: pointee.zone.pointee.itemSize,
      space: isForeign ? address : 0, keg: kegOfTrash)
  }

  /// The keg, if nothing of a free item's bytes is to be kept.
  private var kegOfTrash: UnsafeMutablePointer<Keg>? {
    let kept = HandleFlags.noFree.union(.zeroInit).union(.cache)
    if pointee.flags.rawValue & kept.rawValue != 0 || hasFunctions { return nil }
    return keg
  }

  @inline(never)
  func noteGiven(_ item: UInt) {
    var checked = checked(item)
    withUnsafeMutablePointer(to: &checked) { zoneChecks.pointee.gives?($0.address) }
  }

  /// False: the item may not be freed here.
  @inline(never)
  func mayTake(_ item: UInt) -> Bool {
    var checked = checked(item)
    return withUnsafeMutablePointer(to: &checked) { zoneChecks.pointee.takes?($0.address) ?? true }
  }

  @inline(never)
  func noteTaken(_ item: UInt) {
    var checked = checked(item)
    withUnsafeMutablePointer(to: &checked) { zoneChecks.pointee.tookBack?($0.address) }
  }

  func reportsMisuse(_ what: ZoneMisuse) -> Bool {
    zoneChecks.pointee.misuse?(what.rawValue, address) ?? false
  }
}
