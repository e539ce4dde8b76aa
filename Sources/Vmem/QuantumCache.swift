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

  private var tops: InlineArray<17, TagPointer?>
  // Not the first field: TSan takes a mutating call for a write to the first.
  let lock: Lock
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

  @inline(__always)
  fileprivate mutating func pop(_ index: Int) -> TagPointer? {
    guard let tag = tops[index] else { return nil }
    tops[index] = tag.pointee.older
    counts[index] = counts[index] &- 1
    tag.pointee.isCached = false
    return tag
  }

  /// - Returns: false when the stack is full.
  @inline(__always)
  fileprivate mutating func push(_ tag: TagPointer, _ index: Int) -> Bool {
    guard counts[index] < QuantumCaches.limit(UInt(bitPattern: index)) else { return false }
    tag.pointee.isCached = true
    tag.pointee.older = tops[index]
    tops[index] = tag
    counts[index] = counts[index] &+ 1
    return true
  }

  /// The number of cached segments of `quanta` quanta, for reports.
  mutating func count(_ quanta: UInt) -> UInt { counts[Int(bitPattern: quanta)] }
  mutating func top(_ quanta: UInt) -> TagPointer? { tops[Int(bitPattern: quanta)] }
}

extension UnsafeMutablePointer where Pointee == QuantumCaches {
  /// Takes a segment of `quanta` quanta, 1 ... `maximumQuanta`. Takes the lock.
  /// - Parameter keepsStamp: whether the stamp of `give` is still wanted; if
  ///   not, the payload is 0.
  @inline(__always)
  func take(_ quanta: UInt, keepsStamp: Bool = false) -> TagPointer? {
    pointee.lock.lock()
    let tag = pointee.pop(Int(bitPattern: quanta))
    pointee.lock.unlock()
    if !keepsStamp, let tag { tag.pointee.payload = 0 }
    return tag
  }

  /// Keeps a busy segment of `quanta` quanta. Takes the lock.
  /// - Returns: false when the stack is full; the segment is the caller's then.
  @inline(__always)
  func give(_ tag: TagPointer, _ quanta: UInt, dirty: Bool, stamp: UInt64) -> Bool {
    pointee.lock.lock()
    if _slowPath(tag.pointee.isCached || tag.pointee.kind != .busy) {
      die("free of a segment that is not allocated, at", at: tag.pointee.start, zone: nil)
    }
    let isKept = pointee.push(tag, Int(bitPattern: quanta))
    if isKept {
      tag.pointee.isDirty = dirty
      tag.pointee.payload = UInt(stamp)
    }
    pointee.lock.unlock()
    return isKept
  }
}

extension UnsafeMutablePointer where Pointee == Arena {
  /// The quantum caches of the arena. They are not under the arena's lock, so
  /// they are reached without an access to the arena as a whole.
  @inline(__always)
  var caches: UnsafeMutablePointer<QuantumCaches> {
    withUnsafePointer(to: pointee.caches) { UnsafeMutablePointer<QuantumCaches>(mutating: $0) }
  }

  /// Frees every segment in the quantum caches (A14).
  ///
  /// Takes both locks, one after the other; may release spans.
  /// - Returns: whether there was any.
  @inline(never)
  package func reap() -> Bool {
    var found = false
    var quanta = pointee.cachedBytes &>> pointee.quantumShift
    while quanta > 0 {
      while let tag = caches.take(quanta, keepsStamp: true) {
        found = true
        freeSegment(tag, dirty: tag.pointee.isDirty, stamp: tag.pointee.stamp)
      }
      quanta &-= 1
    }
    return found
  }

  /// Takes the arena's locks for fork, so that the child finds it whole.
  /// Arenas are locked children first.
  package func lockForFork() {
    pointee.lock.lock()
    pointee.caches.lock.lock()
  }

  /// Undoes `lockForFork` in the parent.
  package func unlockAfterFork() {
    pointee.caches.lock.unlock()
    pointee.lock.unlock()
  }

  /// Undoes `lockForFork` in the child.
  package func resetAfterFork() {
    pointee.caches.lock.reset()
    pointee.lock.reset()
  }
}
