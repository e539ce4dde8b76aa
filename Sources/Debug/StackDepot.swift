// StackDepot.swift: every stack once.
//
// A stack is known by a 64-bit hash of its addresses and gets a 32-bit id, which is
// where its text lies: chunk and offset. Chunks are mapped one by one; they are never
// moved nor given back.
//
//   table   | hash's upper 35 bits, id |  ·  | …     open addressing, at most 3/4 full
//                                  │
//   chunks  |hash's lower 32|n|skip|Δ Δ …|id of another|…
//           ▲ id × 4
//
//   Δ      address minus the one before, in groups of seven bits, about 4 bytes a frame
//   skip   0: these n frames are all; else they are followed by what the other stack has
//          without its first skip - 1 frames
//
// Most stacks leave another one, stored before, after a frame or two: those cost 24 bytes.
// Where in the table a stack lies tells some fifteen bits of its hash, so that two stacks
// are taken for one with a probability of 1 to 2^50 / their number.
//
// No lock: a slot of the table is filled by compare-and-swap, room in a chunk is claimed
// by one of the front. Growing the table is one thread's work at a time; what
// others add meanwhile to the old one may be stored a second time later, under another
// id, and nothing worse. A signal handler, or the child of a fork, that comes upon
// somebody else's half-done work goes on without it.

import Base
import Pages
import Platform
import Synchronization

/// The frames of a stack in the depot without its innermost ones.
struct StackRest {
  /// 0: none.
  var id: StackID = 0
  var skip = 0
}

struct StackDepot: ~Copyable {
  /// The upper bits of a hash, and an id of 29 bits. 0: free. Written once; releases the
  /// stack's text.
  typealias Slot = Atomic<UInt64>
  static var idBits: UInt64 { 29 }

  /// A table: `mask + 1` slots after a header of 64 bytes.
  struct Table: ~Copyable {
    let mask: UInt
    let used: Atomic<UInt>
  }

  static var chunkBytes: UInt { 1 << 20 }
  static var chunkShift: UInt { 18 }
  /// 2 GiB of stacks.
  static var chunkLimit: UInt { 2048 }
  static var firstSlots: UInt { 2048 }
  static var greatestDepth: Int { 128 }

