// OutsideRegions.swift: heap memory outside the reservation.
//
// Under a tight RLIMIT_AS the reservation is small, and a program that limits or
// locks its memory makes us give back most of what we had not used. What the heap
// needs beyond comes from the kernel in regions of their own, each with its own
// small tables:
//
//   |···· ◂ owners | bins ▸ ··| chunks …                          |
//   start          tables      heapStart                          end
//
// The fast path does not know these addresses; they take the slow path and a
// binary search here: slower, never wrong. A region of which nothing is in use waits
// a while for the next one of its size, and goes back to the kernel like dirty spans.
//
// The list of regions exists twice. Who looks an address up reads the one that counts;
// a change is made to the other one, which then counts:
//
//   versions   even ▸ |count| region | region | ···    odd ▸ |count| region | ···
//
// So a look-up takes no lock and finds a whole list at any moment, also in a signal
// handler over a change, and in a child whose parent was changing it.
//
// Lock: `lock` (rank `outside`) serialises changes; making and releasing regions is
// one thread's business at a time, under the heap's.

import Base
import Pages
import Synchronization

package struct OutsideRegion {
  /// The first byte of the mapping.
  package let mapping: UInt
  package let tables: UInt
  package let start: UInt
  package let end: UInt
}

package struct OutsideRegions: ~Copyable {
  // Not constants first: TSan takes a mutating access for a write to the first field.
  private var capacities: (even: Int, odd: Int) = (0, 0)
  package let lock: Lock
  // The two lists, in metadata. A list's memory is never used for anything else.
  // Publishing a version releases the list that a look-up acquires with it.
  private let even = Atomic<UInt>(0)
  private let odd = Atomic<UInt>(0)
  private let version = Atomic<UInt>(0)
  // Bytes of regions that wait; relaxed, for it stands for itself.
  private let waiting = Atomic<UInt>(0)

  package init() {
    lock = Lock(rank: .outside)
  }

  private static var largestRegion: UInt { 1 &<< 26 }
  /// All regions that wait together, bytes.
  private static var mostWaiting: UInt { 1 &<< 26 }

  /// Whether there has never been one.
  package var isUnused: Bool { version.load(ordering: .relaxed) == 0 }

  package var count: Int { list(version.load(ordering: .acquiring)).count }

  /// Bytes of the regions of which nothing is in use.
  package var waitingBytes: UInt { waiting.load(ordering: .relaxed) }

  // MARK: Making and releasing

  /// Maps a region with room for a span of `size` bytes, or takes one that waits.
  /// - Parameters:
  ///   - actual: set to the bytes of the region's chunks.
  ///   - isDirty: set to whether they may be other than zero.
  /// - Returns: the first chunk, or `Arena.none`'s value when there is no memory.
  package mutating func make(
    _ size: UInt, source: PageSource, metadata: UnsafeMutablePointer<Metadata>,
    actual: UnsafeMutablePointer<UInt>, isDirty: UnsafeMutablePointer<Bool>
  ) -> UInt {
    // 1 MiB at first, doubling with the number of regions up to 64 MiB.
    let step = min((1 as UInt) &<< (20 &+ UInt(count) / 4), Self.largestRegion)
    let place = smallestWaiting(from: size, to: 2 &* max(size, step))
    if place >= 0 {
      let entry = current.entry(place)
      isDirty.pointee = entry.isDirty
      entry.wake()
      let region = entry.region
      actual.pointee = region.end &- region.start
      waiting.wrappingSubtract(actual.pointee, ordering: .relaxed)
      return region.start
    }
    let made = map(max(size, step), source: source) ?? map(size, source: source)
    guard let made else { return UInt.max }
    guard enter(made, metadata: metadata) else {
      _ = source.release(made.mapping, made.end &- made.mapping)
      return UInt.max
    }
    actual.pointee = made.end &- made.start
    return made.start
  }

  /// Takes back the region whose first chunk is at `start`; nothing of it is in use.
  package mutating func release(_ start: UInt, isDirty: Bool, stamp: UInt64, source: PageSource) {
    let place = current.firstAbove(start) &- 1
    let region = current.entry(place).region
    let size = region.end &- region.start
    if waitingBytes &+ size > Self.mostWaiting { return unmap(place, source: source) }
    current.entry(place).wait(isDirty: isDirty, since: stamp)
    waiting.wrappingAdd(size, ordering: .relaxed)
  }

  /// Unmaps the regions that have waited since `stamp`.
  /// - Returns: their bytes.
  package mutating func releaseWaiting(notAfter stamp: UInt64, source: PageSource) -> UInt {
    var bytes: UInt = 0
    var place = count
    while place > 0 {
      place &-= 1
      let entry = current.entry(place)
      if entry.waits, entry.stamp <= stamp {
        let size = entry.region.end &- entry.region.start
        waiting.wrappingSubtract(size, ordering: .relaxed)
        bytes &+= size
        unmap(place, source: source)
      }
    }
    return bytes
  }

  private func smallestWaiting(from least: UInt, to most: UInt) -> Int {
    if waitingBytes == 0 { return -1 }
    var best = -1
    var bestSize = UInt.max
    var i = 0
    while i < count {
      let region = current.entry(i).region
      let size = region.end &- region.start
      if current.entry(i).waits, size >= least, size <= most, size < bestSize {
        best = i
        bestSize = size
      }
      i &+= 1
    }
    return best
  }

  private func map(_ size: UInt, source: PageSource) -> OutsideRegion? {
    // The tables are indexed from P, which has the chunks' alignment: the bins
    // between P and the first chunk take whole chunks themselves.
    let chunks = size &>> Chunk.shift
    let bins = (chunks &* 2 &+ 4096).roundedUp(to: Chunk.size)
    let owners = ((chunks &+ bins &>> Chunk.shift &+ 1) &* 8).roundedUp(to: 4096)
    let whole = owners &+ bins &+ size &+ Chunk.size
    let address = source.reserve(whole)
    guard address != 0 else { return nil }
    let tables = (address &+ owners).roundedUp(to: Chunk.size)
    let start = tables &+ bins
    let first = tables &- owners
    guard first >= address, source.commit(first, start &+ size &- first) else {
      _ = source.release(address, whole)
      return nil
    }
    if first > address { _ = source.release(address, first &- address) }
    let end = start &+ size
    if address &+ whole > end { _ = source.release(end, address &+ whole &- end) }
    return OutsideRegion(mapping: first, tables: tables, start: start, end: end)
  }

  // MARK: Looking up

  /// The page map that knows `address`. Takes no lock.
  @inline(never)
  package func pageMap(for address: UInt) -> PageMap? {
    while true {
      let before = version.load(ordering: .acquiring)
      let found = list(before).find(address)
      // The list was whole if it still counts: it is written only when it does not.
      if _fastPath(version.load(ordering: .relaxed) == before) {
        return found == 0 ? nil : PageMap(tables: found)
      }
    }
  }

  /// Calls `body` with every region. Takes no lock.
  package func forEach(_ body: (OutsideRegion) -> Void) {
    var i = 0
    while i < count {
      body(current.entry(i).region)
      i &+= 1
    }
  }

  // MARK: Changes

  private func list(_ version: UInt) -> RegionList {
    RegionList(
      address: version & 1 == 0 ? even.load(ordering: .acquiring) : odd.load(ordering: .acquiring))
  }

  private var current: RegionList { list(version.load(ordering: .relaxed)) }

  private mutating func enter(
    _ made: OutsideRegion, metadata: UnsafeMutablePointer<Metadata>
  ) -> Bool {
    lock.lock()
    defer { lock.unlock() }
    let old = current
    guard makeRoom(for: old.count &+ 1, metadata: metadata) else { return false }
    let place = old.firstAbove(made.start)
    next.entry(place).set(made)
    change(place, added: 1, removed: 0)
    return true
  }

  @inline(never)
  private mutating func unmap(_ place: Int, source: PageSource) {
    let gone = current.entry(place).region
    lock.lock()
    change(place, added: 0, removed: 1)
    lock.unlock()
    _ = source.release(gone.mapping, gone.end &- gone.mapping)
  }

  /// The list that does not count.
  private var next: RegionList { list(version.load(ordering: .relaxed) &+ 1) }

  /// Fills the other list with what is around `place` in the one that counts, and makes
  /// it count. Called with the lock held.
  @inline(never)
  private mutating func change(_ place: Int, added: Int, removed: Int) {
    let (old, new) = (current, next)
    new.copy(old, 0..<place, to: 0)
    new.copy(old, (place &+ removed)..<old.count, to: place &+ added)
    new.count = old.count &+ added &- removed
    version.wrappingAdd(1, ordering: .releasing)
  }

  /// Makes the list that does not count long enough for `count` regions. It has had at
  /// least one less than the other, so taking one out never needs memory. What is
  /// outgrown stays behind in metadata: at most as much again.
  private mutating func makeRoom(for count: Int, metadata: UnsafeMutablePointer<Metadata>) -> Bool {
    let isOdd = version.load(ordering: .relaxed) & 1 == 0
    if count <= (isOdd ? capacities.odd : capacities.even) { return true }
    let larger = max(64, count &* 2)
    let bytes = (UInt(bitPattern: larger) &+ 1) &* RegionEntry.byteCount
    let place = metadata.pointee.lock.withLock { metadata.pointee.cut(bytes, alignment: 64) }
    if place == 0 { return false }
    if isOdd {
      odd.store(place, ordering: .releasing)
      capacities.odd = larger
    } else {
      even.store(place, ordering: .releasing)
      capacities.even = larger
    }
    return true
  }
}

