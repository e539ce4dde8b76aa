// Arena.swift: a general allocator of integer ranges.
//
// An arena owns spans of integers (addresses, or identifiers) and hands out
// segments of them. It gives the layer above address space for slabs and large
// blocks; it takes boundary tags and hash tables from Pages.Metadata and spans
// from its source, which may be another arena. It never touches what its
// integers stand for. After Bonwick & Adams, "Magazines and Vmem" (2001), §4,
// and NetBSD's vmem(9).
//
//   allocate ─▶ quantum cache ─▶ dirty lists ─▶ clean lists ─▶ import from source
//     (small sizes)   (best fit)     (instant fit)   (lock dropped)
//
// Free segments are clean (known zero, or never used) or dirty. The two kinds
// never coalesce, so that the zeroes of fresh memory are not forgotten, and
// dirty ones are used first, so that used memory is used again.
//
// An arena is shared, so it is used through its pointer: those functions take
// the lock. The mutating ones of the struct itself are called under it.
//
// Lock: `lock`, rank arena(height). It is dropped around import, release and
// every request to the pool of tags that may have to wait for memory. The
// quantum caches have a lock of their own that nothing is taken under.
//
// Invariants, checked by checkInvariants():
//   totalBytes == inUseBytes + withdrawnBytes + bytes of free segments
//   totalBytes == sum of span sizes; a span's segments cover it without gaps
//   totalBytes + importingBytes ≤ limitBytes after an import (but see Arena+Spans)
//   dirtyBytes == bytes of dirty free segments == bytes on the age list
//   two free neighbours of one span differ in isDirty
//   every free segment is on exactly the list of its kind and order

import Base
import Pages

