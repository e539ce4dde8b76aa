// GuardArena.swift: items with pages of their own, between pages that fault (D06).
//
//   |G|      item A|G|   item B     |G|     item C|G|··· never used ···
//          right ──▶ ends at the page; `left` starts at one
//
//   slots:  one GuardSlot for every page of the arena; the first page's is the item's,
//           the others' say how far back that is
//
// One reservation, committed in steps, never given back; so the number of mappings
// does not grow. Where the kernel has only mprotect for us it does: then the number of
// items is bounded, so that the program does not run out of mappings. Freed items fault
// at once, and their pages are used again as late as possible: a cursor moves through
// the arena until 4 GiB are behind it, and then the item that was freed first goes first.
//
// Lock: DebugState.guardLock.

import Base
import DebugPlatform
import Keg
import Malloc
import Pages
import Platform

struct GuardSlot: ~Copyable {
  /// First, so that a record's address is its slot's.
  var record: Record
  /// Its size, if it is great.
  var size: UInt
  /// Of the first page: the pages of the item, without its guard.
  var pageCount: UInt32
  /// Pages back to the first; 0 for that one.
  var back: UInt32
  /// The next slot of the same queue, as a page number plus one.
  var next: UInt32
  /// From the start of the first page to what the program got.
  var offset: UInt
  /// Of a freed item: its pages may hold something, as the kernel did not take them.
  var isDirty: Bool
  /// A write outside of the item has been reported that faulted: what it did to the item's
  /// red zone is no second finding.
  var hasFaulted: Bool

  static var byteCount: UInt { 64 }
}

struct GuardArena: ~Copyable {
  private(set) var start: UInt = 0
  private(set) var end: UInt = 0
  /// What has been made usable, and what has been handed out.
  private var committed: UInt = 0
  private(set) var cursor: UInt = 0
  fileprivate var slots: UInt = 0
  private var slotsCommitted: UInt = 0
  /// Freed slots by size class, first freed first; page numbers plus one.
  private var heads: InlineArray<256, UInt32> = InlineArray(repeating: 0)
  private var tails: InlineArray<256, UInt32> = InlineArray(repeating: 0)
  /// Pages of live items.
  private var livePages: UInt = 0
  private var liveItems: UInt = 0
  /// Whether mprotect was needed for any page.
  private var isProtected = false
  private var mostBytes: UInt = 0
  /// Whether guards were opened for who goes on after a fault.
  private var hasOpened = false
  /// Items in the arena so far, and those that the limit kept out.
  private(set) var guarded: UInt = 0
  private(set) var refused: UInt = 0

  init() {}

  static var page: UInt { 4096 }
  /// From here on addresses are used again. Page tables take 1/512 of it.
  private static var reuseFrom: UInt { 1 &<< 32 }

  /// Items at most when each splits a mapping; the kernel's own limit is 65530 of those.
  private static var mostSplits: UInt { 12_000 }

  /// Reserves the address space. False: there is none.
  mutating func boot(limit: UInt, source: PageSource) -> Bool {
    mostBytes = limit
    var size: UInt = 1 &<< 41
    while size >= 1 &<< 30 {
      start = source.reserve(size)
      if start != 0 { break }
      size /= 2
    }
    if start == 0 { return false }
    slots = source.reserve(size / Self.page &* GuardSlot.byteCount)
    if slots == 0 { return false }
    end = start &+ size
    committed = start
    cursor = start
    slotsCommitted = slots
    // The first page is a guard for the first item.
    return take(pages: 0, source) != nil
  }

  @inline(__always)
  func contains(_ address: UInt) -> Bool { address &- start < end &- start }

  @inline(__always)
  private func slot(at page: UInt) -> UnsafeMutablePointer<GuardSlot> {
    (slots &+ page &* GuardSlot.byteCount).pointer(to: GuardSlot.self)
  }

  /// Sizes of queues: exact up to 32 pages, then eight to each doubling.
  private static func classOf(_ pages: UInt) -> (index: Int, pages: UInt) {
    if pages <= 32 { return (Int(bitPattern: pages), pages) }
    let k = (pages &- 1).log2Floor
    let step = (1 as UInt) &<< (k &- 3)
    let rounded = pages.roundedUp(to: step)
    return (Int(bitPattern: 33 &+ (k &- 5) &* 8 &+ (rounded / step) &- 9), rounded)
  }

  /// Room for an item of `size` bytes, or nil: beyond the limit, or no memory.
  /// Called with the lock held.
  mutating func allocate(_ bytes: UInt, source: PageSource)
    -> (slot: UnsafeMutablePointer<GuardSlot>, start: UInt)?
  {
    let (index, pages) = Self.classOf(max(bytes.roundedUp(to: Self.page), Self.page) / Self.page)
    let tables = (cursor &- start) / 512 &+ (cursor &- start) / 64
    guard index < 256, (livePages &+ pages) &* Self.page &+ tables <= mostBytes,
      !isProtected || liveItems < Self.mostSplits
    else {
      refused &+= 1
      return nil
    }
    var page: UInt
    if cursor &- start >= Self.reuseFrom, heads[index] != 0 {
      page = UInt(heads[index]) &- 1
      let reused = slot(at: page)
      let address = start &+ page &* Self.page
      guard GuardPages.remove(address, pages &* Self.page, isProtected: isProtected) else {
        refused &+= 1
        return nil
      }
      if reused.pointee.isDirty {
        writeTrash(0, address, address &+ pages &* Self.page)
        reused.pointee.isDirty = false
      }
      heads[index] = reused.pointee.next
      if heads[index] == 0 { tails[index] = 0 }
    } else {
      guard let fresh = take(pages: pages, source) else {
        refused &+= 1
        return nil
      }
      page = fresh
      let first = slot(at: page)
      first.pointee.pageCount = UInt32(truncatingIfNeeded: pages)
      var i: UInt = 1
      while i <= pages {
        slot(at: page &+ i).pointee.back = UInt32(truncatingIfNeeded: i)
        i &+= 1
      }
    }
    livePages &+= pages
    liveItems &+= 1
    guarded &+= 1
    slot(at: page).pointee.hasFaulted = false
    return (slot(at: page), start &+ page &* Self.page)
  }

