// Heap+Headroom.swift: address space behind large blocks that grow.
//
//   span  |#### payload ####|:::::|··············· headroom ···············|
//                           touched
//
// Who makes a block larger will do so again. A block of 1 MiB or more that has to move
// for it gets a span of eight times its size. The rest of it is untouched address
// space, which costs nothing, so the block grows where it is; it moves once where it
// would have moved nine times. Where untouched memory does cost something, under strict
// overcommit or RLIMIT_DATA, there is no headroom.
//
// A tag's `touched` is how many bytes of its span a growing block has had, ever; the
// rest is known zero. What all headroom takes is counted, so that bounds which follow
// the heap's size do not follow it. Freed, such a span waits whole for the next block
// that grows, which finds its pages there; it counts as dirty, and goes when time is
// over or memory is short, like all dirty memory.

import Base
import Pages
import Synchronization
import Vmem

extension BoundaryTag {
  /// Bytes of a span with headroom that its blocks have had, ever; 0: no headroom.
  package internal(set) var touched: UInt {
    get { UInt(note) &<< Chunk.shift }
    set { note = UInt32(truncatingIfNeeded: newValue &>> Chunk.shift) }
  }
}

/// What is known of `PageSource.isFree`.
enum HeadroomCost {
  static var unknown: UInt8 { 0 }
  static var nothing: UInt8 { 1 }
  static var counted: UInt8 { 2 }
}

extension UnsafeMutablePointer where Pointee == Heap {
  /// Smaller blocks are copied quickly, bytes.
  package static var leastGrowing: UInt { 1 &<< 20 }
  private static var factor: UInt { 8 }

  /// Bytes of all spans that were never touched.
  package var headroomBytes: UInt { pointee.headroom.load(ordering: .relaxed) }

  /// Whether untouched memory costs nothing. The kernel is asked once, for it takes two
  /// system calls. Called with no lock held, takes the heap's.
  package var headroomIsFree: Bool {
    var cost = pointee.headroomCost.load(ordering: .relaxed)
    if cost == HeadroomCost.unknown {
      cost = pointee.lock.withLock { pointee.reservation.untouchedIsFree() } ? HeadroomCost.nothing : HeadroomCost.counted
      pointee.headroomCost.store(cost, ordering: .relaxed)
    }
    return cost == HeadroomCost.nothing
  }

  /// The program has changed a limit: ask again.
  package func forgetHeadroomCost() {
    pointee.headroomCost.store(HeadroomCost.unknown, ordering: .relaxed)
  }

  /// A span of about eight times `size` bytes, for a block of `size` that grows; its
  /// payload is still to be extended.
  /// - Returns: nil when there is no address space to spare.
  package func allocateGrowing(_ size: UInt) -> TagPointer? {
    let most = pointee.reservation.heapBytes / 16
    guard size >= Self.leastGrowing, size < most / Self.factor, limitBytes == 0,
      headroomBytes &+ Self.factor &* size < most, headroomIsFree
    else { return nil }
    if let span = pointee.recentGrowing.take(from: size &* 2, to: size &* 2 &* Self.factor) {
      span.pointee.isDirty = true
      pointee.growingUsed.store(pointee.now, ordering: .relaxed)
      return span
    }
    guard
      let span = pointee.arena.allocateClean(Self.factor &* size)
        ?? growing({ $0.arena.allocateClean(Self.factor &* size) })
    else { return nil }
    pointee.headroom.wrappingAdd(span.pointee.size, ordering: .relaxed)
    return span
  }

  /// Makes the payload of a span with headroom longer where it is.
  /// - Returns: false when there is no room; nothing has changed.
  package func extendGrowing(_ span: TagPointer, to payload: UInt) -> Bool {
    let touched = payload.roundedUp(to: Chunk.size)
    let size = span.pointee.size
    if touched > size {
      // Pages that are there, in a span that waits, are better than fresh ones here.
      if pointee.recentGrowing.holds(from: payload &* 2, to: payload &* 2 &* Self.factor) {
        return false
      }
      // What is added is touched at once.
      if case .failed = arena(of: span).grow(span, to: touched) { return false }
      pointee.headroom.wrappingAdd(touched &- size, ordering: .relaxed)
    }
    span.pointee.payload = payload
    if touched > span.pointee.touched {
      pointee.headroom.wrappingSubtract(touched &- span.pointee.touched, ordering: .relaxed)
      span.pointee.touched = touched
      // Others that grow now may soon want the pages that wait.
      limitDirty()
    }
    return true
  }

  /// Frees a span with headroom.
  package func freeGrowing(_ span: TagPointer) {
    pointee.growingUsed.store(pointee.now, ordering: .relaxed)
    if pointee.recentGrowing.give(span) { return }
    giveHeadroom(of: span)
    freeSpan(span)
  }

  /// Gives the headroom back; then the span is like any other.
  package func giveHeadroom(of span: TagPointer) {
    let touched = span.pointee.touched
    span.pointee.touched = 0
    pointee.headroom.wrappingSubtract(span.pointee.size &- touched, ordering: .relaxed)
    // Without memory for a tag it stays where it is, until the block is freed.
    _ = arena(of: span).shrink(span, to: touched, dirty: false, stamp: pointee.now)
  }

  /// Hands the freed spans with headroom to the arena.
  /// - Returns: whether there was any.
  package func flushGrowing() -> Bool {
    var found = false
    while let span = pointee.recentGrowing.take(from: 0, to: .max) {
      giveHeadroom(of: span)
      // As dirty as it has been: what waited long goes at once.
      arena(of: span).free(
        span, dirty: true, stamp: pointee.growingUsed.load(ordering: .relaxed))
      found = true
    }
    return found
  }
}
