// Heap.swift: where slabs and large blocks get their chunks from.
//
//   kegs, large blocks ──▶ recent spans ──▶ heap arena ──▶ reservation, committed in steps
//                                    └──▶ outside arena ──▶ regions elsewhere, when that is used up
//
// Dirty spans go back to the kernel when their time is over (`purge`).
//
// The heap ties together what lies below the kegs: the reservation, the arena
// that hands out its chunks, the page map, and the pools for our structures. A
// process has one; tests make as many as they like. It lives in its own metadata.
//
// Locks: the arena's own; `lock` (rank `heap`) serialises growth and is taken
// with no other lock held.

import Base
import Pages
import Synchronization
import Vmem

package struct Heap: ~Copyable {
  /// Called with the new count of chunks whenever the page map grows, so that
  /// the fast path learns of it.
  package var published: (@convention(c) (_ chunkCount: UInt) -> Void)?
  // Not the first field: TSan takes a mutating access for a write to the first.
  package let lock: Lock
  package var reservation: Reservation
  package let pageMap: PageMap
  package let metadata: UnsafeMutablePointer<Metadata>
  package let tags: UnsafeMutablePointer<Pool>
  /// Header pools by size, smallest first; see `headerBytes(ofPool:)`.
  package let slabHeaders: UnsafeMutablePointer<Pool>
  package let arena: UnsafeMutablePointer<Arena>
  /// Spans of the outside regions; a region goes when it is wholly free.
  package let outsideArena: UnsafeMutablePointer<Arena>
  package var outside: OutsideRegions
  /// Called, with no lock held, before the heap grows: gives back what the layers
  /// above cache. True: something came back, so try again without growing.
  package var relieve: (@convention(c) (_ heapBytes: UInt) -> Bool)?
  /// Called before a slab with records goes; see `Slab.records`.
  package var forgetRecords: (@convention(c) (_ slab: UnsafeMutableRawPointer) -> Void)?
  /// Called for an item of such a slab whose first word the core has used.
  package var restoreSlot: (@convention(c) (_ slot: UInt) -> Void)?
  /// Slabs of the zones of malloc with items of at most so many bytes have a margin.
  package var mostMargined: UInt = 0
  fileprivate let recent: RecentSpans
  /// See HomeSpans.swift: their address and how many are in use.
  let homes = Atomic<UInt>(0)
  /// See Heap+Headroom.swift.
  let recentGrowing: GrowingSpans
  /// The time when one of them was last used. Relaxed: stands for itself.
  let growingUsed = Atomic<UInt64>(0)
  /// See Heap+Limit.swift. Relaxed: stands for itself.
  let limit = Atomic<UInt>(0)
  // Written and read by any thread; each value stands for itself: relaxed.
  fileprivate let stamp = Atomic<UInt64>(0)
  fileprivate let purged = Atomic<UInt>(0)
  fileprivate let purges = Atomic<UInt>(0)
  // How many threads want growth and no relief now.
  fileprivate let mustGrow = Atomic<Int>(0)
  /// See Heap+Headroom.swift. Relaxed: each stands for itself.
  let headroom = Atomic<UInt>(0)
  let headroomCost = Atomic<UInt8>(HeadroomCost.unknown)
  // The most bytes that were in use at once, of late: loses an eighth a second.
  fileprivate let peakInUse = Atomic<UInt>(0)

  /// Time of the last tick in nanoseconds: the stamp of what becomes dirty now.
  package var now: UInt64 {
    get { stamp.load(ordering: .relaxed) }
    nonmutating set { stamp.store(newValue, ordering: .relaxed) }
  }
  /// Bytes given back to the kernel so far, and in how many calls.
  package var purgedBytes: UInt { purged.load(ordering: .relaxed) }
  package var purgeCount: UInt { purges.load(ordering: .relaxed) }

  /// Bytes of the reservation that slabs and blocks were given so far; for bounds.
  package var committedBytes: UInt {
    reservation.heapTop &- reservation.heapStart &- headroom.load(ordering: .relaxed)
  }

  package static var slabHeaderPoolCount: Int { 5 }

  /// Item sizes of the header pools: 64 bytes and the bitmaps of 2,048 … 1 items.
  private static func headerBytes(ofPool index: Int) -> UInt {
    switch index {
    case 0: 80
    case 1: 128
    case 2: 192
    case 3: 256
    default: 320
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
    arena: UnsafeMutablePointer<Arena>, outsideArena: UnsafeMutablePointer<Arena>,
    growingSlots: UnsafeMutablePointer<Atomic<UInt>>, recentWords: UnsafeMutablePointer<Atomic<UInt>>
  ) {
    published = nil
    lock = Lock(rank: .heap)
    pageMap = PageMap(tables: reservation.tables)
    self.reservation = reservation
    self.metadata = metadata
    self.tags = tags
    self.slabHeaders = slabHeaders
    self.arena = arena
    self.outsideArena = outsideArena
    recentGrowing = GrowingSpans(slots: growingSlots)
    recent = RecentSpans(memory: recentWords)
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
      let heap = metadata.room(for: Heap.self), let arena = metadata.room(for: Arena.self),
      let outsideArena = metadata.room(for: Arena.self),
      let growingSlots = metadata.room(for: Atomic<UInt>.self, count: GrowingSpans.count),
      let recentWords = metadata.room(for: Atomic<UInt>.self, count: RecentSpans.wordCount)
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
        arena: arena, outsideArena: outsideArena, growingSlots: growingSlots,
        recentWords: recentWords))
    arena.initialize(
      to: Arena(
        name: "heap", quantum: Chunk.size, tags: tags, mergesSpans: true,
        importSpan: { source, size, actual, _ in importChunks(source, size, actual) },
        source: UnsafeMutableRawPointer(heap)))
    outsideArena.initialize(
      to: Arena(
        name: "outside", quantum: Chunk.size, tags: tags,
        importSpan: { importRegion($0, $1, $2, $3) },
        releaseSpan: { source, start, _, isDirty, stamp in releaseRegion(source, start, isDirty, stamp) },
        source: UnsafeMutableRawPointer(heap)))
    return heap
  }
}

