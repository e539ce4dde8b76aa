// StackDepot.swift: every stack once.
//
// A stack is known by a 64-bit hash of its addresses and gets a 32-bit id, which is
// where its text lies: chunk and offset. Chunks are mapped one by one; they are never
// moved nor given back.
//
//   table   | hash, id | hash, id |  ·  | …     open addressing, at most 3/4 full
//                           │
//   chunks  |count|Δ Δ Δ …|count|Δ …|····       Δ: address minus the one before, in
//           ▲ id × 8                            groups of seven bits, about 4 bytes a frame
//
// No lock: a slot of the table is claimed by compare-and-swap of its hash, room in
// a chunk by one of the front. Growing the table is one thread's work at a time; what
// others add meanwhile to the old one may be stored a second time later, under another
// id, and nothing worse. A signal handler, or the child of a fork, that comes upon
// somebody else's half-done work goes on without it.

import Base
import Pages
import Platform
import Synchronization

struct StackDepot: ~Copyable {
  struct Slot: ~Copyable {
    /// 0: free. Claimed once, never changed.
    let hash: Atomic<UInt64>
    /// 0 for a moment after the claim. Releases the stack's text.
    let id: Atomic<UInt64>
  }

  /// A table: `mask + 1` slots after a header of 64 bytes.
  struct Table: ~Copyable {
    let mask: UInt
    let used: Atomic<UInt>
  }

  static var chunkBytes: UInt { 1 << 20 }
  static var chunkShift: UInt { 17 }
  /// 4 GiB of stacks.
  static var chunkLimit: UInt { 4096 }
  static var firstSlots: UInt { 2048 }
  static var greatestDepth: Int { 128 }

  private let source: PageSource
  /// Addresses of the chunks, 0: not mapped. Written once each, by compare-and-swap.
  private let chunks: UnsafeMutablePointer<Atomic<UInt>>
  private let table: Atomic<UInt>
  /// The next free place, in units of 8 bytes from the first chunk's start. Starts at
  /// 1, for 0 is no stack.
  private let front: Atomic<UInt>
  /// 1 while a thread grows the table.
  private let growing: Atomic<UInt>
  private let stored: Atomic<UInt>

  /// - Parameter chunks: `chunkLimit` words, all zero.
  init(chunks: UnsafeMutablePointer<Atomic<UInt>>, source: PageSource) {
    self.chunks = chunks
    self.source = source
    table = Atomic(0)
    front = Atomic(1)
    growing = Atomic(0)
    stored = Atomic(0)
  }

  /// Stacks stored.
  var count: UInt { stored.load(ordering: .relaxed) }

  /// Bytes of text.
  var textBytes: UInt { front.load(ordering: .relaxed) &* 8 }

  /// In a forked child: its parent's other threads are not here to end their work.
  func forgetOthers() { growing.store(0, ordering: .releasing) }

  // MARK: - Look-up

  /// Starts to load what `find` looks at first.
  @inline(__always)
  func prefetch(_ hash: UInt64) {
    let table = table.load(ordering: .acquiring)
    if table == 0 { return }
    keg_prefetch(slot(table, UInt(hash) & table.pointer(to: Table.self).pointee.mask).address)
  }

  /// The id of the stack with this hash; 0 when it is not stored.
  func find(_ hash: UInt64) -> StackID {
    let table = table.load(ordering: .acquiring)
    guard table != 0 else { return 0 }
    let mask = table.pointer(to: Table.self).pointee.mask
    var index = UInt(hash) & mask
    var probes = 0
    while probes < Self.probeLimit {
      let slot = slot(table, index)
      let found = slot.pointee.hash.load(ordering: .acquiring)
      if found == hash {
        return StackID(truncatingIfNeeded: slot.pointee.id.load(ordering: .acquiring))
      }
      if found == 0 { return 0 }
      index = (index &+ 1) & mask
      probes &+= 1
    }
    return 0
  }

  private static var probeLimit: Int { 64 }

  private func slot(_ table: UInt, _ index: UInt) -> UnsafeMutablePointer<Slot> {
    (table &+ 64 &+ index &* 16).pointer(to: Slot.self)
  }

  /// Stores a stack that `find` did not find.
  /// - Parameter frames: innermost first.
  /// - Returns: its id, or 0 when there is no memory.
  func store(_ hash: UInt64, _ frames: UnsafePointer<UInt>, count: Int) -> StackID {
    guard let id = write(frames, count: min(count, Self.greatestDepth)) else { return 0 }
    stored.wrappingAdd(1, ordering: .relaxed)
    growIfNeeded()
    let table = table.load(ordering: .acquiring)
    if table != 0 { enter(hash, id, in: table) }
    return id
  }

  /// Puts a hash into a table, unless it is there or its neighbourhood is full.
  private func enter(_ hash: UInt64, _ id: StackID, in table: UInt) {
    let mask = table.pointer(to: Table.self).pointee.mask
    var index = UInt(hash) & mask
    var probes = 0
    while probes < Self.probeLimit {
      let slot = slot(table, index)
      let result = slot.pointee.hash.compareExchange(
        expected: 0, desired: hash, ordering: .acquiringAndReleasing)
      if result.exchanged {
        slot.pointee.id.store(UInt64(id), ordering: .releasing)
        table.pointer(to: Table.self).pointee.used.wrappingAdd(1, ordering: .relaxed)
        return
      }
      if result.original == hash { return }
      index = (index &+ 1) & mask
      probes &+= 1
    }
  }

