// Check.swift: are the bytes around and in an item what they should be?
//
//   A's bytes | right zone of A (and left zone of B) | B's bytes | right zone of B | …
//              ▲──────── whose overflow? ────────────▲
//
// Damage to a zone between two items belongs to the item that it is nearer to, or that
// it goes on from without a gap; what goes on through the slots behind is part of it.
// What was reported is repaired, so that one wrong write is one report.

import Base
import DebugPlatform
import Keg
import Malloc
import Pages
import Vmem

/// When damage came to light, for the report.
enum Occasion {
  case freeing
  case reusing
  case checking
}

/// Checks both zones of an item that is the program's or was just freed by it.
@inline(never)
func checkZones(_ item: Item, _ occasion: Occasion) {
  if item.slab != nil, item.record.sharesZones,
    occasion == .freeing
      ? item.isBetweenZones(item.record.size) : item.isBeforeZone(item.record.size)
  {
    return
  }
  if _slowPath(item.isGuarded) { return checkGuardedZones(item, occasion) }
  // Of a shared zone only a free looks at the end that is the item's: the whole of it is
  // checked with the item before. That one's memory need not be in the cache.
  if occasion == .freeing || item.record.leftZone != 0,
    let damage = damageOfZone(item.leftStart, item.user)
  {
    reportLeft(damage, item, occasion)
  }
  if let damage = damageOfZone(item.userEnd, item.end) { reportRight(damage, item, occasion) }
  if _slowPath(item.slab == nil) { checkEmpty(item.end, item.spanEnd) }
}

/// Checks an item that nobody may use: its zones and the trash between them.
@inline(never)
func checkFree(_ item: Item) {
  if item.slab != nil, item.record.sharesZones, item.record.hasTrash,
    item.isTrashBeforeZone(item.record.size)
  {
    return
  }
  if _slowPath(item.slab == nil), item.record.isPurged { return checkPurged(item) }
  checkZones(item, .reusing)
  if item.record.hasTrash, let damage = damageOfFreed(item) {
    reportTrash(damage, item)
  }
}

/// Checks a large block whose pages went back to the kernel when it was freed.
private func checkPurged(_ item: Item) {
  guard let damage = damageOfZeros(item.slot, item.spanEnd) else { return }
  reportDamage(.useAfterFree, damage, item, .reusing)
  writeTrash(0, damage.start & ~7, damage.end)
}

/// Damage to the left zone of `item`: its own underflow, or the overflow of the one before.
@inline(never)
private func reportLeft(_ damage: Damage, _ item: Item, _ occasion: Occasion) {
  if let before = item.neighbour(-1), let gap = damageOfZone(before.userEnd, item.user),
    gap.start &- before.userEnd <= item.user &- gap.end
  {
    reportRun(gap, before, occasion)
    return
  }
  reportDamage(.underflow, damage, item, occasion)
  writeZone(item.leftStart, item.user)
}

/// Damage to the right zone of `item`: its overflow, or the underflow of the next.
@inline(never)
private func reportRight(_ damage: Damage, _ item: Item, _ occasion: Occasion) {
  if let next = item.neighbour(1), next.record.state == .live || next.record.freeThread != 0,
    let gap = damageOfZone(item.userEnd, next.user),
    next.user &- gap.end < gap.start &- item.userEnd
  {
    reportDamage(.underflow, gap, next, occasion)
    writeZone(item.userEnd, next.user)
    return
  }
  reportRun(damage, item, occasion)
}

/// Reports the overflow of an item, with what of it went through the slots behind; then
/// repairs it all.
private func reportRun(_ damage: Damage, _ item: Item, _ occasion: Occasion) {
  var run = damage
  run.end = followRun(damage.end, from: item, repairs: false)
  if item.record.state != .free || item.record.freeThread != 0 {
    reportDamage(.overflow, run, item, occasion)
  } else {
    // Nobody ever had this slot.
    if let damage = damageOfFreed(item) { run.start = damage.start }
    reportStray(run, occasion)
    writeTrash(Trash.freed, item.user, item.userEnd)
  }
  writeZone(item.userEnd, item.end)
  _ = followRun(damage.end, from: item, repairs: true)
}

