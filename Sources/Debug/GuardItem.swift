// GuardItem.swift: which items get guard pages, and the checks of those that do.
//
//   guard:right      | red zone | item |G|       overflow and over-read fault
//   guard:left     |G| item | red zone |         underflow and under-read fault
//
// With `guard_align:natural` an item on the right is aligned to the largest power of
// two, up to 16, that divides its size: its last byte is the last of the page. A type's
// size is a multiple of its alignment, so that is enough for what lies in it; but not
// for every program that packs more behind a header, hence `16`, and `auto` for CPython and
// Swift.

import Base
import DebugPlatform
import Keg
import Malloc
import Pages
import Platform
import SizeClass

struct GuardChoice {
  enum Which: UInt32 {
    case none = 0
    case all
    case sample
    case sizes
  }
  var which: Which = .none
  var isLeft = false
  /// GuardAlignMode.
  var alignment = GuardAlignMode.auto
  /// One in so many; or the sizes, both included.
  var every: UInt = 0
  var least: UInt = 0
  var most: UInt = 0

  /// Understands the option's value. False: it makes no sense.
  mutating func read(_ text: UnsafePointer<CChar>) -> Bool {
    if equals(text, "off") { return true }
    if equals(text, "right") {
      which = .all
      return true
    }
    if equals(text, "left") {
      which = .all
      isLeft = true
      return true
    }
    if let rest = behind(text, "sample:"), let number = number(rest), number.end[0] == 0, number.value > 0 {
      which = .sample
      every = number.value
      return true
    }
    if let rest = behind(text, "size:"), let first = number(rest), first.end[0] == 0x2D,
      let last = number(first.end + 1), last.end[0] == 0, first.value <= last.value
    {
      which = .sizes
      least = first.value
      most = last.value
      return true
    }
    if equals(text, "zone:large") {
      which = .sizes
      least = SizeClass.largest &+ 1
      most = Core.greatest
      return true
    }
    if let rest = behind(text, "zone:malloc-"), let size = number(rest), size.end[0] == 0,
      size.value > 0, size.value <= SizeClass.largest,
      SizeClass.size(of: SizeClass.index(of: size.value)) == size.value
    {
      which = .sizes
      let index = SizeClass.index(of: size.value)
      least = index == 1 ? 0 : SizeClass.size(of: index &- 1) &+ 1
      most = size.value
      return true
    }
    return false
  }

  private func equals(_ text: UnsafePointer<CChar>, _ word: StaticString) -> Bool {
    behind(text, word).map { $0[0] == 0 } ?? false
  }

  private func behind(_ text: UnsafePointer<CChar>, _ word: StaticString) -> UnsafePointer<CChar>? {
    var i = 0
    while i < word.utf8CodeUnitCount {
      if UInt8(bitPattern: text[i]) != word.utf8Start[i] { return nil }
      i &+= 1
    }
    return text + i
  }

  private func number(_ text: UnsafePointer<CChar>)
    -> (value: UInt, end: UnsafePointer<CChar>)?
  {
    var value: UInt = 0
    var i = 0
    while i < 18, text[i] >= 0x30, text[i] <= 0x39 {
      value = value &* 10 &+ UInt(text[i]) &- 0x30
      i &+= 1
    }
    return i == 0 ? nil : (value, text + i)
  }
}

/// Reads the option and makes the arena. Called once at boot.
func bootGuard() {
  let text = Core.option(.debugGuard)
  if text == 0 { return }
  if !debug.pointee.guardChoice.read(text.pointer(to: CChar.self)) {
    var line = Text(to: debug.pointee.errorDescriptor)
    line.append("kegmalloc: guard: expected off, right, left, sample:N, zone:NAME or size:A-B; ignored\n")
    line.flush()
    return
  }
  if debug.pointee.guardChoice.which == .none { return }
  var alignment = Core.option(.debugGuardAlign)
  if alignment == GuardAlignMode.auto {
    if keg_debug_has_swift() {
      alignment = GuardAlignMode.sixteen
    } else if !keg_debug_has_cpython() {
      alignment = GuardAlignMode.natural
    }
  }
  debug.pointee.guardChoice.alignment = alignment
  let limit = Core.option(.debugGuardLimit)
  let bytes = limit == 0 ? keg_debug_memory_bytes() / 4 : limit &<< 20
  if !debug.pointee.guardArena.boot(limit: bytes, source: Core.heap.pointee.reservation.source) {
    debug.pointee.guardChoice.which = .none
  }
}

/// Whether an allocation gets guard pages.
@inline(__always)
func isGuarded(_ size: UInt) -> Bool {
  if _fastPath(debug.pointee.guardChoice.which == .none) { return false }
  return isChosen(size)
}

