// QuantumCache.swift: the last freed segments of the smallest sizes (A13).
//
// A page comes and goes far more often than anything else, so an arena may keep
// freed segments of 1 … N quanta as they are, one stack a size. They stay busy
// to the arena; allocating one again takes neither its lock nor a tag.
//
//   quanta 1:  top ──▶ segment ──▶ segment ──▶ nil      (over `older`)
//   quanta 2:  top ──▶ segment ──▶ nil
//
// Lock: one for all stacks of an arena, taken for a few instructions. Nothing
// is taken while it is held, so it has no rank; fork takes it last.
// Invariant: count[n] segments of n quanta are on stack n, isCached and busy;
//            count[n] ≤ limit(n).

import Base

struct QuantumCaches: ~Copyable {
  /// Above 16 quanta a segment is worth a search: its use takes far longer.
  static var maximumQuanta: UInt { 16 }

  let lock: Lock
  private var tops: InlineArray<17, TagPointer?>
  private var counts: InlineArray<17, UInt>

  init() {
    lock = Lock(rank: .none)
    tops = InlineArray(repeating: nil)
    counts = InlineArray(repeating: 0)
  }

  /// How many segments of `quanta` quanta are kept: 16 quanta's worth, so that
  /// no size keeps more memory than one large block, but at least 2.
  @inline(__always)
  static func limit(_ quanta: UInt) -> UInt { max(2, 16 / quanta) }

  /// - Parameter quanta: 1 ... `maximumQuanta`.
  @inline(__always)
  mutating func take(_ quanta: UInt) -> TagPointer? {
    guard let tag = pop(quanta) else { return nil }
    tag.pointee.payload = 0
    return tag
  }

  /// As `take`; the stamp of the result is still that of `give`.
  @inline(__always)
  mutating func pop(_ quanta: UInt) -> TagPointer? {
    let index = Int(bitPattern: quanta)
    lock.lock()
    guard let tag = tops[index] else {
      lock.unlock()
      return nil
    }
    tops[index] = tag.pointee.older
    counts[index] = counts[index] &- 1
    tag.pointee.isCached = false
    lock.unlock()
    return tag
  }

  /// - Returns: false when the stack is full; the segment is the caller's then.
  @inline(__always)
  mutating func give(_ tag: TagPointer, _ quanta: UInt, dirty: Bool, stamp: UInt64) -> Bool {
    let index = Int(bitPattern: quanta)
    lock.lock()
    if _slowPath(tag.pointee.isCached || tag.pointee.kind != .busy) {
      die("free of a segment that is not allocated, at", at: tag.pointee.start, zone: nil)
    }
    guard counts[index] < QuantumCaches.limit(quanta) else {
      lock.unlock()
      return false
    }
    tag.pointee.isCached = true
    tag.pointee.isDirty = dirty
    tag.pointee.stamp = stamp
    tag.pointee.older = tops[index]
    tops[index] = tag
    counts[index] = counts[index] &+ 1
    lock.unlock()
    return true
  }

  /// The number of cached segments of `quanta` quanta, for reports.
  mutating func count(_ quanta: UInt) -> UInt { counts[Int(bitPattern: quanta)] }
  mutating func top(_ quanta: UInt) -> TagPointer? { tops[Int(bitPattern: quanta)] }
}

extension Arena {
  /// Frees every segment in the quantum caches (A14).
  ///
  /// Takes both locks, one after the other; may release spans.
  /// - Returns: whether there was any.
  @inline(never)
  package mutating func reap() -> Bool {
    var found = false
    var quanta = cachedBytes &>> quantumShift
    while quanta > 0 {
      while let tag = caches.pop(quanta) {
        found = true
        freeSegment(tag, dirty: tag.pointee.isDirty, stamp: tag.pointee.stamp)
      }
      quanta &-= 1
    }
    return found
  }

  /// Takes the arena's locks for fork, so that the child finds it whole.
  /// Arenas are locked children first.
  package borrowing func lockForFork() {
    lock.lock()
    caches.lock.lock()
  }

  /// Undoes `lockForFork` in the parent.
  package borrowing func unlockAfterFork() {
    caches.lock.unlock()
    lock.unlock()
  }

  /// Undoes `lockForFork` in the child.
  package borrowing func resetAfterFork() {
    caches.lock.reset()
    lock.reset()
  }
}
