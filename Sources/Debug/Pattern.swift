// Pattern.swift: the bytes that stand where the program has nothing to write.
//
//   red zone    a hash of the address of each byte (NetBSD kmem_redzone, P12)
//   freed       0xdeadc0de   (uma_dbg, D01)          of freed memory
//   allocated   0xbaddcafe   (libumem, L11)          of fresh memory
//
// A byte of a red zone is 0x80 … 0xbf: never the NUL that ends a string one byte too
// far, never a letter, never -1. Everything goes by aligned words; the first and the
// last are masked, so that a zone may begin and end at any byte.

import Base

/// The word of the red zone at `address`, a multiple of 8.
@inline(__always)
func zoneWord(_ address: UInt) -> UInt {
  let hash = (address &>> 3) &* 0x9E37_79B9_7F4A_7C15
  return (hash ^ (hash &>> 32)) & 0x3F3F_3F3F_3F3F_3F3F | 0x8080_8080_8080_8080
}

enum Trash {
  static var freed: UInt { 0xDEAD_C0DE_DEAD_C0DE }
  static var allocated: UInt { 0xBADD_CAFE_BADD_CAFE }
}

/// The bits of the bytes at and above `address` in its word.
@inline(__always)
private func maskFrom(_ address: UInt) -> UInt { ~0 &<< ((address & 7) &* 8) }

@inline(__always)
private func write(_ word: UInt, _ mask: UInt, at address: UInt) {
  address.word = address.word & ~mask | word & mask
}

/// Calls `full` with every whole word of [start, end) and `part` with the cut ones.
@inline(__always)
private func forEachWord(
  _ start: UInt, _ end: UInt, part: (_ address: UInt, _ mask: UInt) -> Void,
  full: (_ address: UInt) -> Void
) {
  if start >= end { return }
  var address = start & ~7
  let last = end & ~7
  if address == last {
    part(address, maskFrom(start) & ~maskFrom(end))
    return
  }
  if address != start {
    part(address, maskFrom(start))
    address = address &+ 8
  }
  while address < last {
    full(address)
    address = address &+ 8
  }
  if last != end { part(last, ~maskFrom(end)) }
}

/// Writes the red zone of [start, end).
@inline(__always)
func writeZone(_ start: UInt, _ end: UInt) {
  forEachWord(start, end, part: { write(zoneWord($0), $1, at: $0) }, full: { $0.word = zoneWord($0) })
}

/// Writes trash to [start, end). - Precondition: start <= end.
@inline(__always)
func writeTrash(_ trash: UInt, _ start: UInt, _ end: UInt) {
  if _slowPath(start & 7 != 0) { return writeCutTrash(trash, start, end) }
  // Counted, so that the compiler does several at once.
  let count = Int(bitPattern: (end &- start) / 8)
  let words = start.pointer(to: UInt.self)
  var i = 0
  while i < count {
    words[i] = trash
    i &+= 1
  }
  if end & 7 != 0 { write(trash, ~maskFrom(end), at: end & ~7) }
}

@inline(never)
private func writeCutTrash(_ trash: UInt, _ start: UInt, _ end: UInt) {
  forEachWord(start, end, part: { write(trash, $1, at: $0) }, full: { $0.word = trash })
}

/// Whether [start, end) is red zone still. - Precondition: `end` is a multiple of 8, and
/// the zone is not empty.
@inline(__always)
func isZone(_ start: UInt, _ end: UInt) -> Bool {
  var address = start & ~7
  var difference = (address.word ^ zoneWord(address)) & maskFrom(start)
  address = address &+ 8
  while address < end {
    difference |= address.word ^ zoneWord(address)
    address = address &+ 8
  }
  return difference == 0
}

/// Whether [start, end) is trash still. - Precondition: `start` is a multiple of 8 and not above `end`.
@inline(__always)
func isTrash(_ trash: UInt, _ start: UInt, _ end: UInt) -> Bool {
  let count = Int(bitPattern: (end &- start) / 8)
  let words = start.pointer(to: UInt.self)
  var difference: UInt = 0
  var i = 0
  while i < count {
    difference |= words[i] ^ trash
    i &+= 1
  }
  if end & 7 != 0 { difference |= ((end & ~7).word ^ trash) & ~maskFrom(end) }
  return difference == 0
}

/// A run of bytes that are not what they were.
struct Damage {
  var start: UInt
  var end: UInt
}

/// The first and the last byte of [start, end) that differ from the red zone.
@inline(__always)
func damageOfZone(_ start: UInt, _ end: UInt) -> Damage? {
  var difference: UInt = 0
  forEachWord(
    start, end, part: { difference |= ($0.word ^ zoneWord($0)) & $1 },
    full: { difference |= $0.word ^ zoneWord($0) })
  return difference == 0 ? nil : findDamage(start, end) { UInt8(truncatingIfNeeded: zoneWord($0 & ~7) &>> (($0 & 7) &* 8)) }
}

/// The first and the last byte of [start, end) that differ from the trash.
@inline(__always)
func damageOfTrash(_ trash: UInt, _ start: UInt, _ end: UInt) -> Damage? {
  var difference: UInt = 0
  forEachWord(
    start, end, part: { difference |= ($0.word ^ trash) & $1 },
    full: { difference |= $0.word ^ trash })
  return difference == 0 ? nil : findDamage(start, end) { UInt8(truncatingIfNeeded: trash &>> (($0 & 7) &* 8)) }
}

@inline(never)
private func findDamage(_ start: UInt, _ end: UInt, _ expected: (UInt) -> UInt8) -> Damage? {
  var damage: Damage? = nil
  var address = start
  while address < end {
    if address.byte != expected(address) {
      if damage == nil { damage = Damage(start: address, end: address) }
      damage?.end = address &+ 1
    }
    address = address &+ 1
  }
  return damage
}

extension UInt {
  /// The byte stored at this address.
  @inline(__always)
  var byte: UInt8 { pointer(to: UInt8.self).pointee }
}