@inline(never)
private func isChosen(_ size: UInt) -> Bool {
  switch debug.pointee.guardChoice.which {
  case .none: return false
  case .all: return true
  case .sample: return randomNumber() % debug.pointee.guardChoice.every == 0
  case .sizes: return size >= debug.pointee.guardChoice.least && size <= debug.pointee.guardChoice.most
  }
}

/// xorshift, per thread.
func randomNumber() -> UInt {
  let thread = keg_debug_thread()
  var x = thread.pointee.random
  if x == 0 { x = UInt64(thread.pointee.id) &* 0x9E37_79B9_7F4A_7C15 | 1 }
  x ^= x &<< 13
  x ^= x &>> 7
  x ^= x &<< 17
  thread.pointee.random = x
  return UInt(x &>> 11)
}

/// An item between guard pages, or 0: it has to be an ordinary one. In `.straight`.
@inline(never)
func allocateGuarded(
  _ size: UInt, _ alignment: UInt, _ kind: AllocationKind, _ zeroed: Bool
) -> UInt {
  if alignment > GuardArena.page || size > 1 &<< 40 { return 0 }
  let source = Core.heap.pointee.reservation.source
  debug.pointee.guardLock.lock()
  let room = debug.pointee.guardArena.allocate(size, source: source)
  debug.pointee.guardLock.unlock()
  guard let (slot, start) = room else { return 0 }
  let end = start &+ UInt(slot.pointee.pageCount) &* GuardArena.page
  let user = debug.pointee.guardChoice.isLeft ? start : place(size, alignment, kind, end)
  slot.pointee.offset = user &- start
  // The zone on the open side. Of a large item a page of it is enough.
  writeZone(max(start, user &- min(user &- start, GuardArena.page)), user)
  writeZone(user &+ size, min(end, user &+ size &+ GuardArena.page))
  // Pages are zero when they are taken.
  if !zeroed { fill(user, user &+ size, false, isZero: true) }
  let record = slot.address.pointer(to: Record.self)
  note(record, size)
  record.set(.live, kind: kind, guardedBy: alignment, epoch: debug.pointee.epoch)
  if kind.isOne, user &- start >= 8, user & 7 == 0 { writeCount(user) }
  return user
}

/// Where an item on the right starts. An alignment that was asked for is kept.
private func place(_ size: UInt, _ alignment: UInt, _ kind: AllocationKind, _ end: UInt) -> UInt {
  var alignment = alignment
  let mode = debug.pointee.guardChoice.alignment
  if !kind.isAligned, mode != GuardAlignMode.sixteen, size != 0 {
    alignment = min(16, size & (0 &- size))
    // CPython insists on even addresses for its code, which lies in objects of odd size.
    if alignment == 1, size > 32, mode == GuardAlignMode.auto { alignment = 2 }
  }
  return (end &- size) & ~(alignment &- 1)
}

/// Frees an item between guard pages that is `.busy`. In `.straight`.
@inline(never)
func retireGuarded(_ item: Item, _ stack: PendingStack) {
  let record = item.record
  record.freeThread = keg_debug_thread().pointee.id
  record.pointee.freeStack = finishStack(stack)
  countFree()
  debug.pointee.guardLock.lock()
  record.set(.freed, hasTrash: false)
  debug.pointee.guardArena.free(record.address.pointer(to: GuardSlot.self))
  debug.pointee.guardLock.unlock()
}

/// Damage to the red zone before a guarded item, and to the one behind it: one of them is
/// the open side, the other the gap that an alignment leaves.
func damageBefore(_ item: Item) -> Damage? {
  damageOfZone(item.user &- min(item.user &- item.slot, GuardArena.page), item.user)
}

func damageBehind(_ item: Item) -> Damage? {
  damageOfZone(item.userEnd, endOfRightZone(item))
}

private func endOfRightZone(_ item: Item) -> UInt {
  min(item.end, item.userEnd &+ GuardArena.page)
}

/// Notes that a write past the bounds of a guarded item is reported before it is made.
func noteFault(_ item: Item) {
  item.record.address.pointer(to: GuardSlot.self).pointee.hasFaulted = true
}

/// Checks the red zones of a guarded item.
@inline(never)
func checkGuardedZones(_ item: Item, _ occasion: Occasion) {
  if item.record.address.pointer(to: GuardSlot.self).pointee.hasFaulted { return }
  if let damage = damageBefore(item) {
    reportDamage(.underflow, damage, item, occasion)
    writeZone(damage.start, item.user)
  }
  if let damage = damageBehind(item) {
    reportDamage(.overflow, damage, item, occasion)
    writeZone(item.userEnd, endOfRightZone(item))
  }
}