// MARK: - Growth

/// The heap arena's import function: commits more of the reservation.
@_optimize(size)
private func importChunks(
  _ source: UnsafeMutableRawPointer?, _ size: UInt, _ actual: UnsafeMutablePointer<UInt>
) -> UInt {
  let heap = UInt(bitPattern: source).pointer(to: Heap.self)
  let bytes = heap.pointee.committedBytes
  let topBefore = heap.pointee.reservation.heapTop
  if heap.pointee.mustGrow.load(ordering: .relaxed) == 0,
    heap.countHomeBytes() > 0 || heap.pointee.relieve?(bytes) ?? false
  {
    return Arena.none
  }
  heap.pointee.lock.lock()
  defer { heap.pointee.lock.unlock() }
  let top = heap.pointee.reservation.heapTop
  if top != topBefore {
    // Of many threads that want a little each, one grows the heap, not all.
    actual.pointee = 0
    return Arena.none
  }
  let committed = heap.pointee.committedBytes
  // Steps grow with the heap. The first ones stay below a huge page, so that
  // THP=always cannot inflate a small process.
  let step = heap.pointee.reservation.step(max(min(committed / 32, 1 &<< 24), 1 &<< 20))
  // Of a request that may well be refused, only a part is taken precautions for: what
  // is committed stays charged.
  heap.commitMetadata(for: committed &+ max(min(size, 1 &<< 26), step))
  // The step first, the bare need when there is no memory for it.
  var wanted = max(size, step)
  while true {
    if heap.pointee.reservation.growHeap(to: top &+ wanted) {
      if wanted > 1 &<< 26 { heap.commitMetadata(for: committed &+ wanted) }
      heap.pointee.published?(heap.pointee.reservation.chunkCount)
      actual.pointee = wanted
      return top
    }
    if wanted == size { break }
    wanted = size
  }
  return Arena.none
}