package struct Arena: ~Copyable {
  /// No integer at all. 0 is a legal start, so it cannot say that; the last
  /// integer is never in a span.
  package static var none: UInt { .max }

  /// Takes a span of at least `size` bytes from `source`.
  ///
  /// Called without the arena's lock. Stores the true size (a multiple of the
  /// quantum) and whether the span may hold other bytes than zero; presets are
  /// `size` and false.
  /// - Returns: the start, a multiple of the quantum, or `Arena.none`; of a source of merged
  ///   spans that with a size of 0 when another thread was quicker, and it may be enough.
  package typealias Import =
    @convention(c) (
      _ source: UnsafeMutableRawPointer?, _ size: UInt,
      _ actualSize: UnsafeMutablePointer<UInt>, _ isDirty: UnsafeMutablePointer<Bool>
    ) -> UInt

  /// Gives a whole imported span back to `source`. Called without the arena's
  /// lock; `stamp` is the latest at which a part of the span became dirty.
  package typealias Release =
    @convention(c) (
      _ source: UnsafeMutableRawPointer?, _ start: UInt, _ size: UInt, _ isDirty: Bool,
      _ stamp: UInt64
    ) -> Void

  package let name: StaticString
  /// Every start and size is a multiple of it. A power of two.
  package let quantum: UInt
  let quantumShift: UInt
  /// Whether a span that begins where another one ends extends that one. Such
  /// an arena never releases.
  package let mergesSpans: Bool
  /// Whether wholly free imported spans go back to the source.
  private(set) var releases: Bool
  private(set) var importSpan: Import?
  private(set) var releaseSpan: Release?
  private(set) var source: UnsafeMutableRawPointer?
  /// Imports ask for a multiple of it first.
  private(set) var importQuantum: UInt
  /// No import may raise `totalBytes` above it (A09).
  var limitBytes: UInt
  /// Bytes that imports under way have asked for.
  var importingBytes: UInt
  let tagPool: UnsafeMutablePointer<Pool>
  let hashMemory: UnsafeMutablePointer<Metadata>?
  /// Sizes up to this many bytes have a quantum cache; 0 when none has.
  let cachedBytes: UInt

  package let lock: Lock
  var dirty: FreeLists
  var clean: FreeLists
  var age: AgeList
  var spans: List<BoundaryTag>
  /// The same spans, to be found by address.
  var tree: SpanTree
  /// The segment, or span, with the highest address.
  var last: TagPointer?

  var totalBytes: UInt
  var inUseBytes: UInt
  var withdrawnBytes: UInt
  var freeDirtyBytes: UInt

  var reserve: TagReserve
  var hash: SegmentHash
  let caches: QuantumCaches

  /// An arena without spans.
  ///
  /// - Parameters:
  ///   - quantum: the unit of starts and sizes; a power of two, 1 for identifiers.
  ///   - tags: where boundary tags come from: items of `BoundaryTag.byteCount`.
  ///   - hashMemory: where the table of registered segments comes from; nil for
  ///     an arena whose users keep their tags.
  ///   - height: how many levels of other arenas import from this one, 0…3.
  ///   - cachedQuanta: sizes of 1…this many quanta get a cache, at most 16.
  ///   - releaseSpan: ignored if `mergesSpans`.
  ///   - source: the first argument of `importSpan` and `releaseSpan`.
  ///   - former: tables of a dismantled arena, to be used instead of new ones.
  package init(
    name: StaticString, quantum: UInt, tags: UnsafeMutablePointer<Pool>,
    hashMemory: UnsafeMutablePointer<Metadata>? = nil, height: UInt = 0,
    cachedQuanta: UInt = 0, mergesSpans: Bool = false,
    importSpan: Import? = nil, releaseSpan: Release? = nil,
    source: UnsafeMutableRawPointer? = nil, former: FormerTables = FormerTables()
  ) {
    self.name = name
    self.quantum = quantum
    quantumShift = quantum.log2Floor
    self.mergesSpans = mergesSpans
    releases = !mergesSpans && releaseSpan != nil
    self.importSpan = importSpan
    self.releaseSpan = releaseSpan
    self.source = source
    importQuantum = quantum
    limitBytes = .max
    importingBytes = 0
    tagPool = tags
    self.hashMemory = hashMemory
    cachedBytes = min(cachedQuanta, QuantumCaches.maximumQuanta) &* quantum
    lock = Lock(rank: .arena(height: height))
    dirty = FreeLists(quantumShift: quantumShift)
    clean = FreeLists(quantumShift: quantumShift)
    age = AgeList()
    spans = List()
    tree = SpanTree()
    last = nil
    totalBytes = 0
    inUseBytes = 0
    withdrawnBytes = 0
    freeDirtyBytes = 0
    reserve = TagReserve(pool: tags)
    hash = SegmentHash(tables: former.hash)
    caches = QuantumCaches(tables: former.cached, memory: cachedQuanta == 0 ? nil : hashMemory)
    hash.makeFirstTable(from: hashMemory)
  }

  /// Makes `source` what the arena imports from. Called with the lock held, before
  /// anything was imported.
  package mutating func setSource(
    importSpan: @escaping Import, releaseSpan: Release?, source: UnsafeMutableRawPointer?,
    importQuantum: UInt
  ) {
    self.importSpan = importSpan
    self.releaseSpan = releaseSpan
    self.source = source
    self.importQuantum = importQuantum
    releases = !mergesSpans && releaseSpan != nil
  }

  // ---- segments, under the lock ---------------------------------------------

  /// Puts `tag` into the segment order, directly below `place`.
  @inline(__always)
  func link(_ tag: TagPointer, below place: TagPointer) {
    // A segment always has its span before it.
    let before = place.pointee.before.unsafelyUnwrapped
    tag.pointee.before = before
    tag.pointee.after = place
    before.pointee.after = tag
    place.pointee.before = tag
  }

  /// Puts `tag` into the segment order, directly above `place`; first if nil.
  mutating func link(_ tag: TagPointer, above place: TagPointer?) {
    let after = place != nil ? place.unsafelyUnwrapped.pointee.after : spans.head
    tag.pointee.before = place
    tag.pointee.after = after
    if let place { place.pointee.after = tag }
    if let after { after.pointee.before = tag } else { last = tag }
  }

  @inline(__always)
  mutating func unlink(_ tag: TagPointer) {
    let before = tag.pointee.before
    let after = tag.pointee.after
    if let before { before.pointee.after = after }
    if let after { after.pointee.before = before } else { last = before }
  }

  /// Puts a free segment on the list of its kind and order; not on the age list.
  @inline(__always)
  mutating func enlist(_ tag: TagPointer) {
    if tag.pointee.isDirty {
      dirty.insert(tag)
      freeDirtyBytes = freeDirtyBytes &+ tag.pointee.size
    } else {
      clean.insert(tag)
    }
  }

  /// Takes a free segment off its lists, the age list among them.
  @inline(__always)
  mutating func unlist(_ tag: TagPointer) {
    if tag.pointee.isDirty {
      dirty.remove(tag)
      age.remove(tag)
      freeDirtyBytes = freeDirtyBytes &- tag.pointee.size
    } else {
      clean.remove(tag)
    }
  }

  /// `size` in whole quanta; 0 for 0 and for sizes that do not fit.
  @inline(__always)
  func rounded(_ size: UInt) -> UInt { size.roundedUp(to: quantum) }
}
