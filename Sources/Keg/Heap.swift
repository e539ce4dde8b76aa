// Heap.swift: where slabs and large blocks get their chunks from.
//
//   kegs, large blocks ──▶ heap arena ──▶ reservation, committed step by step
//                              │    └──▶ outside regions, when that is used up
//                              └──▶ purge: dirty spans back to the kernel
//
// The heap ties together what lies below the kegs: the reservation, the arena
// that hands out its chunks, the page map, and the pools for our structures. A
// process has one; tests make as many as they like. It lives in its own metadata.
//
// Locks: the arena's own; `lock` (rank `heap`) serialises growth and is taken
// with no other lock held.

import Base
import Pages
import Vmem

package struct Heap: ~Copyable {
  package let lock: Lock
  package var reservation: Reservation
  package let pageMap: PageMap
  package let metadata: UnsafeMutablePointer<Metadata>
  package let tags: UnsafeMutablePointer<Pool>
  /// Header pools by size, smallest first; see `headerBytes(ofPool:)`.
  package let slabHeaders: UnsafeMutablePointer<Pool>
  package let arena: UnsafeMutablePointer<Arena>
  package var outside: OutsideRegions
  /// Called with the new count of chunks whenever the page map grows, so that
  /// the fast path learns of it.
  package var published: (@convention(c) (_ chunkCount: UInt) -> Void)?
  /// Time of the last tick in nanoseconds: the stamp of what becomes dirty now.
  package var now: UInt64 = 0
  /// Bytes given back to the kernel so far, and in how many calls.
  package var purgedBytes: UInt = 0
  package var purgeCount: UInt = 0

  package static var slabHeaderPoolCount: Int { 7 }

  /// Item sizes of the header pools: 64 bytes and the bitmaps of 8,192 … 1 items.
  private static func headerBytes(ofPool index: Int) -> UInt {
    switch index {
    case 0: 80
    case 1: 128
    case 2: 192
    case 3: 256
    case 4: 320
    case 5: 576
    default: 1088
    }
  }

  /// The pool for headers of slabs of `layout`.
  package func headerPool(for layout: SlabLayout) -> UnsafeMutablePointer<Pool> {
    let bytes = Slab.headerBytes &+ layout.bitmapWords &* 8
    var index = 0
    while index < Self.slabHeaderPoolCount &- 1, Self.headerBytes(ofPool: index) < bytes {
      index &+= 1
    }
    return slabHeaders + index
  }

  private init(
    reservation: consuming Reservation, metadata: UnsafeMutablePointer<Metadata>,
    tags: UnsafeMutablePointer<Pool>, slabHeaders: UnsafeMutablePointer<Pool>,
    arena: UnsafeMutablePointer<Arena>
  ) {
    lock = Lock(rank: .heap)
    pageMap = PageMap(tables: reservation.tables)
    self.reservation = reservation
    self.metadata = metadata
    self.tags = tags
    self.slabHeaders = slabHeaders
    self.arena = arena
    outside = OutsideRegions()
  }

  /// Makes a heap over `wanted` bytes of address space, or fewer.
  /// - Returns: nil when there is no address space or no memory for the start.
  package static func create(
    wanted: UInt, pageSize: UInt, source: PageSource
  ) -> UnsafeMutablePointer<Heap>? {
    guard let reservation = Reservation(wanted: wanted, pageSize: pageSize, source: source) else {
      return nil
    }
    var first = Metadata(
      start: reservation.start, end: reservation.metadataEnd, source: source)
    let place = first.cut(UInt(MemoryLayout<Metadata>.stride).roundedUp(to: 64), alignment: 64)
    guard place != 0 else { return nil }
    let metadata = place.pointer(to: Metadata.self)
    metadata.initialize(to: first)
    guard let tags = metadata.room(for: Pool.self),
      let headers = metadata.room(for: Pool.self, count: slabHeaderPoolCount),
      let heap = metadata.room(for: Heap.self), let arena = metadata.room(for: Arena.self)
    else { return nil }
    tags.initialize(
      to: Pool(name: "tags", itemBytes: UInt(MemoryLayout<BoundaryTag>.stride), metadata: metadata))
    var i = 0
    while i < slabHeaderPoolCount {
      (headers + i).initialize(
        to: Pool(name: "slabs", itemBytes: headerBytes(ofPool: i), metadata: metadata))
      i &+= 1
    }
    heap.initialize(
      to: Heap(
        reservation: reservation, metadata: metadata, tags: tags, slabHeaders: headers,
        arena: arena))
    arena.initialize(
      to: Arena(
        name: "heap", quantum: Chunk.size, tags: tags, mergesSpans: true,
        importSpan: { source, size, actual, _ in importChunks(source, size, actual) },
        source: UnsafeMutableRawPointer(heap)))
    return heap
  }
}

