// Reservation.swift: the one stretch of address space everything lies in.
//
//  start                          P                          heap
//  |metadata ▸ ····|···· ◂ owners | bins ▸ ·····|···|heap ▸ ················| end
//
// Everything grows into reserved space in the direction of its arrow, by
// committed steps; the gaps stay inaccessible and guard their neighbours. Because
// neighbours share protection, the whole heap is six lines of /proc/self/maps
// however large it gets.
//
// At P two tables meet that say what each chunk (16 KiB) of address space holds,
// indexed by (address - P) / 16 KiB: upwards the page map, one UInt16 a chunk,
// which the fast path reads; downwards the owner table, one word a chunk.
// What their entries mean is the business of Keg/PageMap.swift.
//
// Lock: none of its own; `Heap.lock` protects it after boot.

import Base
import Platform
import Synchronization

package enum Chunk {
  package static var size: UInt { 16384 }
  package static var shift: UInt { 14 }
}

package struct Reservation: ~Copyable {
  // Not a constant first: TSan takes a mutating access for a write to the first field.
  private var binsTop: UInt
  package let source: PageSource
  package let start: UInt
  package private(set) var end: UInt
  /// P of the picture.
  package let tables: UInt
  /// The first byte of the heap; a multiple of 2 MiB.
  package let heapStart: UInt
  /// The heap's top is a multiple of it after a step of growth.
  private var stepUnit = Chunk.size
  /// The heap is committed up to here. Written under the heap's lock, read by every
  /// look-up; relaxed, for who looks an address up got it from an allocation, after
  /// the growth that made room for it.
  private let top: Atomic<UInt>
  package let metadataEnd: UInt
  private var ownersBottom: UInt
  private var ownersEnd: UInt
  private var binsEnd: UInt
  private let pageSize: UInt

  /// Reserves `wanted` bytes, or half of that, and so on down to 4 MiB.
  ///
  /// When the first size was refused, only half of the one that the kernel
  /// accepted is kept: address space is scarce and the program needs some too.
  /// - Parameters:
  ///   - wanted: bytes, a power of two.
  ///   - pageSize: of the OS page, from the auxiliary vector (G32).
  package init?(wanted: UInt, pageSize: UInt, source: PageSource) {
    var size = wanted
    var address: UInt = 0
    while size >= 1 &<< 22 {
      address = source.reserve(size)
      if address != 0 { break }
      size /= 2
    }
    guard address != 0 else { return nil }
    if size < wanted, source.release(address &+ size / 2, size / 2) { size /= 2 }
    self.source = source
    self.pageSize = pageSize
    start = address
    end = (address &+ size).roundedDown(to: pageSize)
    // Shares of the whole: 1/16 metadata, 8 bytes a chunk owners, 2 bins.
    let metadata = address &+ (size / 16).roundedUp(to: pageSize)
    let chunks = size / Chunk.size
    metadataEnd = metadata
    tables = (metadata &+ (chunks &* 8).roundedUp(to: pageSize)).roundedUp(to: Chunk.size)
      // Off a boundary of 2 MiB, so that the first entries of both tables, for 2 GiB of
      // heap, share a page of the kernel's page table.
      &+ (size >= 1 &<< 26 ? 1 &<< 20 : 0)
    ownersEnd = metadata
    let alignment: UInt = size >= 1 &<< 26 ? 1 &<< 21 : Chunk.size
    heapStart = (tables &+ chunks &* 2 &+ pageSize).roundedUp(to: alignment)
    top = Atomic(heapStart)
    binsTop = tables
    binsEnd = heapStart
    ownersBottom = tables
  }

  /// Table steps of 16 pages: they are rarely taken and cost nothing untouched.
  private var tableStep: UInt { pageSize &* 16 }

  package var heapTop: UInt { top.load(ordering: .relaxed) }

  /// Chunks that the tables cover: those from P to the top of the heap.
  package var chunkCount: UInt { (heapTop &- tables) &>> Chunk.shift }

  /// Whether `address` lies in the committed heap.
  package func contains(_ address: UInt) -> Bool {
    address &- heapStart < heapTop &- heapStart
  }

  /// By how much to grow for a step of at least `bytes`.
  package func step(_ bytes: UInt) -> UInt {
    (heapTop &+ bytes).roundedUp(to: stepUnit) &- heapTop
  }

  /// Commits `[heapTop, newTop)` and the tables that describe it.
  /// - Parameter newTop: a multiple of the chunk size, at most `end`.
  /// - Returns: false, and nothing has changed for the caller, when there is no memory.
  package mutating func growHeap(to newTop: UInt) -> Bool {
    guard newTop <= end else { return false }
    let chunks = (newTop &- tables) &>> Chunk.shift
    let bins = min((tables &+ chunks &* 2).roundedUp(to: tableStep), binsEnd)
    if bins > binsTop {
      guard source.commit(binsTop, bins &- binsTop) else { return false }
      binsTop = bins
    }
    let owners = max((tables &- chunks &* 8).roundedDown(to: tableStep), ownersEnd)
    if owners < ownersBottom {
      guard source.commit(owners, ownersBottom &- owners) else { return false }
      ownersBottom = owners
    }
    guard source.commit(heapTop, newTop &- heapTop) else { return false }
    top.store(newTop, ordering: .relaxed)
    return true
  }

  /// Gives unused address space back to the program, but for the metadata's: before it
  /// limits its own address space or locks all of it.
  /// - Parameter kept: how many bytes the heap may still grow by here.
  package mutating func releaseUnused(keeping kept: UInt = 0) {
    let tail = min(heapTop &+ min(kept, end &- heapTop), end).roundedUp(to: pageSize)
    if tail < end, source.release(tail, end &- tail) { end = tail }
    let chunks = (end &- tables) &>> Chunk.shift
    let owners = max((tables &- chunks &* 8).roundedDown(to: tableStep), ownersEnd)
    let ownersTop = min(owners, ownersBottom)
    if ownersEnd < ownersTop, source.release(ownersEnd, ownersTop &- ownersEnd) {
      ownersEnd = ownersTop
    }
    let bins = max(min((tables &+ chunks &* 2).roundedUp(to: tableStep), binsEnd), binsTop)
    if bins < binsEnd, source.release(bins, binsEnd &- bins) { binsEnd = bins }
  }

  /// Whether untouched pages of the heap would cost nothing: asks with those that it may
  /// have last. False when there are none.
  package func untouchedIsFree() -> Bool {
    let first = (heapTop &+ (end &- heapTop) / 2).roundedUp(to: pageSize)
    return first < end && source.isFree(first, end &- first)
  }

  /// Advises the kernel to use huge pages for the heap wherever it can, or never. If it
  /// does, the heap grows by whole ones: the first touch of a part stays a small page.
  package mutating func adviseHugePages(_ wanted: Bool) {
    if wanted { stepUnit = 2 &<< 20 }
    _ = keg_syscall6(
      Int(KEG_SYS_madvise), Int(bitPattern: heapStart), Int(bitPattern: end &- heapStart),
      wanted ? 14 /* MADV_HUGEPAGE */ : 15 /* MADV_NOHUGEPAGE */, 0, 0, 0)
  }

  /// Bytes that the heap may have here.
  package var heapBytes: UInt { end &- heapStart }
}
