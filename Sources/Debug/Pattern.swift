// Pattern.swift: the bytes that stand where the program has nothing to write.
//
//   red zone    a hash of the address of each byte (NetBSD kmem_redzone, P12)
//   freed       0xdeadc0de   (uma_dbg, D01)          of freed memory
//   allocated   0xbaddcafe   (libumem, L11)          of fresh memory
//
// A byte of a red zone is 0x80 … 0xbf: never the NUL that ends a string one byte too
// far, never a letter, never -1. One hash makes two words, as zones end at multiples of
// 16. Everything goes by aligned words; the first and the last are masked, so that a zone
// may begin and end at any byte.

import Base

private var zoneFactor: UInt { 0x9E37_79B9_7F4A_7C15 }
/// What the second word of 16 bytes of red zone differs from the first in.
private var zoneFlip: UInt { 0x152A_330F_2C19_0D3E }

/// The first of two words, of the number of its 16 bytes times `zoneFactor`.
@inline(__always)
private func spread(_ product: UInt) -> UInt {
  (product ^ (product &>> 32)) & 0x3F3F_3F3F_3F3F_3F3F | 0x8080_8080_8080_8080
}

/// The word of the red zone at `address`, a multiple of 8.
@inline(__always)
func zoneWord(_ address: UInt) -> UInt {
  spread((address &>> 4) &* zoneFactor) ^ (zoneFlip & (0 &- (address &>> 3 & 1)))
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

/// In what 16 bytes differ from the red zone.
@inline(__always)
private func pairDifference(_ address: UInt, _ product: UInt) -> UInt {
  let first = spread(product)
  return (address.word ^ first) | ((address &+ 8).word ^ (first ^ zoneFlip))
}

/// Whether [start, end) is red zone still, but for a count at its end (ArrayCount.swift) where
/// `mayCount` says so. - Precondition: `end` is a multiple of 16, and the zone has 16 bytes at
/// least.
@inline(__always)
func isZone(_ start: UInt, _ end: UInt, mayCount: () -> Bool) -> Bool {
  var at = end &- 16
  let last = (end &- 8).word
  var product = (at &>> 4) &* zoneFactor
  let word = spread(product)
  if _slowPath(last != word ^ zoneFlip), last != 0 || !mayCount() { return false }
  var difference = at.word ^ word
  while at &- start >= 16 {
    at = at &- 16
    product = product &- zoneFactor
    difference |= pairDifference(at, product)
  }
  if at == start { return difference == 0 }
  // The word that `start` lies in, and one behind it that is in the same 16 bytes.
  let first = spread(product &- zoneFactor)
  let second = (at &- 8).word ^ (first ^ zoneFlip)
  if start & 8 != 0 { return difference | (second & maskFrom(start)) == 0 }
  return difference | second | (((at &- 16).word ^ first) & maskFrom(start)) == 0
}

/// Whether a slot holds `size` bytes of the trash of freed memory, and red zone behind.
@inline(__always)
func isTrashAndZone(_ slot: UInt, _ size: UInt, _ end: UInt, mayCount: () -> Bool) -> Bool {
  var difference: UInt = 0
  var at = slot
  let whole = slot &+ (size & ~15)
  while at != whole {
    difference |= (at.word ^ Trash.freed) | ((at &+ 8).word ^ Trash.freed)
    at = at &+ 16
  }
  if size & 8 != 0 {
    difference |= at.word ^ Trash.freed
    at = at &+ 8
  }
  if size & 7 != 0 { difference |= (at.word ^ Trash.freed) & ~maskFrom(size) }
  return difference == 0 && isZone(slot &+ size, end, mayCount: mayCount)
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

/// The same as `writeTrash`, for few bytes from a multiple of 16 on.
@inline(__always)
func writeFewTrash(_ trash: UInt, _ start: UInt, _ size: UInt) {
  let two = SIMD2<UInt>(repeating: trash)
  var at = start
  let whole = start &+ (size & ~31)
  while at != whole {
    at.pointer(to: SIMD2<UInt>.self).pointee = two
    (at &+ 16).pointer(to: SIMD2<UInt>.self).pointee = two
    at = at &+ 32
  }
  if size & 16 != 0 {
    at.pointer(to: SIMD2<UInt>.self).pointee = two
    at = at &+ 16
  }
  if size & 8 != 0 {
    at.word = trash
    at = at &+ 8
  }
  if size & 7 != 0 { write(trash, ~maskFrom(size), at: at) }
}

/// A run of bytes that are not what they were.
struct Damage {
  var start: UInt
  var end: UInt
}

/// The first and the last byte of [start, end) that differ from the red zone, or from the count
/// at its end.
@inline(__always)
func damageOfZone(_ start: UInt, _ end: UInt) -> Damage? {
  var difference: UInt = 0
  forEachWord(
    start, end, part: { difference |= ($0.word ^ zoneWord($0)) & $1 },
    full: { difference |= $0.word ^ zoneWord($0) })
  return difference == 0 ? nil : findDamageOfZone(start, end)
}

@inline(never)
private func findDamageOfZone(_ start: UInt, _ end: UInt) -> Damage? {
  // A word of which a byte is as it was in a red zone was no count.
  let hasCount = end &- start >= 8 && !sharesByte((end &- 8).word, zoneWord(end &- 8)) && isCounted(end)
  return findDamage(start, end) {
    hasCount && end &- $0 <= 8 ? 0 : UInt8(truncatingIfNeeded: zoneWord($0 & ~7) &>> (($0 & 7) &* 8))
  }
}

/// Whether two words have the same byte somewhere.
private func sharesByte(_ one: UInt, _ other: UInt) -> Bool {
  var difference = one ^ other
  var left = 8
  while left > 0 {
    if difference & 0xFF == 0 { return true }
    difference = difference &>> 8
    left &-= 1
  }
  return false
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
