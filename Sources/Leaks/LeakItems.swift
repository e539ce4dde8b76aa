// LeakItems.swift: every live item of the process, sorted by address, as the leak scan
// needs them: what item does this word point into?
//
//   word ─▶ top[word >> 30] ─▶ ends[word >> 8] ─▶ the last item that starts in or
//           one for a GiB       one for 256 B      before these 256 bytes; few steps back
//
// Filled by two walks over the same items (the world stands still): the first counts
// how many start in each 256 bytes, the second puts them where the counts say: no sort.
// A GiB in which no item starts needs no block: its entry says the one answer.
//
// Nothing here knows where items come from: the unit tests make their own.

import Base
import Pages
import Platform

/// What became of an item.
package enum LeakKind: UInt8 {
  /// Not reached from anywhere, yet.
  case lost = 0
  /// From data of the program, a module or a thread.
  case reachable
  /// Only from what the C library, the C++ library or the loader keep for themselves.
  case system
  /// Only from a word of a stack or a register.
  case stack
  /// Lost, and nobody points at it: a leak.
  case definite
  /// Lost with a definite leak that leads to it, or with a cycle.
  case indirect
  /// Lost, and part of a ring that nothing outside leads to.
  case cycle

  package static var count: Int { 7 }
}

/// Memory for the time of a check, straight from the kernel: while the threads stand
/// still nothing of the allocator may be asked for any.
package struct LeakScratch {
  package static var capacity: Int { 24 }
  private let source: PageSource
  package private(set) var count = 0
  private var starts: InlineArray<24, UInt> = InlineArray(repeating: 0)
  private var sizes: InlineArray<24, UInt> = InlineArray(repeating: 0)

  package init(source: PageSource) { self.source = source }

  /// Zeroed memory, or 0. Pages that are not touched cost nothing.
  package mutating func take(_ bytes: UInt) -> UInt {
    guard count < Self.capacity else { return 0 }
    let size = max(bytes, 1).roundedUp(to: 4096)
    let start = source.reserve(size)
    guard start != 0 else { return 0 }
    guard source.commit(start, size) else {
      _ = source.release(start, size)
      return 0
    }
    starts[count] = start
    sizes[count] = size
    count &+= 1
    return start
  }

  /// Calls `body` with the start and size of everything taken.
  package func forEach(_ body: (UInt, UInt) -> Void) {
    var i = 0
    while i < count {
      body(starts[i], sizes[i])
      i &+= 1
    }
  }

  package mutating func releaseAll() {
    while count > 0 {
      count &-= 1
      _ = source.release(starts[count], sizes[count])
    }
  }
}

package struct LeakItem {
  package var start: UInt
  package var size: UInt

  package init(start: UInt, size: UInt) {
    self.start = start
    self.size = size
  }

  /// One byte at least: a block of no bytes is held by its address.
  @inline(__always)
  package var end: UInt { start &+ max(size, 1) }
}

