// ZoneMisuse.swift: the checks on items of zones, and what they report (class `zone`).
//
//   gives      trash still whole?   ─▶ live, with the stack of the allocation
//   takes      live? this zone's?   ─▶ freed, with the stack of the free
//   tookBack   (destructor is done) ─▶ trash
//   inUse      a zone is destroyed: its live items, one report for each allocating stack
//
// After a report a free does nothing: the item stays as it was.

import Base
import DebugPlatform
import Keg
import Malloc
import Platform

/// Connects the layer to zones. Called at boot, before a zone is made.
func bootZoneChecks() {
  let checks = zoneChecks
  checks.pointee.allocate = { UInt(bitPattern: keg_debug_malloc($0)) }
  checks.pointee.free = { keg_debug_free(UnsafeMutableRawPointer(bitPattern: $0)) }
  // A sample is for production: there zones cost what they cost.
  if debug.pointee.sampleEvery > 1 { return }
  checks.pointee.gives = { gives($0.pointer(to: ZoneItem.self)) }
  checks.pointee.takes = { takes($0.pointer(to: ZoneItem.self)) }
  checks.pointee.tookBack = { tookBack($0.pointer(to: ZoneItem.self)) }
  checks.pointee.inUse = { reportInUse($0) }
  checks.pointee.forgets = { zone in withZoneItems { $0.pointee.forget(zone) } }
  checks.pointee.misuse = { what, zone in
    guard let what = ZoneMisuse(rawValue: what) else { return false }
    return inDebug { report(Finding(.zone, phrase(what), at: zone)) }
  }
}

/// Runs `body` inside; false, and not at all, for a handler over a call of ours.
@inline(__always)
private func inDebug(_ body: () -> Void) -> Bool {
  guard case .straight = enterDebug() else { return false }
  body()
  leaveDebug()
  return true
}

private func phrase(_ what: ZoneMisuse) -> StaticString {
  switch what {
  case .destroyedZone: "use of a destroyed zone"
  case .bothWaits: "allocation with both KEG_WAITOK and KEG_NOWAIT"
  case .noWait: "allocation with neither KEG_WAITOK nor KEG_NOWAIT"
  }
}

// MARK: - Giving

private func gives(_ item: UnsafeMutablePointer<ZoneItem>) {
  _ = inDebug {
    var entry: ZoneEntryPointer? = nil
    var wasLive = false
    withZoneItems { items in
      entry = items.pointee.entry(item.pointee)
      guard let entry else { return }
      wasLive = entry.record.change(from: .freed, to: .busy) != .freed
        && entry.record.state == .live
    }
    guard let entry else { return }
    if wasLive {
      // Only an import of the program's can do that.
      return report(finding("import of an item that is in use", entry))
    }
    checkTrash(entry, item.pointee.keg)
    entry.pointee.zone = item.pointee.zone
    entry.pointee.name = item.pointee.name
    note(entry.record, item.pointee.size)
    entry.record.set(
      .live, kind: .zone, alignment: 16, hasLeftZone: false, hasTrash: false,
      epoch: debug.pointee.epoch)
  }
}

/// Looks whether a free item was written to.
private func checkTrash(_ entry: ZoneEntryPointer, _ keg: UnsafeMutablePointer<Keg>?) {
  guard entry.record.hasTrash, let keg, entry.pointee.slabsGone == keg.pointee.slabsReturned else { return }
  let start = entry.pointee.address
  guard let damage = damageOfTrash(Trash.freed, start, start &+ entry.record.size) else { return }
  var finding = Finding(.useAfterFree, "write to a freed item of a zone", at: damage.start, entry.item)
  finding.zone = entry.pointee.name
  finding.access = .write
  finding.damage = damage
  report(finding)
}

// MARK: - Taking

private func takes(_ item: UnsafeMutablePointer<ZoneItem>) -> Bool {
  var isRight = true
  _ = inDebug { isRight = take(item.pointee) }
  return isRight
}

private func take(_ item: ZoneItem) -> Bool {
  guard let entry = withZoneItems({ $0.pointee.find(item.space, item.address) }) else {
    if debug.pointee.zoneItems.isIncomplete { return true }
    reportStranger(item)
    return false
  }
  if entry.pointee.zone != item.zone, entry.record.state == .live {
    var finding = finding("item of another zone freed", entry)
    finding.givenTo = item.name
    report(finding)
    return false
  }
  // Of two frees one goes on.
  guard entry.record.change(from: .live, to: .busy) == .live else {
    var finding = Finding(.doubleFree, "second free of an item of a zone", at: item.address, entry.item)
    finding.zone = entry.pointee.name
    report(finding)
    return false
  }
  let record = entry.record
  record.freeThread = keg_debug_thread().pointee.id
  record.pointee.freeStack = captureStack()
  countFree()
  record.set(.freed, hasTrash: false)
  return true
}

private func tookBack(_ item: UnsafeMutablePointer<ZoneItem>) {
  guard let keg = item.pointee.keg, debug.pointee.isTrashing, item.pointee.address & 7 == 0 else { return }
  _ = inDebug {
    let address = item.pointee.address
    guard let entry = withZoneItems({ $0.pointee.find(0, address) }) else { return }
    writeTrash(Trash.freed, address, address &+ entry.record.size)
    entry.pointee.slabsGone = keg.pointee.slabsReturned
    entry.record.set(.freed, hasTrash: true)
  }
}

// MARK: - Reports

private func finding(_ what: StaticString, _ entry: ZoneEntryPointer) -> Finding {
  var finding = Finding(.zone, what, at: entry.pointee.address, entry.item)
  finding.zone = entry.pointee.name
  return finding
}

/// A free of what the zone never gave.
private func reportStranger(_ item: ZoneItem) {
  var finding: Finding
  if item.space == 0, let entry = zoneEntry(of: item.address) {
    finding = Finding(.zone, "free of a pointer that is not the start of an item", at: item.address, entry.item)
    finding.zone = entry.pointee.name
  } else if item.space == 0, case .item(let block) = place(of: item.address), block.record.allocationThread != 0 {
    finding = Finding(.zone, "memory of malloc given to keg_zone_free", at: item.address, block)
  } else {
    finding = Finding(.zone, "free of an item that the zone never gave", at: item.address)
  }
  finding.givenTo = item.name
  report(finding)
}

/// free(3) of an item of a zone. False: it is none.
func reportFreeOfZoneItem(_ address: UInt) -> Bool {
  guard let entry = zoneEntry(of: address) else { return false }
  var finding = Finding(.zone, "item of a zone given to free", at: address, entry.item)
  finding.zone = entry.pointee.name
  report(finding)
  return true
}

private func reportInUse(_ zone: UInt) {
  _ = inDebug {
    var bucket: UInt = 0
    var depth: UInt = 0
    while let entry = withZoneItems({ $0.pointee.nextLive(zone, &bucket, &depth) }) {
      report(finding("item in use in a zone that is destroyed", entry))
    }
  }
}
