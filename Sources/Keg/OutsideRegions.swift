// OutsideRegions.swift: heap memory outside the reservation.
//
// Under a tight RLIMIT_AS the reservation is small, and a program that lowers
// its limit makes us give back what we had not used. What the heap needs beyond
// comes from the kernel in regions of their own, each with its own small tables:
//
//   |···· ◂ owners | bins ▸ ··| chunks …                          |
//   start          tables      heapStart                          end
//
// The fast path does not know these addresses; they take the slow path and a
// binary search here: slower, never wrong. A region goes back to the kernel when
// nothing of it is in use.
//
// Lock: `lock` (rank `outside`); making and releasing regions is one thread's
// business at a time, under the heap's.

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
  private var capacity: Int = 0
  // Not the first field: TSan takes a mutating access for a write to the first.
  package let lock: Lock
  /// Sorted by start; in metadata.
  private var regions: UInt = 0
  // Written under the lock, read without: relaxed, for who looks an address up got
  // it from an allocation, after its region was entered.
  private let used = Atomic<Int>(0)

  package var count: Int { used.load(ordering: .relaxed) }

  package init() {
    lock = Lock(rank: .outside)
  }

  private static var largestRegion: UInt { 1 &<< 26 }

  /// Maps a region with room for a span of `size` bytes.
  /// - Parameters:
  ///   - actual: set to the bytes of the region's chunks.
  /// - Returns: the first chunk, or `Arena.none`'s value when there is no memory.
  package mutating func make(
    _ size: UInt, source: PageSource, metadata: UnsafeMutablePointer<Metadata>,
    actual: UnsafeMutablePointer<UInt>
  ) -> UInt {
    // 1 MiB at first, doubling with the number of regions up to 64 MiB.
    let step = min((1 as UInt) &<< (20 &+ UInt(count) / 4), Self.largestRegion)
    let made = map(max(size, step), source: source) ?? map(size, source: source)
    guard let made else { return UInt.max }
    guard enter(made, metadata: metadata) else {
      _ = source.release(made.mapping, made.end &- made.mapping)
      return UInt.max
    }
    actual.pointee = made.end &- made.start
    return made.start
  }

  /// The page map that knows `address`.
  package func pageMap(for address: UInt) -> PageMap? {
    if count == 0 { return nil }
    lock.lock()
    defer { lock.unlock() }
    let i = firstAbove(address) &- 1
    guard i >= 0, address < region(i).pointee.end else { return nil }
    return PageMap(tables: region(i).pointee.tables)
  }

  /// Unmaps the region whose first chunk is at `start`; nothing of it is in use.
  package mutating func release(_ start: UInt, source: PageSource) {
    lock.lock()
    let place = firstAbove(start) &- 1
    let gone = region(place).pointee
    var i = place
    while i &+ 1 < count {
      region(i).pointee = region(i &+ 1).pointee
      i &+= 1
    }
    used.store(count &- 1, ordering: .relaxed)
    lock.unlock()
    _ = source.release(gone.mapping, gone.end &- gone.mapping)
  }

  /// Calls `body` with every region. Takes no lock.
  package func forEach(_ body: (OutsideRegion) -> Void) {
    var i = 0
    while i < count {
      body(region(i).pointee)
      i &+= 1
    }
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

  private func region(_ i: Int) -> UnsafeMutablePointer<OutsideRegion> {
    regions.pointer(to: OutsideRegion.self) + i
  }

  /// The index of the first region that starts above `address`.
  private func firstAbove(_ address: UInt) -> Int {
    var low = 0
    var high = count
    while low < high {
      let middle = (low &+ high) / 2
      if region(middle).pointee.start <= address { low = middle &+ 1 } else { high = middle }
    }
    return low
  }

  private mutating func enter(
    _ made: OutsideRegion, metadata: UnsafeMutablePointer<Metadata>
  ) -> Bool {
    lock.lock()
    defer { lock.unlock() }
    if count == capacity {
      // A table that is outgrown stays behind in metadata: at most as much again.
      let larger = max(64, capacity &* 2)
      let bytes = UInt(larger) &* UInt(MemoryLayout<OutsideRegion>.stride)
      let table = metadata.pointee.lock.withLock {
        metadata.pointee.cut(bytes.roundedUp(to: 64), alignment: 64)
      }
      guard table != 0 else { return false }
      var i = 0
      while i < count {
        (table.pointer(to: OutsideRegion.self) + i).initialize(to: region(i).pointee)
        i &+= 1
      }
      regions = table
      capacity = larger
    }
    var i = count
    let place = firstAbove(made.start)
    while i > place {
      region(i).pointee = region(i &- 1).pointee
      i &-= 1
    }
    region(place).pointee = made
    used.store(count &+ 1, ordering: .relaxed)
    return true
  }
}
