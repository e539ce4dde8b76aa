// Arena+Report.swift: questions about an arena (A09, A11, A12).
//
// All of them take the arena's lock, and the caches' where they look at
// segments; none calls the kernel. What they return was true under the lock.

import Base

/// The sizes of an arena, all in bytes (or identifiers).
///
///   total = inUse + free + withdrawn;   dirty ≤ free;   cached ≤ inUse
package struct ArenaSizes {
  /// All spans.
  package let total: UInt
  /// Busy segments, those in the quantum caches among them.
  package let inUse: UInt
  /// Free segments.
  package let free: UInt
  /// Free segments that are dirty.
  package let dirty: UInt
  /// Segments being purged.
  package let withdrawn: UInt
  /// Segments in the quantum caches.
  package let cached: UInt
  /// The spans.
  package let spanCount: Int
}

/// What an arena knows of one integer (A12).
package struct Whereabouts {
  package let kind: BoundaryTag.Kind
  package let start: UInt
  package let size: UInt
  package let isDirty: Bool
  /// In a quantum cache: busy for the arena, free for its users.
  package let isCached: Bool
  /// How far into the segment the integer is.
  package let offset: UInt

  /// Nothing, to be overwritten.
  package init() {
    kind = .free
    start = 0
    size = 0
    isDirty = false
    isCached = false
    offset = 0
  }

  fileprivate init(_ tag: TagPointer, offset: UInt) {
    kind = tag.pointee.kind
    start = tag.pointee.start
    size = tag.pointee.size
    isDirty = tag.pointee.isDirty
    isCached = tag.pointee.isCached
    self.offset = offset
  }
}

extension UnsafeMutablePointer where Pointee == Arena {
  /// - Complexity: O(1).
  package var sizes: ArenaSizes {
    pointee.lock.lock()
    pointee.caches.lock.lock()
    var cached: UInt = 0
    var quanta = pointee.cachedBytes &>> pointee.quantumShift
    while quanta > 0 {
      cached = cached &+ caches.pointee.count(quanta) &* quanta &* pointee.quantum
      quanta &-= 1
    }
    pointee.caches.lock.unlock()
    let sizes = ArenaSizes(
      total: pointee.totalBytes, inUse: pointee.inUseBytes,
      free: pointee.totalBytes &- pointee.inUseBytes &- pointee.withdrawnBytes,
      dirty: pointee.freeDirtyBytes, withdrawn: pointee.withdrawnBytes, cached: cached,
      spanCount: pointee.spans.count)
    pointee.lock.unlock()
    return sizes
  }

  /// The boundary tags of the arena: those of spans and segments, and in hand.
  /// - Complexity: O(segments).
  package var tagCount: UInt {
    var count: UInt = 0
    walk { _ in count &+= 1 }
    pointee.lock.lock()
    defer { pointee.lock.unlock() }
    return count &+ UInt(bitPattern: pointee.reserve.count)
  }

  package var tagBytes: UInt { tagCount &* BoundaryTag.byteCount }

  /// Buckets of the hash table.
  package var bucketCount: UInt {
    pointee.lock.lock()
    defer { pointee.lock.unlock() }
    return pointee.hash.bucketCount
  }

  /// Calls `body` with every span and segment, by address, each span before its
  /// segments. Both locks are held: `body` must be short and must not use the arena.
  package func walk(_ body: (TagPointer) -> Void) {
    pointee.lock.lock()
    pointee.caches.lock.lock()
    var tag = pointee.spans.head
    while let here = tag {
      tag = here.pointee.after
      body(here)
    }
    pointee.caches.lock.unlock()
    pointee.lock.unlock()
  }