extension UnsafeMutablePointer where Pointee == Heap {
  /// Commits in advance what a heap of `bytes` may need: one part in 64 is what the
  /// headers of slabs of 8-byte items take; as much again is for buckets.
  @inline(never)
  fileprivate func commitMetadata(for bytes: UInt) {
    pointee.metadata.pointee.lock.withLock { pointee.metadata.pointee.commitAhead(bytes / 32) }
  }
}

// MARK: - Spans

extension UnsafeMutablePointer where Pointee == Heap {
  /// Takes a span of at least `size` bytes.
  /// - Returns: its tag; `isDirty` says whether the memory may be non-zero.
  package func allocateSpan(_ size: UInt) -> TagPointer? {
    let size = size.roundedUp(to: Chunk.size)
    var span = pointee.arena.allocate(size)
    if span == nil || !span.unsafelyUnwrapped.pointee.isDirty {
      // No clean memory is used while dirty memory can be had.
      let other = takeAnyHome(size)
      if other != nil || flushHomes(onlyHalf: false) || flushRecent() {
        if let clean = span { pointee.arena.free(clean, dirty: false, stamp: 0) }
        span = other ?? pointee.arena.allocate(size)
      }
    }
    span = span ?? growing { $0.arena.allocate(size) } ?? pointee.outsideArena.allocate(size)
    if let span, !span.pointee.isDirty { limitDirty() }
    return pointee.limit.load(ordering: .relaxed) == 0 ? span : admitted(span)
  }

  /// The span of a large block of this size that was freed lately.
  @inline(__always)
  package func takeRecent(_ size: UInt) -> TagPointer? { pointee.recent.take(size) }

  /// Whether it is time to look at the clock; see `RecentSpans.countUse`.
  @inline(__always)
  package func countRecentUse() -> Bool { pointee.recent.countUse() }

  /// Keeps the span of a large block for the next request of its size.
  /// - Returns: false when there is no room for it.
  @inline(__always)
  package func giveRecent(_ span: TagPointer) -> Bool {
    span.pointee.size <= RecentSpans.largest && pointee.recent.give(span)
  }

  /// Hands the recent spans to the arena. Takes its lock.
  /// - Returns: whether there was any.
  package func flushRecent() -> Bool {
    if pointee.recent.isEmpty { return false }
    var found = false
    var index = 0
    while index < RecentSpans.count {
      if let span = pointee.recent.remove(index) {
        freeSpan(span)
        found = true
      }
      index &+= 1
    }
    return found
  }

  /// Bytes of recent spans: in use for the arena, dirty for everybody else.
  package var recentBytes: UInt {
    pointee.recent.countBytes() &+ pointee.recentGrowing.touchedBytes &+ countHomeBytes()
  }

  /// Tries once more where the heap may grow: the first failure may mean that memory
  /// came back from above (`relieve`) instead.
  @inline(__always)
  func growing(_ body: (borrowing Heap) -> TagPointer?) -> TagPointer? {
    pointee.mustGrow.wrappingAdd(1, ordering: .relaxed)
    defer { pointee.mustGrow.wrappingSubtract(1, ordering: .relaxed) }
    return body(pointee)
  }

  /// Fresh memory was taken although there may be dirty memory, which did not fit:
  /// as much of that goes back as what is resident exceeds the recent peak of what
  /// was in use, by more than a quarter.
  package func limitDirty() {
    let inUse = bytesInUse
    let dirty = pointee.arena.dirtyBytes &+ pointee.recentGrowing.touchedBytes
    let peak = max(inUse, pointee.peakInUse.load(ordering: .relaxed))
    pointee.peakInUse.store(peak, ordering: .relaxed)
    let most = peak &+ peak / 4 &+ 1 &<< 20
    if inUse &+ dirty > most {
      _ = purge(notAfter: .max, atMost: inUse &+ dirty &- most)
    }
  }

