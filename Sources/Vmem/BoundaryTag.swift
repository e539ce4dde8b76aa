// BoundaryTag.swift: the description of one segment of an arena.
//
// A span is a range of integers that an arena owns; segments cut it up without
// gaps. Each span and each segment has one boundary tag. Tags live in metadata,
// never in what they describe, so an arena can hand out identifiers as well as
// addresses. After Bonwick & Adams, "Magazines and Vmem" (2001), §4.
//
//   segment order (by address; `before` and `after`):
//
//     span [0,64) ⇄ busy [0,16) ⇄ free [16,24) ⇄ busy [24,64) ⇄ span [128,160) ⇄ …
//
//   and beside it, by what the tag describes:
//     span  `next`/`previous`: the other spans, by address; `older`/`younger`: SpanTree
//     free  `next`/`previous`: free list of its order; `older`/`younger`: age list, if dirty
//     busy  `next`/`previous`: hash chain, if registered; `older`: quantum cache, if cached
//
// Lock: the arena's, except `payload` (the owner of a busy segment) and the
// fields of a cached segment (the lock of the quantum caches).

import Base

package typealias TagPointer = UnsafeMutablePointer<BoundaryTag>

/// 80 bytes, so that a page of metadata holds 51.
package struct BoundaryTag: ~Copyable, Linked {
  package enum Kind: UInt8 {
    /// A span that goes back to the source once it is wholly free.
    case importedSpan
    /// A span that stays.
    case staticSpan
    case free
    case busy
    /// A free segment whose contents are being purged by the caller.
    case withdrawn
  }

  /// The first integer of the segment, a multiple of the quantum.
  package internal(set) var start: UInt
  /// The number of integers (bytes, of address space); a multiple of the quantum, not 0.
  package internal(set) var size: UInt
  package var next: TagPointer?
  package var previous: TagPointer?
  var before: TagPointer?
  var after: TagPointer?
  var older: TagPointer?
  var younger: TagPointer?
  /// Of a busy segment: a word for its owner; 0 when it is allocated, lost when
  /// it is freed. Stored, so that the owner touches nothing but this word.
  /// Otherwise the stamp.
  package var payload: UInt
  package internal(set) var kind: Kind
  /// Whether the contents may be other than zero. Of a busy segment: whether
  /// they were so when it was allocated.
  package var isDirty: Bool
  var isHashed: Bool
  var isCached: Bool
  /// Of a busy segment: a second, smaller word for its owner, who leaves it 0.
  package var note: UInt32

  init() {
    start = 0
    size = 0
    next = nil
    previous = nil
    before = nil
    after = nil
    older = nil
    younger = nil
    payload = 0
    kind = .free
    isDirty = false
    isHashed = false
    isCached = false
    note = 0
  }

  /// The first integer after the segment. Never wraps: see `Arena.addSpan`.
  @inline(__always)
  package var end: UInt { start &+ size }

  @inline(__always)
  package var isSpan: Bool { kind == .importedSpan || kind == .staticSpan }

  /// When a free segment became dirty, in the caller's unit of time.
  @inline(__always)
  package internal(set) var stamp: UInt64 {
    get { UInt64(payload) }
    set { payload = UInt(newValue) }
  }
}

/// Dirty free segments in the order in which they became dirty.
///
///   oldest ──▶ segment ⇄ segment ⇄ segment ◀── youngest
struct AgeList {
  private(set) var oldest: TagPointer?
  private(set) var youngest: TagPointer?

  init() {
    oldest = nil
    youngest = nil
  }

  mutating func append(_ tag: TagPointer) {
    tag.pointee.older = youngest
    tag.pointee.younger = nil
    if let youngest { youngest.pointee.younger = tag } else { oldest = tag }
    youngest = tag
  }

  mutating func insert(_ tag: TagPointer, behind place: TagPointer) {
    let younger = place.pointee.younger
    tag.pointee.older = place
    tag.pointee.younger = younger
    place.pointee.younger = tag
    if let younger { younger.pointee.older = tag } else { youngest = tag }
  }

  mutating func remove(_ tag: TagPointer) {
    let older = tag.pointee.older
    let younger = tag.pointee.younger
    if let older { older.pointee.younger = younger } else { oldest = younger }
    if let younger { younger.pointee.older = older } else { youngest = older }
  }

  /// Puts `tag`, which is not on the list, where `former` is, and takes that off.
  mutating func replace(_ former: TagPointer, by tag: TagPointer) {
    insert(tag, behind: former)
    remove(former)
  }
}
