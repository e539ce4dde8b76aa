// Arena+Free.swift: giving a segment back.
//
// Freeing never needs memory (A06): it uses the segment's own tag and gains the
// tags of the neighbours it coalesces with. 75 to 85 instructions beside the
// lock when no neighbour is free (single-stepped).
//
// Age of two coalesced dirty segments: the stamp, and the place on the age list,
// of the larger one. So a small block that comes and goes beside a large idle
// one does not keep it from being purged, and a large block just freed is not
// purged for a small old one beside it.

import Base

extension UnsafeMutablePointer where Pointee == Arena {
  /// Frees a segment.
  ///
  /// Takes the lock; may release a span with the lock dropped.
  /// - Parameters:
  ///   - tag: from this arena, busy; the arena's again after the call.
  ///   - dirty: whether the contents may be other than zero.
  ///   - stamp: the time now, in any unit; only read if `dirty`.
  /// - Complexity: O(1).
  @inline(__always)
  package func free(_ tag: TagPointer, dirty: Bool, stamp: UInt64) {
    if tag.pointee.size <= pointee.cachedBytes {
      freeCached(tag, dirty: dirty, stamp: stamp)
    } else {
      freeSegment(tag, dirty: dirty, stamp: stamp)
    }
  }

  @inline(never)
  private func freeCached(_ tag: TagPointer, dirty: Bool, stamp: UInt64) {
    let quanta = tag.pointee.size &>> pointee.quantumShift
    // A registered segment has to leave the hash table.
    if tag.pointee.isHashed || !caches.give(tag, quanta, dirty: dirty, stamp: stamp) {
      freeSegment(tag, dirty: dirty, stamp: stamp)
    }
  }

  /// Frees past the quantum caches.
  @inline(never)
  func freeSegment(_ tag: TagPointer, dirty: Bool, stamp: UInt64) {
    pointee.lock.lock()
    pointee.putBack(tag, dirty: dirty, stamp: stamp)
    if pointee.releases { return unlockReleasing(tag) }
    pointee.lock.unlock()
  }
}

// MARK: - Under the lock

extension Arena {
  /// Called with the lock held. `tag` stays the tag of the free segment.
  @inline(__always)
  mutating func putBack(_ tag: TagPointer, dirty: Bool, stamp: UInt64) {
    if _slowPath(tag.pointee.kind != .busy || tag.pointee.isCached) {
      die("free of a segment that is not allocated, at", at: tag.pointee.start, zone: nil)
    }
    if _slowPath(tag.pointee.isHashed) { unregister(tag) }
    inUseBytes = inUseBytes &- tag.pointee.size
    coalesce(tag, dirty: dirty, stamp: stamp)
  }

  /// Takes a segment out of the table that it is registered in.
  @inline(never)
  mutating func unregister(_ tag: TagPointer) {
    if tag.pointee.size <= cachedBytes {
      let caches = cachesPointer
      caches.pointee.lock.lock()
      defer { caches.pointee.lock.unlock() }
      if caches.pointee.hash.find(tag.pointee.start) == tag { return caches.pointee.hash.remove(tag) }
    }
    hash.remove(tag)
  }

  /// Makes a segment that is on no list free, together with the free
  /// neighbours of its kind. Called with the lock held.
  @inline(__always)
  mutating func coalesce(_ tag: TagPointer, dirty isDirty: Bool, stamp: UInt64) {
    tag.pointee.kind = .free
    tag.pointee.isDirty = isDirty
    tag.pointee.stamp = stamp
    if isDirty { age.append(tag) }
    if let after = tag.pointee.after, after.pointee.kind == .free,
      after.pointee.isDirty == isDirty
    {
      absorb(after, into: tag)
    }
    // A segment always has its span before it.
    let before = tag.pointee.before.unsafelyUnwrapped
    if before.pointee.kind == .free, before.pointee.isDirty == isDirty {
      let start = before.pointee.start
      absorb(before, into: tag)
      tag.pointee.start = start
    }
    enlist(tag)
  }

  /// Adds a free neighbour of the same kind to `tag`, which is on no free list.
  @inline(never)
  private mutating func absorb(_ neighbour: TagPointer, into tag: TagPointer) {
    let size = neighbour.pointee.size
    if neighbour.pointee.isDirty {
      dirty.remove(neighbour)
      freeDirtyBytes = freeDirtyBytes &- size
      if size > tag.pointee.size {
        age.remove(tag)
        age.replace(neighbour, by: tag)
        tag.pointee.stamp = neighbour.pointee.stamp
      } else {
        age.remove(neighbour)
      }
    } else {
      clean.remove(neighbour)
    }
    unlink(neighbour)
    tag.pointee.size = tag.pointee.size &+ size
    reserve.give(neighbour)
  }
}
