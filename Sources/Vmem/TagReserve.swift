// TagReserve.swift: the boundary tags an arena has in hand (A06).
//
// Freeing may split nothing and so needs no tag; it gains some, by coalescing.
// Whatever may need tags takes them before it looks for a segment, so that it
// either does everything or nothing. The tags in hand are kept between
// operations: the common allocation asks the pool for none.
//
//   pool ──refill, lock dropped──▶ in hand (low 4 … high 16) ──▶ segments
//        ◀────────── trim ───────                             ◀──
//
// Lock: the arena's for `head` and `count`; the pool has its own, of a higher rank.
// Invariant: `count` tags are reachable from `head` over `next`.

import Base
import Pages

struct TagReserve {
  /// The most tags one operation uses: an imported span with its segment (2),
  /// cut at both ends by alignment (2).
  static var perOperation: Int { 4 }

  private(set) var head: TagPointer?
  private(set) var count: Int
  /// How many tags segments and spans have given up: while it stays the same, a tag
  /// that was in the segment order still is.
  private(set) var returned: UInt
  /// What a refill fills up to.
  private var target: Int
  private let pool: UnsafeMutablePointer<Pool>

  init(pool: UnsafeMutablePointer<Pool>) {
    head = nil
    count = 0
    returned = 0
    // Twice what an operation needs: a refill serves several of them.
    target = 2 &* TagReserve.perOperation
    self.pool = pool
  }

  /// - Precondition: `count` is not 0.
  @inline(__always)
  mutating func take() -> TagPointer {
    let tag = head.unsafelyUnwrapped  // the caller looked at `count`
    head = tag.pointee.next
    count &-= 1
    return tag
  }

  @inline(__always)
  mutating func give(_ tag: TagPointer) {
    tag.pointee.next = head
    head = tag
    count &+= 1
    returned = returned &+ 1
    // Room for a refill's worth on top, lest it goes back and forth.
    if _slowPath(count > 2 &* target) { trim() }
  }

  @inline(never)
  private mutating func trim() {
    while count > target { pool.give(take().address) }
  }

  /// Gives all tags back to the pool.
  mutating func giveAll() {
    while count > 0 { pool.give(take().address) }
  }

  mutating func raiseTarget(to count: Int) { target = max(target, count) }
}

extension BoundaryTag {
  /// What the pool of tags must be made for.
  package static var byteCount: UInt { UInt(bitPattern: MemoryLayout<BoundaryTag>.stride) }
}

extension UnsafeMutablePointer where Pointee == Arena {
  /// Takes the lock with at least `TagReserve.perOperation` tags in hand.
  /// - Returns: false when there is no memory for tags; the lock is not held then.
  @inline(never)
  func lockWithTags() -> Bool {
    var mayHaveMore = true
    while true {
      pointee.lock.lock()
      if pointee.reserve.count >= TagReserve.perOperation { return true }
      pointee.lock.unlock()
      if !mayHaveMore { return false }
      // A refill that falls short may have brought enough.
      mayHaveMore = refill(2 &* TagReserve.perOperation)
    }
  }

  /// Adds `count` tags to those in hand. Called without the lock.
  /// - Returns: false when the pool could not give as many.
  @inline(never)
  func refill(_ count: Int) -> Bool {
    var left = count
    while left > 0 {
      let item = pointee.tagPool.take()
      guard item != 0 else { return false }
      let tag = item.pointer(to: BoundaryTag.self)
      tag.initialize(to: BoundaryTag())
      pointee.lock.lock()
      pointee.reserve.give(tag)
      pointee.lock.unlock()
      left &-= 1
    }
    return true
  }

  /// Keeps so many tags in hand from now on that `count` can be used while
  /// metadata has no memory (A10). One allocation or shrink uses at most two,
  /// one import four.
  ///
  /// Takes the lock; may call the kernel.
  /// - Returns: false when there was no memory for them.
  package func reserveTags(_ count: Int) -> Bool {
    pointee.lock.lock()
    // The last operation must still find its full number in hand.
    let wanted = count &+ TagReserve.perOperation
    pointee.reserve.raiseTarget(to: wanted)
    let missing = wanted &- pointee.reserve.count
    pointee.lock.unlock()
    return missing <= 0 || refill(missing)
  }
}
