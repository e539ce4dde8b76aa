// LeakScan.swift: which items can still be reached (libumem's findleaks, L20).
//
//   roots, strongest kind first ──▶ words ──▶ items ──▶ their words ──▶ items …
//
// Conservative: any aligned word that points at an item, or into it, holds it. Roots
// are scanned in the order program, system, stack; an item keeps the first kind that
// reaches it, so "stack" means: held by nothing but a stack word.
//
// Memory is copied page by page before it is looked at, by a function that survives
// pages that fault.
//
// Pointers lead anywhere, so nearly every look-up would wait for memory. Words go
// through a queue, in which first the index, then the item is loaded ahead of time, and
// so do the items to scan:
//
//   scan ─▶ | word ····· index ····· item | ─▶ mark ─▶ pending ─▶ | contents | ─▶ scan

import Base
import Platform

/// Copies up to `words` words; returns how many could be read.
package typealias LeakReader =
  @convention(c) (_ to: UnsafeMutablePointer<UInt>, _ from: UInt, _ words: Int) -> Int

package struct LeakScan: ~Copyable {
  package var items: LeakItems
  package let read: LeakReader
  /// Items whose words are still to be looked at.
  private let pending: UnsafeMutablePointer<UInt32>
  private var pendingCount = 0
  private let buffer: UnsafeMutablePointer<UInt>
  /// The queue of words: `[last, head)`, of which `[last, middle)` have their index.
  private let queue: UnsafeMutablePointer<UInt>
  private var head: UInt = 0
  private var middle: UInt = 0
  private var last: UInt = 0
  /// Words looked at so far.
  package private(set) var words: UInt = 0

  package static var bufferWords: Int { 512 }
  private static var queueWords: UInt { 64 }
  /// In an item's state byte, above its kind: another lost item points at it.
  package static var isReferenced: UInt8 { 0x80 }
  package static var isOnPath: UInt8 { 0x40 }
  package static var kindMask: UInt8 { 0x0F }

  /// - Returns: nil when there is no memory.
  package init?(items: consuming LeakItems, read: @escaping LeakReader, scratch: inout LeakScratch) {
    let stack = scratch.take(UInt(bitPattern: items.count &+ 1) &* 4)
    let buffer = scratch.take(UInt(bitPattern: Self.bufferWords) &* 8 &+ Self.queueWords &* 16)
    guard stack != 0, buffer != 0 else { return nil }
    self.items = items
    self.read = read
    pending = stack.pointer(to: UInt32.self)
    self.buffer = buffer.pointer(to: UInt.self)
    queue = self.buffer + Self.bufferWords
  }

  package func kind(_ index: Int) -> LeakKind {
    // Never nil: only kinds are stored.
    LeakKind(rawValue: items.states[index] & Self.kindMask).unsafelyUnwrapped
  }

  package func set(_ index: Int, _ kind: LeakKind) { items.states[index] = kind.rawValue }

  /// Adds a flag. Not by `|=`, at which the compiler of the thread sanitizer's build ends.
  private func add(_ flag: UInt8, to index: Int) {
    items.states[index] = items.states[index] | flag
  }

  /// Marks the item that `word` points into, and what it leads to.
  package mutating func reach(word: UInt, _ kind: LeakKind) {
    visit(word, kind)
    drain(kind)
  }

  /// Marks the item that `word` points into, but not what it leads to.
  /// - Returns: the item, if there is one.
  package mutating func reachShallow(word: UInt, _ kind: LeakKind) -> LeakItem? {
    let index = items.find(word)
    if index < 0 { return nil }
    if items.states[index] == LeakKind.lost.rawValue { items.states[index] = kind.rawValue }
    return items.items[index]
  }

  /// Marks everything that the aligned words of [start, end) lead to.
  package mutating func reach(from start: UInt, to end: UInt, _ kind: LeakKind) {
    scan(start.roundedUp(to: 8), end, kind)
    drain(kind)
  }

  /// Marks what a lost item leads to, but not itself.
  package mutating func reach(fromItem index: Int, _ kind: LeakKind) {
    scan(items.items[index], kind)
    drain(kind)
  }

  @inline(__always)
  private mutating func visit(_ word: UInt, _ kind: LeakKind) {
    let index = items.find(word)
    if index >= 0, items.states[index] & Self.kindMask == LeakKind.lost.rawValue {
      items.states[index] = kind.rawValue
      pending[pendingCount] = UInt32(truncatingIfNeeded: index)
      pendingCount &+= 1
    }
  }

  /// Puts a word that is in the range of the items into the queue.
  @inline(__always)
  private mutating func enqueue(_ word: UInt, _ kind: LeakKind) {
    let mask = Self.queueWords &- 1
    queue[Int(bitPattern: head & mask)] = word
    items.prefetchEntry(word)
    head = head &+ 1
    if head &- middle > 12 {
      items.prefetchItem(queue[Int(bitPattern: middle & mask)])
      middle = middle &+ 1
    }
    if head &- last > 24 {
      visit(queue[Int(bitPattern: last & mask)], kind)
      last = last &+ 1
    }
  }

  private mutating func emptyQueue(_ kind: LeakKind) {
    while last != head {
      visit(queue[Int(bitPattern: last & (Self.queueWords &- 1))], kind)
      last = last &+ 1
    }
    middle = head
  }

  /// Scans what is pending, and what that leads to, until nothing is.
  private mutating func drain(_ kind: LeakKind) {
    // A second queue, of items whose contents are being loaded.
    let next = (queue + Int(bitPattern: Self.queueWords)).address.pointer(to: UInt32.self)
    var first: UInt = 0
    var end: UInt = 0
    while true {
      while end &- first < 12, pendingCount > 0 {
        pendingCount &-= 1
        next[Int(bitPattern: end & 15)] = pending[pendingCount]
        let item = items.items[Int(pending[pendingCount])]
        keg_prefetch(item.start)
        if item.size > 64 { keg_prefetch(item.start &+ 64) }
        end = end &+ 1
      }
      if first == end {
        emptyQueue(kind)
        if pendingCount == 0 { return }
        continue
      }
      let item = items.items[Int(next[Int(bitPattern: first & 15)])]
      first = first &+ 1
      scan(item, kind)
    }
  }

  /// Scans an item. One against a guard page may start at any address: the program laid
  /// its words out from there, or it aligned them itself.
  @inline(__always)
  private mutating func scan(_ item: LeakItem, _ kind: LeakKind) {
    let end = item.start &+ item.size
    if _slowPath(item.start & 7 != 0) { scan(item.start, end, kind) }
    scan(item.start.roundedUp(to: 8), end, kind)
  }

  private mutating func scan(_ start: UInt, _ end: UInt, _ kind: LeakKind) {
    let low = items.low
    let span = items.high > low ? items.high &- low : 0
    forEachPage(from: start, to: end) { scan, count in
      var i = 0
      while i < count {
        let word = scan.buffer[i]
        if word &- low < span { scan.enqueue(word, kind) }
        i &+= 1
      }
    }
  }

  /// Calls `body` for each piece of [start, end) that can be read, with the count of
  /// its words, which are then in `buffer`.
  @inline(__always)
  private mutating func forEachPage(
    from start: UInt, to end: UInt, _ body: (inout LeakScan, Int) -> Void
  ) {
    var address = start
    while address &+ 8 <= end {
      // A word of an item at an odd place may lie on two pages.
      let page = min((address &+ 4096).roundedDown(to: 4096), end)
      let wanted = max((page &- address) / 8, 1)
      let count = read(buffer, address, Int(bitPattern: wanted))
      words = words &+ UInt(bitPattern: count)
      body(&self, count)
      address = address &+ wanted &* 8
    }
  }
}