// MARK: - Growth

/// The heap arena's import function: commits more of the reservation, or makes an
/// outside region.
private func importChunks(
  _ source: UnsafeMutableRawPointer?, _ size: UInt, _ actual: UnsafeMutablePointer<UInt>
) -> UInt {
  let heap = UInt(bitPattern: source).pointer(to: Heap.self)
  heap.pointee.lock.lock()
  defer { heap.pointee.lock.unlock() }
  let top = heap.pointee.reservation.heapTop
  let committed = top &- heap.pointee.reservation.heapStart
  // Steps grow with the heap. The first ones stay below a huge page, so that
  // THP=always cannot inflate a small process.
  let step = max(min(committed / 8, 1 &<< 26), 1 &<< 20).roundedUp(to: Chunk.size)
  // The step first, the bare need when there is no memory for it.
  var wanted = max(size, step)
  while true {
    if heap.pointee.reservation.growHeap(to: top &+ wanted) {
      heap.pointee.published?(heap.pointee.reservation.chunkCount)
      actual.pointee = wanted
      return top
    }
    if wanted == size { break }
    wanted = size
  }
  return heap.pointee.outside.make(
    size, source: heap.pointee.reservation.source, metadata: heap.pointee.metadata, actual: actual)
}

// MARK: - Spans

extension UnsafeMutablePointer where Pointee == Heap {
  /// Takes a span of at least `size` bytes.
  /// - Returns: its tag; `isDirty` says whether the memory may be non-zero.
  package func allocateSpan(_ size: UInt) -> UnsafeMutablePointer<BoundaryTag>? {
    pointee.arena.pointee.allocate(size.roundedUp(to: Chunk.size))
  }

  /// Takes a span whose start is a multiple of `alignment`.
  package func allocateSpan(_ size: UInt, alignment: UInt) -> UnsafeMutablePointer<BoundaryTag>? {
    if alignment <= Chunk.size { return allocateSpan(size) }
    return pointee.arena.pointee.allocate(size.roundedUp(to: Chunk.size), alignment: alignment)
  }

  /// Gives a span back; its pages stay with the process until they are purged.
  package func freeSpan(_ span: UnsafeMutablePointer<BoundaryTag>) {
    pointee.arena.pointee.free(span, dirty: true, stamp: pointee.now)
  }

  /// The page map that knows `address`, or nil when it is not ours.
  @inline(__always)
  package func pageMap(for address: UInt) -> PageMap? {
    if pointee.reservation.contains(address) { return pointee.pageMap }
    return pointee.outside.pageMap(for: address)
  }

  /// The page map of an address that is certainly ours.
  package func pageMap(ofOwn address: UInt) -> PageMap {
    pageMap(for: address) ?? pointee.pageMap
  }

  /// Gives dirty spans back to the kernel that have been free since `stamp`.
  /// - Returns: how many bytes went back.
  package func purge(notAfter stamp: UInt64, atMost limit: UInt = .max) -> UInt {
    var bytes: UInt = 0
    while bytes < limit,
      let span = pointee.arena.pointee.withdrawDirty(notAfter: stamp, atMost: .max)
    {
      let size = span.pointee.size
      let clean = pointee.reservation.source.purge(span.pointee.start, size)
      pointee.arena.pointee.returnPurged(span, clean: clean, stamp: pointee.now)
      if !clean { break }
      bytes &+= size
      pointee.purgeCount &+= 1
    }
    pointee.purgedBytes &+= bytes
    return bytes
  }
}