// MARK: - A list

/// One region of a list, seven words:
///
///   mapping | tables | start | end | waits since: stamp, dirty, waits
///
/// Look-ups may read the first four of a list that is being written: atomic, relaxed,
/// for their result does not count then. The others are read and written by who makes
/// and releases regions only.
private struct RegionEntry {
  let address: UInt

  static var byteCount: UInt { 64 }

  @inline(__always)
  func word(_ index: UInt) -> UnsafeMutablePointer<Atomic<UInt>> {
    (address &+ index &* 8).pointer(to: Atomic<UInt>.self)
  }

  @inline(__always)
  func load(_ index: UInt) -> UInt { word(index).pointee.load(ordering: .acquiring) }

  var region: OutsideRegion {
    OutsideRegion(mapping: load(0), tables: load(1), start: load(2), end: load(3))
  }

  func set(_ region: OutsideRegion) {
    store(region.mapping, region.tables, region.start, region.end)
    wake()
  }

  private func store(_ mapping: UInt, _ tables: UInt, _ start: UInt, _ end: UInt) {
    word(0).pointee.store(mapping, ordering: .relaxed)
    word(1).pointee.store(tables, ordering: .relaxed)
    word(2).pointee.store(start, ordering: .relaxed)
    word(3).pointee.store(end, ordering: .relaxed)
  }

