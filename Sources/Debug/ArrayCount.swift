// ArrayCount.swift: delete[] of what is no array, or no array any more.
//
//   new T[n]         | n | T | T | …     n is the compiler's, before the first element, when T
//                        ▲ p             has a destructor (Itanium C++ ABI, 2.7: array cookies)
//   delete[] p       reads n, runs n destructors, and only then comes to us, with &n
//
//   live new T       … red zone | 0 | T …        the last word of the zone before it
//   freed new T[n]   | 0 | trash | …             the first word of it
//
// With a count of 0 no destructor runs over memory that is none of p's, and the call is
// reported for what it is. Any other word there ends the process, or keeps it busy for ever,
// before anybody hears of it.

import Base
import Keg
import Malloc

extension AllocationKind {
  /// Whether operator new gave it, and not new[].
  @inline(__always)
  var isOne: Bool { self == .new || self == .alignedNew }

  fileprivate var isArray: Bool { self == .newArray || self == .alignedNewArray }
}

/// Says that there is no array at `user`, an item of `new` that has just become live.
/// - Precondition: `user` is a multiple of 8, and the word before it red zone.
@inline(__always)
func writeCount(_ user: UInt) { (user &- 8).word = 0 }

/// Makes the count before an item of `new` red zone again, before it ceases to be live.
@inline(__always)
func removeCount(_ user: UInt) { (user &- 8).word = zoneWord(user &- 8) }

extension Item {
  /// Whether the item is one of `new` and may have a count before it.
  @inline(__always)
  fileprivate var isCounted: Bool {
    let state = record.state
    return (state == .live || state == .busy) && record.kind.isOne
  }

  /// Whether the slot behind this one has such an item at its start.
  @inline(never)
  var isBeforeCounted: Bool {
    guard let slab else { return false }
    let next = record.address &+ Record.byteCount
    let end = slab.pointee.records &+ slab.pointee.keg.pointee.layout.itemCount &* Record.byteCount
    if next >= end { return false }
    let item = Item(
      record: next.pointer(to: Record.self), slot: self.end, capacity: capacity, slab: slab)
    return item.isCounted && item.record.leftZone == 0
  }
}

// What sharing items are asked at every turn; `size` is what they hold, or held.
extension Item {
  /// Whether what is behind an item that shares its zones is red zone.
  @inline(__always)
  func isBeforeZone(_ size: UInt) -> Bool {
    isZone(slot &+ size, end) { isBeforeCounted }
  }

  /// The same, and the 16 bytes before the item, which is `.live` or `.busy`.
  @inline(never)
  func isBetweenZones(_ size: UInt) -> Bool {
    isZone(slot &- 16, slot) { record.kind.isOne } && isBeforeZone(size)
  }

  /// Whether the item holds the trash of freed memory, and has red zone behind it.
  @inline(never)
  func isTrashBeforeZone(_ size: UInt) -> Bool {
    isTrashAndZone(slot, size, end) { isBeforeCounted }
  }
}

/// Whether the zone that ends at `end` may end in a count: there is an item of `new` behind.
@inline(never)
func isCounted(_ end: UInt) -> Bool {
  // One that becomes live, or is freed, in between looks like damage.
  var tries = 0
  while tries < 4 {
    if case .item(let item) = place(of: end), item.isCounted, item.user == end { return true }
    if (end &- 8).word == zoneWord(end &- 8) { return false }
    tries &+= 1
  }
  return false
}

/// Whether `size` bytes of new[] begin with the count of their elements.
@inline(__always)
func beginsWithCount(_ user: UInt, _ size: UInt) -> Bool {
  if size < 8 { return false }
  let count = user.word
  return count != 0 && count <= size && (size &- 8) % count == 0
}

/// What somebody wrote to a freed item.
func damageOfFreed(_ item: Item) -> Damage? {
  let user = item.user
  let start = item.record.hasCount && user.word == 0 ? user &+ 8 : user
  return damageOfTrash(Trash.freed, start, item.userEnd)
}

/// The live item, no array of new[], that delete[] was meant for when it got the address of
/// a count: of `new`, or of malloc where the count is read by nobody or runs no destructor.
@inline(never)
func itemWithoutCount(countedAt address: UInt, _ claim: Claim) -> Item? {
  if claim.call != .deleteArray { return nil }
  // Behind the count: elements of the usual alignment, of 16 bytes, of a greater one.
  return itemWithoutCount(at: address &+ 8)
    ?? itemWithoutCount(at: address &+ max(claim.alignment ?? 0, 16))
}

private func itemWithoutCount(at user: UInt) -> Item? {
  guard case .item(let item) = place(of: user), item.user == user, item.record.state == .live,
    !item.record.kind.isArray
  else { return nil }
  return item
}