  private let source: PageSource
  /// Addresses of the chunks, 0: not mapped. Written once each, by compare-and-swap.
  private let chunks: UnsafeMutablePointer<Atomic<UInt>>
  private let table: Atomic<UInt>
  /// The next free place, in units of 4 bytes from the first chunk's start. Starts at
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
  var textBytes: UInt { front.load(ordering: .relaxed) &* 4 }

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
      let found = slot(table, index).pointee.load(ordering: .acquiring)
      if (found ^ hash) &>> Self.idBits == 0 { return Self.id(found) }
      if found == 0 { return 0 }
      index = (index &+ 1) & mask
      probes &+= 1
    }
    return 0
  }

  private static var probeLimit: Int { 64 }

  private func slot(_ table: UInt, _ index: UInt) -> UnsafeMutablePointer<Slot> {
    (table &+ 64 &+ index &* 8).pointer(to: Slot.self)
  }

  private static func id(_ slot: UInt64) -> StackID {
    StackID(truncatingIfNeeded: slot & (1 &<< idBits &- 1))
  }

  /// Stores a stack that `find` did not find.
  /// - Parameters:
  ///   - frames: innermost first; more than `hash` covers may follow.
  ///   - rest: where those further out are to be found.
  /// - Returns: its id, or 0 when there is no memory.
  func store(
    _ hash: UInt64, _ frames: UnsafePointer<UInt>, count: Int, rest: StackRest = StackRest()
  ) -> StackID {
    guard let id = write(hash, frames, count: min(count, Self.greatestDepth), rest) else { return 0 }
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
      let result = slot(table, index).pointee.compareExchange(
        expected: 0, desired: (hash &>> Self.idBits) &<< Self.idBits | UInt64(id),
        ordering: .acquiringAndReleasing)
      if result.exchanged {
        table.pointer(to: Table.self).pointee.used.wrappingAdd(1, ordering: .relaxed)
        return
      }
      if (result.original ^ hash) &>> Self.idBits == 0 { return }
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
    let new = pages(64 &+ slots &* 8)
    guard new != 0 else { return }
    new.pointer(to: Table.self).initialize(to: Table(mask: slots &- 1, used: Atomic(0)))
    if old != 0 {
      var index: UInt = 0
      while index <= old.pointer(to: Table.self).pointee.mask {
        // The texts lie anywhere.
        let ahead = slot(old, (index &+ 16) & (slots / 2 &- 1)).pointee.load(ordering: .relaxed)
        if ahead != 0 { keg_prefetch(text(Self.id(ahead))) }
        let slot = slot(old, index).pointee.load(ordering: .acquiring)
        if slot != 0 {
          let id = Self.id(slot)
          let lower = text(id).pointer(to: UInt32.self).pointee
          enter((slot &>> Self.idBits) &<< Self.idBits | UInt64(lower), id, in: new)
        }
        index = index &+ 1
      }
    }
    table.store(new, ordering: .releasing)
    // Somebody may be reading the old one: its addresses stay, and so does its header. In
    // the rest he finds nothing any more.
    let bytes = (64 &+ slots / 2 &* 8).roundedUp(to: 4096)
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

  /// Where the text of a stack lies; 0: nowhere.
  private func text(_ id: StackID) -> UInt {
    let chunk = chunks[Int(id >> UInt32(Self.chunkShift))].load(ordering: .acquiring)
    return chunk == 0 ? 0 : chunk &+ (UInt(id) & (1 << Self.chunkShift &- 1)) &* 4
  }

  /// Calls `body` with the addresses of a stack, innermost first.
  /// - Parameter limit: the text may hold more than this many, which are not its.
  func forEachFrame(_ id: StackID, limit: Int = greatestDepth, _ body: (UInt) -> Void) {
    var id = id
    var left = limit
    var skip: UInt = 0
    while id != 0, left > 0 {
      let text = text(id)
      guard text != 0 else { return }
      var reader = ByteReader(at: text &+ 4, end: text &+ 4096)
      var inText = reader.byte()
      let restSkip = reader.byte()
      var address: UInt = 0
      while inText > 0, left > 0 {
        address = address &+ UInt(bitPattern: reader.signed())
        inText = inText &- 1
        if skip > 0 {
          skip = skip &- 1
        } else {
          body(address)
          left = left &- 1
        }
      }
      if restSkip == 0 { return }
      skip = skip &+ restSkip &- 1
      id = StackID(reader.word32())
    }
  }

  private func write(
    _ hash: UInt64, _ frames: UnsafePointer<UInt>, count: Int, _ rest: StackRest
  ) -> StackID? {
    // At most ten bytes a frame; the hash, the counts, and the other stack.
    var size: UInt = rest.id == 0 ? 6 : 10
    var last: UInt = 0
    var i = 0
    while i < count {
      size = size &+ Self.length(frames[i] &- last)
      last = frames[i]
      i &+= 1
    }
    guard let place = takeRoom((size &+ 3) / 4) else { return nil }
    var at = text(StackID(truncatingIfNeeded: place))
    at.pointer(to: UInt32.self).pointee = UInt32(truncatingIfNeeded: hash)
    at = at &+ 4
    func put(_ byte: UInt) {
      at.pointer(to: UInt8.self).pointee = UInt8(truncatingIfNeeded: byte)
      at = at &+ 1
    }
    put(UInt(bitPattern: count))
    put(rest.id == 0 ? 0 : UInt(bitPattern: rest.skip) &+ 1)
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
    if rest.id != 0 {
      var id = UInt(rest.id)
      i = 0
      while i < 4 {
        put(id & 0xFF)
        id = id &>> 8
        i &+= 1
      }
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

  /// Room for `units` of 4 bytes within one chunk, as an id.
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