  /// Lets the recent peak lose one part in `divisor`. Called once a tick.
  package func agePeak(by divisor: UInt) {
    let peak = pointee.peakInUse.load(ordering: .relaxed)
    pointee.peakInUse.store(max(peak &- peak / divisor, bytesInUse), ordering: .relaxed)
  }

  /// Bytes of the reservation that somebody uses, a moment old.
  private var bytesInUse: UInt {
    let idle = headroomBytes &+ pointee.recentGrowing.touchedBytes &+ countHomeBytes()
    let busy = pointee.arena.bytesInUseAndDirty.inUse
    return busy > idle ? busy &- idle : 0
  }

  /// Takes a span whose start is a multiple of `alignment`.
  @_optimize(size)
  package func allocateSpan(_ size: UInt, alignment: UInt) -> TagPointer? {
    if alignment <= Chunk.size { return allocateSpan(size) }
    let size = size.roundedUp(to: Chunk.size)
    let span = pointee.arena.allocate(size, alignment: alignment)
      ?? (flushHomes(onlyHalf: false) ? pointee.arena.allocate(size, alignment: alignment) : nil)
      ?? growing { $0.arena.allocate(size, alignment: alignment) }
      ?? pointee.outsideArena.allocate(size, alignment: alignment)
    return pointee.limit.load(ordering: .relaxed) == 0 ? span : admitted(span)
  }

  /// The arena that `span` belongs to.
  @inline(__always)
  package func arena(of span: TagPointer) -> UnsafeMutablePointer<Arena> {
    pointee.reservation.contains(span.pointee.start) ? pointee.arena : pointee.outsideArena
  }

  /// Gives a span back; its pages stay with the process until they are purged.
  package func freeSpan(_ span: TagPointer) {
    arena(of: span).free(span, dirty: true, stamp: pointee.now)
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

  /// Bytes of free spans that have not gone back to the kernel.
  package var dirtyBytes: UInt {
    let bytes = pointee.arena.dirtyBytes &+ recentBytes
    if pointee.outside.isUnused { return bytes }
    return bytes &+ pointee.outsideArena.dirtyBytes &+ pointee.outside.waitingBytes
  }

  /// Gives dirty spans back to the kernel that have been free since `stamp`.
  /// - Returns: how many bytes went back.
  package func purge(notAfter stamp: UInt64, atMost limit: UInt = .max) -> UInt {
    _ = flushRecent()
    _ = flushHomes(onlyHalf: stamp != .max)
    if pointee.growingUsed.load(ordering: .relaxed) <= stamp { _ = flushGrowing() }
    let bytes = purge(pointee.arena, notAfter: stamp, atMost: limit)
    if pointee.outside.isUnused { return bytes }
    return bytes &+ purgeOutside(notAfter: stamp, atMost: limit &- bytes)
  }

  private func purgeOutside(notAfter stamp: UInt64, atMost limit: UInt) -> UInt {
    let bytes = purge(pointee.outsideArena, notAfter: stamp, atMost: limit)
    if pointee.outside.waitingBytes == 0 || bytes >= limit { return bytes }
    pointee.lock.lock()
    let gone = pointee.outside.releaseWaiting(
      notAfter: stamp, source: pointee.reservation.source)
    pointee.lock.unlock()
    _ = pointee.purged.wrappingAdd(gone, ordering: .relaxed)
    return bytes &+ gone
  }

  private func purge(
    _ arena: UnsafeMutablePointer<Arena>, notAfter stamp: UInt64, atMost limit: UInt
  ) -> UInt {
    var bytes: UInt = 0
    while bytes < limit,
      let span = arena.withdrawDirty(notAfter: stamp, atMost: limit &- bytes)
    {
      let size = span.pointee.size
      let clean = pointee.reservation.source.purge(span.pointee.start, size)
      arena.returnPurged(span, clean: clean, stamp: pointee.now)
      if !clean { break }
      bytes &+= size
      _ = pointee.purges.wrappingAdd(1, ordering: .relaxed)
    }
    _ = pointee.purged.wrappingAdd(bytes, ordering: .relaxed)
    return bytes
  }
}
