// Arena+Purge.swift: giving the memory of old dirty segments back to the kernel.
//
// Purging takes microseconds to milliseconds, so it is done without the lock:
//
//   dirty lists ──withdrawDirty──▶ the caller purges ──returnPurged──▶ clean lists
//   age list       (withdrawn: nobody allocates it)    (or dirty: the purge failed)
//
// An allocation that finds no room while a segment is withdrawn does not wait.

import Base

extension UnsafeMutablePointer where Pointee == Arena {
  /// Takes the segment that has been dirty for longest out of the free lists.
  ///
  /// Takes the lock; may call the kernel for a tag. If there is none, a segment
  /// longer than `limit` is taken whole.
  /// - Parameters:
  ///   - time: the latest stamp that is old enough.
  ///   - limit: the most bytes to take, at least a quantum.
  /// - Returns: a segment for `returnPurged`; nil when none is old enough.
  /// - Complexity: O(1).
  package func withdrawDirty(notAfter time: UInt64, atMost limit: UInt) -> TagPointer? {
    let hasTags = lockWithTags()
    if !hasTags { pointee.lock.lock() }
    defer { pointee.lock.unlock() }
    let limit = limit.roundedDown(to: pointee.quantum)
    guard limit != 0, let oldest = pointee.age.oldest, oldest.pointee.stamp <= time else {
      return nil
    }
    let stamp = oldest.pointee.stamp
    let size = hasTags ? min(limit, oldest.pointee.size) : oldest.pointee.size
    let tag = pointee.cutFront(oldest, size)
    tag.pointee.kind = .withdrawn
    tag.pointee.stamp = stamp
    pointee.withdrawnBytes = pointee.withdrawnBytes &+ size
    return tag
  }

  /// Puts a withdrawn segment back.
  ///
  /// Takes the lock; may release a span with the lock dropped.
  /// - Parameters:
  ///   - clean: whether the contents are known zero now.
  ///   - stamp: the time now, from which a segment that is still dirty ages anew.
  /// - Complexity: O(1).
  package func returnPurged(_ tag: TagPointer, clean: Bool, stamp: UInt64) {
    pointee.lock.lock()
    if tag.pointee.kind != .withdrawn {
      die("return of a segment that was not withdrawn, at", at: tag.pointee.start, zone: nil)
    }
    pointee.withdrawnBytes = pointee.withdrawnBytes &- tag.pointee.size
    pointee.coalesce(tag, dirty: !clean, stamp: stamp)
    if pointee.releases { return unlockReleasing(tag) }
    pointee.lock.unlock()
  }

  /// Bytes of dirty free segments; those withdrawn or cached not among them.
  package var dirtyBytes: UInt {
    pointee.lock.lock()
    defer { pointee.lock.unlock() }
    return pointee.freeDirtyBytes
  }
}