package struct LeakItems: ~Copyable {
  package private(set) var count = 0
  package private(set) var low: UInt = .max
  package private(set) var high: UInt = 0
  package private(set) var items: UnsafeMutablePointer<LeakItem>
  /// One byte an item: its `LeakKind`, and flags of the classification above it.
  package private(set) var states: UnsafeMutablePointer<UInt8>
  /// One word a GiB of address space: a block of counts, or `answer << 1 | 1`.
  private let top: UnsafeMutablePointer<UInt>
  private var isShort = false

  private static var topShift: UInt { 30 }
  private static var topCount: UInt { 1 &<< 17 }
  private static var shift: UInt { 8 }
  private static var blockCount: UInt { 1 &<< 22 }

  /// - Returns: nil when there is no memory.
  package init?(scratch: inout LeakScratch) {
    let memory = scratch.take(Self.topCount &* 8)
    guard memory != 0 else { return nil }
    top = memory.pointer(to: UInt.self)
    // Replaced by `place`.
    items = memory.pointer(to: LeakItem.self)
    states = memory.pointer(to: UInt8.self)
  }

  /// First walk: notes that an item starts here.
  package mutating func announce(_ start: UInt, _ size: UInt, blocks: inout LeakBlocks) {
    let gib = start &>> Self.topShift
    guard gib < Self.topCount else { return }
    if top[Int(bitPattern: gib)] == 0 {
      let block = blocks.take(Self.blockCount &* 4)
      if block == 0 {
        isShort = true
        return
      }
      top[Int(bitPattern: gib)] = block
    }
    entry(start).pointee &+= 1
    low = min(low, start)
    high = max(high, start &+ max(size, 1))
    count &+= 1
  }

  /// Between the walks: room for the items. False: no memory; the check is off.
  package mutating func makeRoom(scratch: inout LeakScratch) -> Bool {
    let itemMemory = scratch.take(UInt(bitPattern: count &+ 1) &* 16)
    let stateMemory = scratch.take(UInt(bitPattern: count &+ 1))
    guard itemMemory != 0, stateMemory != 0, !isShort else { return false }
    items = itemMemory.pointer(to: LeakItem.self)
    states = stateMemory.pointer(to: UInt8.self)
    if count == 0 { low = 0 }  // and `find` finds nothing
    // Counts become positions: where the first item of each 256 bytes goes.
    // Nobody asks for addresses below the first item or above the last.
    var position: UInt32 = 0
    var gib = low &>> Self.topShift
    while gib <= high &>> Self.topShift, gib < Self.topCount {
      let block = top[Int(bitPattern: gib)]
      if block == 0 {
        top[Int(bitPattern: gib)] = UInt(position) &<< 1 | 1
      } else {
        let counts = block.pointer(to: UInt32.self)
        let start = gib &<< Self.topShift
        var i = (max(low, start) &- start) &>> Self.shift
        let end = (min(high, start &+ 1 &<< Self.topShift &- 1) &- start) &>> Self.shift
        while i <= end {
          let here = counts[Int(bitPattern: i)]
          counts[Int(bitPattern: i)] = position
          position = position &+ here
          i &+= 1
        }
      }
      gib &+= 1
    }
    return true
  }

  /// Second walk: puts an item in its place. Those of the same 256 bytes stay in order.
  package mutating func place(_ start: UInt, _ size: UInt, _ kind: LeakKind = .lost) {
    let gib = start &>> Self.topShift
    guard gib < Self.topCount, top[Int(bitPattern: gib)] & 1 == 0 else { return }
    let cursor = entry(start)
    var position = Int(cursor.pointee)
    guard position < count else { return }
    cursor.pointee &+= 1
    let first = start & ~((1 &<< Self.shift) &- 1)
    while position > 0, items[position &- 1].start > start, items[position &- 1].start >= first {
      items[position] = items[position &- 1]
      states[position] = states[position &- 1]
      position &-= 1
    }
    items[position] = LeakItem(start: start, size: size)
    states[position] = kind.rawValue
  }

  @inline(__always)
  private func entry(_ address: UInt) -> UnsafeMutablePointer<UInt32> {
    let block = top[Int(bitPattern: address &>> Self.topShift)].pointer(to: UInt32.self)
    return block + Int(bitPattern: address &>> Self.shift & (Self.blockCount &- 1))
  }

  /// Starts to load what `find` will read: first where it looks, then what it finds there.
  @inline(__always)
  package func prefetchEntry(_ word: UInt) {
    let block = top[Int(bitPattern: word &>> Self.topShift)]
    if block & 1 == 0 { keg_prefetch(entry(word).address) }
  }

  @inline(__always)
  package func prefetchItem(_ word: UInt) {
    let block = top[Int(bitPattern: word &>> Self.topShift)]
    if block & 1 == 0 {
      let index = Int(entry(word).pointee) &- 1
      keg_prefetch((items + index).address)
      keg_prefetch((states + index).address)
    }
  }

  /// The index of the item that `word` points at or into, or -1.
  @inline(__always)
  package func find(_ word: UInt) -> Int {
    if count == 0 || word &- low >= high &- low { return -1 }
    return search(word)
  }

  @inline(__always)
  private func search(_ word: UInt) -> Int {
    let block = top[Int(bitPattern: word &>> Self.topShift)]
    var index = block & 1 == 0 ? Int(entry(word).pointee) : Int(bitPattern: block &>> 1)
    index &-= 1
    while index >= 0 {
      let item = items[index]
      if item.start <= word { return word < item.end ? index : -1 }
      index &-= 1
    }
    return -1
  }
}

/// Blocks of counts, cut from a few large pieces of scratch memory.
package struct LeakBlocks {
  private var next: UInt = 0
  private var end: UInt = 0
  private var pieces: UInt = 0
  private var scratch: LeakScratch

  package init(source: PageSource) { scratch = LeakScratch(source: source) }

  package mutating func take(_ bytes: UInt) -> UInt {
    if next &+ bytes > end {
      let size = bytes &* (4 &<< min(pieces, 20))
      next = scratch.take(size)
      if next == 0 {
        end = 0
        return 0
      }
      end = next &+ size
      pieces &+= 1
    }
    next = next &+ bytes
    return next &- bytes
  }

  package func forEach(_ body: (UInt, UInt) -> Void) { scratch.forEach(body) }
  package mutating func releaseAll() { scratch.releaseAll() }
}