  /// Doubles the table when it is three quarters full.
  private func growIfNeeded() {
    let old = table.load(ordering: .acquiring)
    var slots = Self.firstSlots
    if old != 0 {
      let header = old.pointer(to: Table.self)
      slots = header.pointee.mask &+ 1
      if header.pointee.used.load(ordering: .relaxed) < slots / 4 &* 3 { return }
      slots = slots &* 2
    }
    guard growing.compareExchange(expected: 0, desired: 1, ordering: .acquiring).exchanged
    else { return }
    if table.load(ordering: .relaxed) == old { replace(old, slots: slots) }
    growing.store(0, ordering: .releasing)
  }

  private func replace(_ old: UInt, slots: UInt) {
    let new = pages(64 &+ slots &* 16)
    guard new != 0 else { return }
    new.pointer(to: Table.self).initialize(to: Table(mask: slots &- 1, used: Atomic(0)))
    if old != 0 {
      var index: UInt = 0
      while index <= old.pointer(to: Table.self).pointee.mask {
        let slot = slot(old, index)
        let hash = slot.pointee.hash.load(ordering: .acquiring)
        let id = slot.pointee.id.load(ordering: .acquiring)
        if hash != 0, id != 0 { enter(hash, StackID(truncatingIfNeeded: id), in: new) }
        index = index &+ 1
      }
    }
    table.store(new, ordering: .releasing)
    // Somebody may be reading the old one: its addresses stay, and so does its header. In
    // the rest he finds nothing any more.
    let bytes = (64 &+ slots / 2 &* 16).roundedUp(to: 4096)
    if old != 0, bytes > 4096 { _ = source.purge(old &+ 4096, bytes &- 4096) }
  }

  /// Whole pages, known zero; 0 when there are none.
  private func pages(_ size: UInt) -> UInt {
    let whole = size.roundedUp(to: 4096)
    let address = source.reserve(whole)
    guard address != 0 else { return 0 }
    if source.commit(address, whole) { return address }
    _ = source.release(address, whole)
    return 0
  }

  // MARK: - Text

  /// Calls `body` with the addresses of a stack, innermost first.
  func forEachFrame(_ id: StackID, _ body: (UInt) -> Void) {
    guard id != 0 else { return }
    let chunk = chunks[Int(id >> UInt32(Self.chunkShift))].load(ordering: .acquiring)
    guard chunk != 0 else { return }
    var reader = ByteReader(
      at: chunk &+ (UInt(id) & (1 << Self.chunkShift &- 1)) &* 8, end: chunk &+ Self.chunkBytes)
    var left = reader.byte()
    var address: UInt = 0
    while left > 0 {
      address = address &+ UInt(bitPattern: reader.signed())
      body(address)
      left = left &- 1
    }
  }

  private func write(_ frames: UnsafePointer<UInt>, count: Int) -> StackID? {
    // At most ten bytes a frame, and the count.
    var size: UInt = 1
    var last: UInt = 0
    var i = 0
    while i < count {
      size = size &+ Self.length(frames[i] &- last)
      last = frames[i]
      i &+= 1
    }
    guard let place = takeRoom((size &+ 7) / 8) else { return nil }
    var at = chunks[Int(place >> Self.chunkShift)].load(ordering: .relaxed)
      &+ (place & (1 << Self.chunkShift &- 1)) &* 8
    func put(_ byte: UInt) {
      at.pointer(to: UInt8.self).pointee = UInt8(truncatingIfNeeded: byte)
      at = at &+ 1
    }
    put(UInt(bitPattern: count))
    last = 0
    i = 0
    while i < count {
      var rest = Int(bitPattern: frames[i] &- last)
      last = frames[i]
      while rest < -64 || rest > 63 {
        put(UInt(bitPattern: rest) & 0x7F | 0x80)
        rest >>= 7
      }
      put(UInt(bitPattern: rest) & 0x7F)
      i &+= 1
    }
    return StackID(truncatingIfNeeded: place)
  }

  /// How many groups of seven bits the signed number takes.
  @inline(__always)
  private static func length(_ difference: UInt) -> UInt {
    let magnitude = difference ^ UInt(bitPattern: Int(bitPattern: difference) >> 63)
    // Its bits and the sign, divided by seven and rounded up.
    return UInt(bitPattern: 71 &- magnitude.leadingZeroBitCount) / 7
  }

  /// Room for `units` of 8 bytes within one chunk, as an id.
  private func takeRoom(_ units: UInt) -> UInt? {
    let perChunk: UInt = 1 << Self.chunkShift
    var place = front.load(ordering: .relaxed)
    while true {
      var start = place
      if start & (perChunk &- 1) &+ units > perChunk {
        start = (start &+ perChunk) & ~(perChunk &- 1)
      }
      let chunk = start >> Self.chunkShift
      guard chunk < Self.chunkLimit, isMapped(chunk) else { return nil }
      let result = front.compareExchange(
        expected: place, desired: start &+ units, ordering: .relaxed)
      if result.exchanged { return start }
      place = result.original
    }
  }

  private func isMapped(_ chunk: UInt) -> Bool {
    let entry = chunks + Int(chunk)
    if entry.pointee.load(ordering: .acquiring) != 0 { return true }
    let address = pages(Self.chunkBytes)
    guard address != 0 else { return false }
    if !entry.pointee.compareExchange(
      expected: 0, desired: address, ordering: .acquiringAndReleasing
    ).exchanged {
      _ = source.release(address, Self.chunkBytes)
    }
    return true
  }
}