/// Where a run ends that reached `end` in the right zone of `item`.
private func followRun(_ end: UInt, from item: Item, repairs: Bool) -> UInt {
  var end = end
  var here = item
  while end == here.end, let next = here.slotBehind {
    // What is in a live block nobody knows: its zone tells whether the run went through.
    guard let nextEnd = endOfRun(in: next, repairs: repairs) else { break }
    end = nextEnd
    here = next
  }
  if end == item.end, item.slab == nil, let rest = damageOfZeros(item.end, item.spanEnd) {
    end = rest.end
    if repairs { writeTrash(0, item.end, rest.end) }
  }
  return end
}

/// Where a run that reached the start of a slot ends in it, or nil: before it.
private func endOfRun(in item: Item, repairs: Bool) -> UInt? {
  let state = item.record.state
  if state == .untouched || state == .preparing {
    guard let slab = item.slab, isClean(slab),
      let damage = nonzero(item.slot, item.end), damage.start &- item.slot < 8
    else { return nil }
    if repairs { writeTrash(0, item.slot, damage.end) }
    return damage.end
  }
  if item.record.leftZone != 0 {
    guard let zone = damageOfZone(item.leftStart, item.user), zone.start == item.slot
    else { return nil }
    if repairs { writeZone(item.leftStart, item.user) }
    if zone.end != item.user { return zone.end }
  }
  let isLive = state == .live || state == .busy
  if !isLive {
    guard item.record.hasTrash else { return nil }
    if let damage = damageOfFreed(item) {
      if damage.start &- item.user >= 8 { return nil }
      if repairs { writeTrash(Trash.freed, item.user, item.userEnd) }
      if item.userEnd &- damage.end >= 8 { return damage.end }
    } else if item.userEnd != item.user {
      return nil
    }
  }
  guard let zone = damageOfZone(item.userEnd, item.end), zone.start == item.userEnd
  else { return isLive ? nil : item.userEnd }
  if repairs { writeZone(item.userEnd, item.end) }
  return zone.end
}

/// Damage to the trash in a freed item: somebody wrote after the free, or ran over from
/// an item before. Nobody ever had one without a free on record.
@inline(never)
private func reportTrash(_ damage: Damage, _ item: Item) {
  if damage.start &- item.user < 8, let origin = originOfRun(before: item),
    let zone = damageOfZone(origin.userEnd, origin.end)
  {
    reportRun(zone, origin, .reusing)
    writeTrash(Trash.freed, item.user, item.userEnd)
    return
  }
  if item.record.freeThread == 0 {
    reportStray(damage)
  } else {
    reportDamage(.useAfterFree, damage, item, .reusing)
  }
  writeTrash(Trash.freed, item.user, item.userEnd)
}

/// The item whose overflow ran up to the start of `item`, if there is one.
private func originOfRun(before item: Item) -> Item? {
  var here = item
  while let before = here.neighbour(-1),
    let zone = damageOfZone(before.userEnd, before.end), zone.end == before.end
  {
    let state = before.record.state
    if state != .free, state != .freed { return before }
    if before.record.hasTrash,
      let damage = damageOfFreed(before)
    {
      // Through it, or from inside it.
      if damage.start &- before.user >= 8 { return nil }
    } else {
      return before.record.freeThread != 0 ? before : nil
    }
    here = before
  }
  return nil
}

/// Checks the end of a slab's margin, which is the left zone of its first slot and no
/// other item's.
private func checkMargin(before item: Item) {
  guard let slab = item.slab, slab.pointee.base == item.slot, slab.start != item.slot,
    item.record.leftZone == 0, item.record.state != .untouched, item.record.state != .preparing,
    let damage = damageOfZone(item.leftStart, item.user)
  else { return }
  reportLeft(damage, item, .checking)
}

/// Checks every item there is, and what lies between them, while no thread changes one.
func validateAll() {
  adoptOrphans()
  withOthersOutside {
    forEachItem { item in
      checkMargin(before: item)
      switch item.record.state {
      case .live: checkZones(item, .checking)
      case .freed, .free: if !item.isGuarded { checkFree(item) }
      default: break
      }
    }
    let margin = debug.pointee.margin
    if margin != 0 { checkEmpty(margin, margin &+ Chunk.size) }
    forEachSlab { if isClean($0) { checkUntouched($0) } }
    checkFreeSpans()
  }
}