// MARK: - What the lost items are to each other

extension LeakScan {
  /// Gives every lost item its kind. Call when all roots have been scanned.
  /// - Parameter scratch: for the search for cycles; without memory, what may be one is one.
  package mutating func classify(scratch: inout LeakScratch) {
    var left = 0
    var i = 0
    while i < items.count {
      if kind(i) == .lost {
        left &+= 1
        noteReferences(of: i)
      }
      i &+= 1
    }
    if left == 0 { return }
    // Nobody points at these; what they lead to is lost with them.
    i = 0
    while i < items.count {
      if items.states[i] == LeakKind.lost.rawValue {
        items.states[i] = LeakKind.definite.rawValue
        reach(fromItem: i, .indirect)
      }
      i &+= 1
    }
    // The rest is rings, and what hangs on rings.
    separateCycles(scratch: &scratch)
  }

  private mutating func noteReferences(of index: Int) {
    let item = items.items[index]
    forEachPage(from: item.start, to: item.start &+ item.size) { scan, count in
      var i = 0
      while i < count {
        let target = scan.items.find(scan.buffer[i])
        if target >= 0, target != index, scan.kind(target) == .lost {
          scan.add(Self.isReferenced, to: target)
        }
        i &+= 1
      }
    }
  }

  /// Tarjan's strongly connected components over the items that are still lost: one of
  /// several items is a cycle, a single item hangs on one.
  private mutating func separateCycles(scratch: inout LeakScratch) {
    let bytes = UInt(bitPattern: items.count &+ 1)
    let orders = scratch.take(bytes &* 4)
    let lows = scratch.take(bytes &* 4)
    let frames = scratch.take(bytes &* 16)
    let hasMemory = orders != 0 && lows != 0 && frames != 0
    var search = CycleSearch(orders: orders, lows: lows, frames: frames)
    var i = 0
    while i < items.count {
      if kind(i) == .lost {
        if hasMemory { findCycles(from: i, &search) } else { set(i, .cycle) }
      }
      i &+= 1
    }
  }