  /// Pages at the cursor and a guard behind them. - Returns: the first page's number.
  private mutating func take(pages: UInt, _ source: PageSource) -> UInt? {
    let bytes = (pages &+ 1) &* Self.page
    if cursor &+ bytes > end { return nil }
    if cursor &+ bytes > committed {
      // What nobody has yet faults too.
      let step = min((cursor &+ bytes &- committed).roundedUp(to: 1 &<< 24), end &- committed)
      guard source.commit(committed, step), close(committed, step) != nil else { return nil }
      committed = committed &+ step
    }
    let lastSlot = slots &+ ((cursor &+ bytes &- start) / Self.page &+ 1) &* GuardSlot.byteCount
    if lastSlot > slotsCommitted {
      let step = (lastSlot &- slotsCommitted).roundedUp(to: 1 &<< 22)
      guard source.commit(slotsCommitted, step) else { return nil }
      slotsCommitted = slotsCommitted &+ step
    }
    if pages > 0, !GuardPages.remove(cursor, pages &* Self.page, isProtected: isProtected) {
      return nil
    }
    let first = (cursor &- start) / Self.page
    cursor = cursor &+ bytes
    return first
  }

  /// Makes pages fault. - Returns: whether they are zero now; nil: they do not fault.
  private mutating func close(_ address: UInt, _ size: UInt) -> Bool? {
    switch GuardPages.install(address, size) {
    case .installed: return true
    case .protected(let isZero):
      isProtected = true
      return isZero
    case .refused: return nil
    }
  }

  /// Makes the page at `address` one that does not fault. A guard stays open until the
  /// item before it is freed; a freed item until it is used again. Called with the lock held.
  /// - Returns: whether it was done.
  mutating func open(_ address: UInt) -> Bool {
    if address >= committed { return false }
    let page = address & ~(Self.page &- 1)
    if !GuardPages.remove(page, Self.page, isProtected: isProtected) { return false }
    hasOpened = true
    if let item = find(page), page >= item.slot, page < item.end {
      item.record.address.pointer(to: GuardSlot.self).pointee.isDirty = true
    }
    return true
  }

  /// A freed item: its pages fault from now on. Called with the lock held.
  mutating func free(_ slot: UnsafeMutablePointer<GuardSlot>) {
    let page = (slot.address &- slots) / GuardSlot.byteCount
    let pages = UInt(slot.pointee.pageCount)
    let guards: UInt = _slowPath(hasOpened) ? 1 : 0
    slot.pointee.isDirty =
      close(start &+ page &* Self.page, (pages &+ guards) &* Self.page).map { !$0 } ?? true
    livePages &-= pages
    liveItems &-= 1
    let index = Self.classOf(pages).index
    slot.pointee.next = 0
    let name = UInt32(truncatingIfNeeded: page &+ 1)
    if tails[index] == 0 {
      heads[index] = name
    } else {
      self.slot(at: UInt(tails[index]) &- 1).pointee.next = name
    }
    tails[index] = name
  }

  /// The item on whose pages, or on whose guard, `address` lies; nil: none yet.
  func find(_ address: UInt) -> Item? {
    guard contains(address), cursor > start &+ Self.page else { return nil }
    let page = (min(address, cursor &- 1) &- start) / Self.page
    let first = page &- UInt(slot(at: page).pointee.back)
    return item(first)
  }

  /// The item behind the guard page of another; behind the first guard for nil.
  func next(after item: Item?) -> Item? {
    let page = item.map { ($0.end &- start) / Self.page &+ 1 } ?? 1
    return start &+ page &* Self.page < cursor ? self.item(page) : nil
  }

  private func item(_ first: UInt) -> Item? {
    let slot = slot(at: first)
    if slot.pointee.pageCount == 0 { return nil }
    // A record is the first thing in its slot.
    return Item(
      record: slot.address.pointer(to: Record.self), slot: start &+ first &* Self.page,
      capacity: UInt(slot.pointee.pageCount) &* Self.page, slab: nil)
  }

  func forEach(_ body: (Item) -> Void) {
    if start == 0 { return }
    var page: UInt = 1
    let end = (cursor &- start) / Self.page
    while page < end {
      guard let item = item(page) else { return }
      if item.record.state != .untouched { body(item) }
      page = page &+ item.capacity / Self.page &+ 1
    }
  }
}

extension GuardArena {
  /// Calls `body` with the address space of the items, and with that of their slots.
  func forEachRange(_ body: (_ start: UInt, _ end: UInt) -> Void) {
    if start == 0 { return }
    body(start, end)
    body(slots, slots &+ (end &- start) / Self.page &* GuardSlot.byteCount)
  }
}

/// Of a record in a guard slot: bytes from the start of the slot to the item.
@inline(never)
func guardOffset(_ record: RecordPointer) -> UInt {
  record.address.pointer(to: GuardSlot.self).pointee.offset
}
