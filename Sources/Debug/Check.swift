// Check.swift: are the bytes around and in an item what they should be?
//
//   A's bytes | right zone of A (and left zone of B) | B's bytes | right zone of B | …
//              ▲──────── whose overflow? ────────────▲
//
// Damage to a zone between two items belongs to the item that it is nearer to, or that
// it goes on from without a gap. What was reported is repaired, so that one wrong
// write is one report.

import Base
import DebugPlatform
import Keg
import Malloc

/// When damage came to light, for the report.
enum Occasion {
  case freeing
  case reusing
  case checking
}

/// Checks both zones of an item that is the program's or was just freed by it.
@inline(__always)
func checkZones(_ item: Item, _ occasion: Occasion) {
  if _slowPath(item.isGuarded) { return checkGuardedZones(item, occasion) }
  // Of a shared zone only a free looks at the end that is the item's: the whole of it is
  // checked with the item before. That one's memory need not be in the cache.
  if occasion == .freeing || item.record.leftZone != 0,
    let damage = damageOfZone(item.leftStart, item.user)
  {
    reportLeft(damage, item, occasion)
  }
  if let damage = damageOfZone(item.userEnd, item.end) { reportRight(damage, item, occasion) }
}

/// Checks an item that nobody may use: its zones and the trash between them.
@inline(__always)
func checkFree(_ item: Item) {
  checkZones(item, .reusing)
  if item.record.hasTrash, let damage = damageOfTrash(Trash.freed, item.user, item.userEnd) {
    reportTrash(damage, item)
  }
}

/// Damage to the left zone of `item`: its own underflow, or the overflow of the one before.
@inline(never)
private func reportLeft(_ damage: Damage, _ item: Item, _ occasion: Occasion) {
  if let before = item.neighbour(-1), let gap = damageOfZone(before.userEnd, item.user),
    gap.start &- before.userEnd <= item.user &- gap.end
  {
    reportDamage(.overflow, gap, before, occasion)
    writeZone(before.userEnd, item.user)
    return
  }
  reportDamage(.underflow, damage, item, occasion)
  writeZone(item.leftStart, item.user)
}

/// Damage to the right zone of `item`: its overflow, or the underflow of the next.
@inline(never)
private func reportRight(_ damage: Damage, _ item: Item, _ occasion: Occasion) {
  if let next = item.neighbour(1), next.record.state == .live || next.record.pointee.freeThread != 0,
    let gap = damageOfZone(item.userEnd, next.user),
    next.user &- gap.end < gap.start &- item.userEnd
  {
    reportDamage(.underflow, gap, next, occasion)
    writeZone(item.userEnd, next.user)
    return
  }
  reportDamage(.overflow, damage, item, occasion)
  writeZone(item.userEnd, item.end)
}

/// Damage to the trash in a freed item: somebody wrote after the free. Without a
/// free on record nobody ever had it: then it is what ran over from the item before.
@inline(never)
private func reportTrash(_ damage: Damage, _ item: Item) {
  if item.record.pointee.freeThread == 0, let before = item.neighbour(-1) {
    reportDamage(.overflow, damage, before, .reusing)
  } else {
    reportDamage(.useAfterFree, damage, item, .reusing)
  }
  writeTrash(Trash.freed, item.user, item.userEnd)
}

/// Checks every item there is, while no thread changes one.
func validateAll() {
  adoptOrphans()
  withOthersOutside {
    forEachItem { item in
      switch item.record.state {
      case .live: checkZones(item, .checking)
      case .freed, .free: if !item.isGuarded { checkFree(item) }
      default: break
      }
    }
  }
}