  private struct CycleSearch {
    let orders: UInt
    let lows: UInt
    let frames: UInt
    var depth = 0
    var lastOrder: UInt32 = 0

    func order(_ index: Int) -> UnsafeMutablePointer<UInt32> { orders.pointer(to: UInt32.self) + index }
    func low(_ index: Int) -> UnsafeMutablePointer<UInt32> { lows.pointer(to: UInt32.self) + index }
    /// Pairs of item and bytes already looked at.
    var top: UnsafeMutablePointer<UInt> { frames.pointer(to: UInt.self) + 2 * (depth &- 1) }

    mutating func push(_ index: Int) {
      lastOrder &+= 1
      order(index).pointee = lastOrder
      low(index).pointee = lastOrder
      depth &+= 1
      top[0] = UInt(bitPattern: index)
      top[1] = 0
    }
  }

  private mutating func findCycles(from start: Int, _ search: inout CycleSearch) {
    enter(start, &search)
    while search.depth > 0 {
      let index = Int(bitPattern: search.top[0])
      if let next = nextUnvisited(index, &search) {
        enter(next, &search)
        continue
      }
      let low = search.low(index).pointee
      if low == search.order(index).pointee { closeComponent(index) }
      search.depth &-= 1
      if search.depth > 0 {
        let parent = search.low(Int(bitPattern: search.top[0]))
        parent.pointee = min(parent.pointee, low)
      }
    }
  }

  /// `pending` holds the items of components that are not closed.
  private mutating func enter(_ index: Int, _ search: inout CycleSearch) {
    search.push(index)
    add(Self.isOnPath, to: index)
    pending[pendingCount] = UInt32(truncatingIfNeeded: index)
    pendingCount &+= 1
  }

  private mutating func closeComponent(_ index: Int) {
    let isSingle = Int(pending[pendingCount &- 1]) == index
    while true {
      pendingCount &-= 1
      let member = Int(pending[pendingCount])
      set(member, isSingle ? .indirect : .cycle)
      if member == index { return }
    }
  }

  /// Goes on through an item's words, up to one that leads to a lost item not seen yet.
  private mutating func nextUnvisited(_ index: Int, _ search: inout CycleSearch) -> Int? {
    let item = items.items[index]
    let end = item.start &+ item.size
    while true {
      let address = item.start &+ search.top[1]
      if address &+ 8 > end { return nil }
      let page = min((address &+ 512).roundedDown(to: 512), end)
      let wanted = max((page &- address) / 8, 1)
      let count = read(buffer, address, Int(bitPattern: wanted))
      var i = 0
      while i < count {
        let target = items.find(buffer[i])
        i &+= 1
        if target < 0 || kind(target) != .lost { continue }
        if search.order(target).pointee == 0 {
          search.top[1] = search.top[1] &+ UInt(bitPattern: i &* 8)
          return target
        }
        if items.states[target] & Self.isOnPath != 0 {
          search.low(index).pointee = min(search.low(index).pointee, search.order(target).pointee)
        }
      }
      search.top[1] = search.top[1] &+ wanted &* 8
    }
  }
}
