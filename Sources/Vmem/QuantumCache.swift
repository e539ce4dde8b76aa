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
//            count[n] ≤ limit(n). Segments whose owners keep addresses are in
//            `hash`, cached or not (see Arena+Address.swift).

import Base
import Pages

struct QuantumCaches: ~Copyable {
  /// Above 16 quanta a segment is worth a search: its use takes far longer.
  static var maximumQuanta: UInt { 16 }

  private var tops: InlineArray<17, TagPointer?>
  // Not the first field: TSan takes a mutating call for a write to the first.
  let lock: Lock
  private var counts: InlineArray<17, UInt>
  /// Registered segments of the sizes that have a stack.
  var hash: SegmentHash
  /// Allocations that a stack served.
  private(set) var hits: UInt

  init(tables: InlineArray<18, UInt>, memory: UnsafeMutablePointer<Metadata>?) {
    hash = SegmentHash(tables: tables)
    hash.makeFirstTable(from: memory)
    hits = 0
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
    hits = hits &+ 1
    tag.pointee.isCached = false
    return tag
  }

  /// A segment that was popped only to be freed is no hit.
  fileprivate mutating func uncountHit() { hits = hits &- 1 }

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
  /// - Returns: the segment, its payload 0.
  @inline(__always)
  func take(_ quanta: UInt) -> TagPointer? {
    pointee.lock.lock()
    let tag = pointee.pop(Int(bitPattern: quanta))
    pointee.lock.unlock()
    if let tag { tag.pointee.payload = 0 }
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

/// What became of a registered segment given to the caches.
enum GivenBack {
  case kept
  /// The stack is full: the segment is the caller's, and no longer registered.
  case full(TagPointer)
  /// Not registered here.
  case unknown
}

extension UnsafeMutablePointer where Pointee == QuantumCaches {
  /// Keeps the registered segment at `address`. Takes the lock. Ends the process
  /// when it is cached already, or of another size.
  @inline(__always)
  func give(address: UInt, _ size: UInt, _ quanta: UInt, _ dirty: Bool, _ stamp: UInt64)
    -> GivenBack
  {
    pointee.lock.lock()
    guard let tag = pointee.hash.find(address) else {
      pointee.lock.unlock()
      return .unknown
    }
    if _slowPath(tag.pointee.isCached) {
      die("free of a segment that is not allocated, at", at: address, zone: nil)
    }
    if _slowPath(tag.pointee.size != size) {
      die("free of another size than was allocated: ", size, " bytes at ", address)
    }
    guard pointee.push(tag, Int(bitPattern: quanta)) else {
      pointee.hash.remove(tag)
      pointee.lock.unlock()
      return .full(tag)
    }
    tag.pointee.isDirty = dirty
    tag.pointee.payload = UInt(stamp)
    pointee.lock.unlock()
    return .kept
  }

  /// Takes the segment at `address` out of the table if it is there and in use; it
  /// is to be freed for good.
  func unregister(_ address: UInt, _ size: UInt) -> TagPointer? {
    pointee.lock.lock()
    defer { pointee.lock.unlock() }
    guard let tag = pointee.hash.find(address), !tag.pointee.isCached, tag.pointee.size == size
    else { return nil }
    pointee.hash.remove(tag)
    return tag
  }

  /// Takes a segment of `quanta` quanta that is to be freed for good.
  @inline(never)
  fileprivate func takeUnregistered(_ quanta: UInt) -> TagPointer? {
    pointee.lock.lock()
    defer { pointee.lock.unlock() }
    guard let tag = pointee.pop(Int(bitPattern: quanta)) else { return nil }
    pointee.uncountHit()
    if tag.pointee.isHashed { pointee.hash.remove(tag) }
    return tag
  }
}

extension Arena {
  /// As `caches` of the arena's pointer, which this must lie behind.
  @inline(__always)
  var cachesPointer: UnsafeMutablePointer<QuantumCaches> {
    mutating get {
      withUnsafePointer(to: caches) { UnsafeMutablePointer<QuantumCaches>(mutating: $0) }
    }
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
      while let tag = caches.takeUnregistered(quanta) {
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
