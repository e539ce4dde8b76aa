// Arena+Resize.swift: making a busy segment longer or shorter where it is.
//
//   grow     |### busy ###|·· free ··|      ─▶  |##### busy #####|· free ·|
//   shrink   |##### busy #####|· free ·|    ─▶  |## busy ##|···· free ····|
//
// A growing segment takes from the free segments that follow it; the last one
// of an arena that merges spans imports what is missing.

import Base

/// What became of a request to grow.
package enum Growth: UInt8 {
  /// The segment is as it was.
  case failed
  /// It has the new size; what was added is known zero.
  case clean
  /// It has the new size; what was added may hold old bytes.
  case dirty
}

extension UnsafeMutablePointer where Pointee == Arena {
  /// Makes a busy segment at least `newSize` bytes long without moving it.
  ///
  /// Takes the lock; may import with the lock dropped. `tag.isDirty` stays.
  /// - Returns: `.failed` also when `newSize` is 0 or does not fit an integer;
  ///   `.clean` when the segment is long enough already.
  /// - Complexity: O(1): free neighbours alternate between clean and dirty.
  package func grow(_ tag: TagPointer, to newSize: UInt) -> Growth {
    let newSize = pointee.rounded(newSize)
    guard newSize != 0 else { return .failed }
    pointee.lock.lock()
    let available = pointee.available(to: tag, atMost: newSize)
    if available >= newSize {
      let growth = pointee.extend(tag, to: newSize)
      pointee.lock.unlock()
      return growth
    }
    let isLast = tag.pointee.start &+ available == (pointee.last?.pointee.end ?? 0)
    pointee.lock.unlock()
    if pointee.mergesSpans, pointee.importSpan != nil, isLast {
      return growImporting(tag, newSize, missing: newSize &- available)
    }
    return .failed
  }

  @inline(never)
  private func growImporting(_ tag: TagPointer, _ newSize: UInt, missing: UInt) -> Growth {
    guard importLocking(missing) else { return .failed }
    defer { pointee.lock.unlock() }
    // The source may have given a span elsewhere, or another thread was faster.
    return pointee.available(to: tag, atMost: newSize) >= newSize
      ? pointee.extend(tag, to: newSize) : .failed
  }

  /// Frees what a busy segment has beyond `newSize` bytes, rounded up.
  ///
  /// Takes the lock; may call the kernel for a tag.
  /// - Returns: false, with nothing changed, when `newSize` is 0 or not below
  ///   the size, or there is no memory for the tag of the tail.
  /// - Complexity: O(1).
  package func shrink(_ tag: TagPointer, to newSize: UInt, dirty: Bool, stamp: UInt64)
    -> Bool
  {
    let newSize = pointee.rounded(newSize)
    guard newSize != 0, newSize < tag.pointee.size, lockWithTags() else { return false }
    let tail = pointee.reserve.take()
    tail.pointee.start = tag.pointee.start &+ newSize
    tail.pointee.size = tag.pointee.size &- newSize
    tag.pointee.size = newSize
    pointee.inUseBytes = pointee.inUseBytes &- tail.pointee.size
    pointee.link(tail, above: tag)
    pointee.coalesce(tail, dirty: dirty, stamp: stamp)
    pointee.lock.unlock()
    return true
  }
}

// MARK: - Under the lock

extension Arena {
  /// The bytes from the start of a busy segment to the end of the free segments
  /// behind it, counted until they reach `limit`.
  fileprivate func available(to tag: TagPointer, atMost limit: UInt) -> UInt {
    var size = tag.pointee.size
    var segment = tag.pointee.after
    while size < limit, let free = segment, free.pointee.kind == .free {
      size = size &+ free.pointee.size
      segment = free.pointee.after
    }
    return size
  }

  fileprivate mutating func extend(_ tag: TagPointer, to newSize: UInt) -> Growth {
    var growth = Growth.clean
    while tag.pointee.size < newSize {
      let free = tag.pointee.after.unsafelyUnwrapped  // `available` saw it
      let part = min(newSize &- tag.pointee.size, free.pointee.size)
      if free.pointee.isDirty { growth = .dirty }
      if part == free.pointee.size {
        unlist(free)
        unlink(free)
        reserve.give(free)
      } else if free.pointee.isDirty {
        dirty.cutFront(free, part)
        freeDirtyBytes = freeDirtyBytes &- part
      } else {
        clean.cutFront(free, part)
      }
      tag.pointee.size = tag.pointee.size &+ part
      inUseBytes = inUseBytes &+ part
    }
    return growth
  }
}