  var stamp: UInt64 { UInt64(load(4)) }
  var isDirty: Bool { load(5) != 0 }
  var waits: Bool { load(6) != 0 }

  func wait(isDirty: Bool, since stamp: UInt64) {
    word(4).pointee.store(UInt(stamp), ordering: .relaxed)
    word(5).pointee.store(isDirty ? 1 : 0, ordering: .relaxed)
    word(6).pointee.store(1, ordering: .relaxed)
  }

  func wake() { word(6).pointee.store(0, ordering: .relaxed) }

  @inline(never)
  func copy(_ other: RegionEntry) {
    var index: UInt = 0
    while index < 7 {
      word(index).pointee.store(other.load(index), ordering: .relaxed)
      index &+= 1
    }
  }
}

/// Regions by address, after a line with their number.
private struct RegionList {
  /// 0: empty.
  let address: UInt

  var count: Int {
    get { address == 0 ? 0 : Int(bitPattern: address.pointer(to: Atomic<UInt>.self).pointee.load(ordering: .acquiring)) }
    nonmutating set {
      if address == 0 { return }
      address.pointer(to: Atomic<UInt>.self).pointee.store(UInt(bitPattern: newValue), ordering: .relaxed)
    }
  }

  @inline(__always)
  func entry(_ index: Int) -> RegionEntry {
    RegionEntry(address: address &+ 64 &+ UInt(bitPattern: index) &* RegionEntry.byteCount)
  }

  /// The tables of the region that holds `address`, or 0.
  func find(_ address: UInt) -> UInt {
    let i = firstAbove(address) &- 1
    guard i >= 0, address < entry(i).load(3) else { return 0 }
    return entry(i).load(1)
  }

  /// The index of the first region that starts above `address`.
  @inline(never)
  func firstAbove(_ address: UInt) -> Int {
    var low = 0
    var high = count
    while low < high {
      let middle = (low &+ high) / 2
      if entry(middle).load(2) <= address { low = middle &+ 1 } else { high = middle }
    }
    return low
  }

  @inline(never)
  func copy(_ other: RegionList, _ range: Range<Int>, to place: Int) {
    var i = range.lowerBound
    while i < range.upperBound {
      entry(place &+ i &- range.lowerBound).copy(other.entry(i))
      i &+= 1
    }
  }
}