  /// Copies what follows `cursor`, at most `limit` spans and segments, for a reader
  /// that must not hold the locks while it looks at them. Takes both locks.
  ///
  /// A segment that changes between two calls is seen in its old state or its new
  /// one; what does not change is seen once.
  /// - Returns: how many were copied; 0 at the end.
  /// - Complexity: O(`limit`) if no tag was given back since the last call, else
  ///   O(segments).
  package func copy(
    _ limit: Int, after cursor: inout WalkCursor, to room: UnsafeMutablePointer<Whereabouts>
  ) -> Int {
    pointee.lock.lock()
    pointee.caches.lock.lock()
    defer {
      pointee.caches.lock.unlock()
      pointee.lock.unlock()
    }
    var tag = pointee.next(after: cursor)
    var count = 0
    while count < limit, let here = tag {
      room[count] = Whereabouts(here, offset: 0)
      cursor.tag = here
      cursor.position = here.pointee.isSpan ? here.pointee.start : here.pointee.end
      cursor.isInSpan = here.pointee.isSpan
      tag = here.pointee.after
      count &+= 1
    }
    cursor.returned = pointee.reserve.returned
    return count
  }

  /// The largest free segment in bytes; 0 when nothing is free. Takes the lock.
  /// - Complexity: O(segments of the highest order that has any).
  package var largestFree: UInt {
    pointee.lock.lock()
    defer { pointee.lock.unlock() }
    return max(pointee.dirty.largest, pointee.clean.largest)
  }

  /// Allocations that the quantum caches served.
  package var cacheHits: UInt {
    pointee.caches.lock.lock()
    defer { pointee.caches.lock.unlock() }
    return pointee.caches.hits
  }

  /// No import may raise the arena above `bytes` from now on (A09). Takes the lock.
  package func setLimit(_ bytes: UInt) {
    pointee.lock.lock()
    pointee.limitBytes = bytes
    pointee.lock.unlock()
  }

  /// The segment that `address` is in; nil when it is in no span.
  /// - Complexity: O(log spans + segments of its span).
  package func whatIs(_ address: UInt) -> Whereabouts? {
    pointee.lock.lock()
    defer { pointee.lock.unlock() }
    guard let span = pointee.tree.last(notAbove: address), span.pointee.end > address else {
      return nil
    }
    var segment = span.pointee.after.unsafelyUnwrapped  // a span has segments
    while segment.pointee.end <= address {
      segment = segment.pointee.after.unsafelyUnwrapped  // they cover the span
    }
    pointee.caches.lock.lock()
    defer { pointee.caches.lock.unlock() }
    return Whereabouts(segment, offset: address &- segment.pointee.start)
  }
}

/// How far a reader of `copy` has come.
package struct WalkCursor {
  fileprivate var tag: TagPointer?
  fileprivate var returned: UInt = 0
  fileprivate var position: UInt = 0
  fileprivate var isInSpan = false

  package init() {}
}

extension Arena {
  /// Called with both locks held.
  fileprivate mutating func next(after cursor: WalkCursor) -> TagPointer? {
    guard let last = cursor.tag else { return spans.head }
    if reserve.returned == cursor.returned { return last.pointee.after }
    var span = spans.head
    if let here = tree.last(notAbove: cursor.position) {
      span = here.pointee.end > cursor.position ? here : here.pointee.next
    }
    guard let span else { return nil }
    if span.pointee.start > cursor.position || (span.pointee.start == cursor.position && !cursor.isInSpan) {
      return span
    }
    var segment = span.pointee.after.unsafelyUnwrapped  // a span has segments
    while segment.pointee.end <= cursor.position {
      segment = segment.pointee.after.unsafelyUnwrapped  // they cover the span
    }
    return segment
  }
}

extension UnsafeMutablePointer where Pointee == Arena {
  /// Bytes of busy and of dirty free segments. Takes the lock.
  package var bytesInUseAndDirty: (inUse: UInt, dirty: UInt) {
    pointee.lock.lock()
    defer { pointee.lock.unlock() }
    return (pointee.inUseBytes, pointee.freeDirtyBytes)
  }
}
