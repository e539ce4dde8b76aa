// Arena+Allocate.swift: taking a segment without constraints.
//
// The common path is one search and one cut: 85 instructions beside the lock
// when the clean lists serve it (single-stepped). All else is allocateSlowly.
//
// Order of search: dirty lists, best fit among the first 16 of the exact order
// and of the next; clean lists, instant fit; all of the exact order, dirty then
// clean; import; at last free neighbours of both kinds joined.

import Base
import Pages

extension UnsafeMutablePointer where Pointee == Arena {
  /// Allocates `size` bytes, rounded up to the quantum, anywhere in the arena.
  ///
  /// Takes the lock; may import and call the kernel with the lock dropped.
  /// `isDirty` of the result says whether the memory may hold old bytes.
  /// - Returns: the tag, owned by the caller until it frees it; nil when `size`
  ///   is 0 or there is no room.
  /// - Complexity: O(1) unless no list surely fits.
  @inline(__always)
  package func allocate(_ size: UInt) -> TagPointer? {
    let size = pointee.rounded(size)
    // 0 wraps to the largest size, which no cache has.
    return size &- 1 < pointee.cachedBytes ? allocateCached(size) : allocateSegment(size)
  }

  @inline(never)
  private func allocateCached(_ size: UInt) -> TagPointer? {
    caches.take(size &>> pointee.quantumShift) ?? allocateSegment(size)
  }

  /// Allocates past the quantum caches. `size` is in whole quanta, or 0.
  @inline(never)
  func allocateSegment(_ size: UInt, mayImport: Bool = true) -> TagPointer? {
    pointee.lock.lock()
    if _fastPath(size != 0 && pointee.reserve.count != 0), let free = pointee.quickFit(size) {
      let tag = pointee.takeFront(free, size)
      pointee.lock.unlock()
      return tag
    }
    pointee.lock.unlock()
    return allocateSlowly(size, mayImport)
  }

  @inline(never)
  private func allocateSlowly(_ size: UInt, _ mayImport: Bool) -> TagPointer? {
    guard size != 0 else { return nil }
    if let tag = allocateThoroughly(size) { return tag }
    if mayImport, pointee.importSpan != nil, let tag = importAndTake(size) { return tag }
    return allocateJoined(size)
  }

  /// As `allocate`, but only what is known zero.
  package func allocateClean(_ size: UInt) -> TagPointer? {
    let size = pointee.rounded(size)
    guard size != 0 else { return nil }
    return takeClean(size) ?? (importLocking(size) ? takeCleanUnlocking(size) : nil)
  }

  private func takeClean(_ size: UInt) -> TagPointer? {
    lockWithTags() ? takeCleanUnlocking(size) : nil
  }

  private func takeCleanUnlocking(_ size: UInt) -> TagPointer? {
    defer { pointee.lock.unlock() }
    let free = pointee.clean.instantFit(size) ?? pointee.clean.exactOrderFit(size)
    return free.map { pointee.takeFront($0, size) }
  }

  /// Everything short of importing: instant fit that fails retries as best fit.
  @inline(never)
  private func allocateThoroughly(_ size: UInt) -> TagPointer? {
    guard lockWithTags() else { return nil }
    defer { pointee.lock.unlock() }
    return takeFitting(size)
  }

  /// Instant fit, then best fit. Called with the lock held and tags in hand.
  private func takeFitting(_ size: UInt) -> TagPointer? {
    guard
      let free = pointee.quickFit(size) ?? pointee.dirty.exactOrderFit(size)
        ?? pointee.clean.exactOrderFit(size)
    else { return nil }
    return pointee.takeFront(free, size)
  }

  @inline(never)
  private func importAndTake(_ size: UInt) -> TagPointer? {
    guard importLocking(size) else { return nil }
    defer { pointee.lock.unlock() }
    return takeFitting(size)
  }

  /// The last resort: a run of free neighbours, some clean and some dirty.
  /// After it has failed, no `size` contiguous bytes are free.
  /// - Complexity: O(free dirty segments).
  @inline(never)
  @_optimize(size)
  private func allocateJoined(_ size: UInt) -> TagPointer? {
    let anywhere = Constraints(
      alignment: pointee.quantum, phase: 0, nocross: 0, minimum: 0, maximum: .max)
    guard lockWithTags() else { return nil }
    defer { pointee.lock.unlock() }
    guard let free = pointee.joinedRun(size, under: anywhere) else { return nil }
    return pointee.takeFront(free, size)
  }
}

// MARK: - Under the lock

extension Arena {
  /// How many dirty segments of one list a search looks at. A block that lands
  /// in a hole of nearly its size leaves the big holes whole. 16 tags are at most
  /// 16 cache misses, about a microsecond: what one page fault costs.
  static var dirtySearchLimit: Int { 16 }

  @inline(__always)
  mutating func quickFit(_ size: UInt) -> TagPointer? {
    if dirty.bitmap != 0, let free = dirty.bestFit(size, limit: Arena.dirtySearchLimit) {
      return free
    }
    return clean.instantFit(size)
  }

  /// Makes the front `size` bytes of a free segment busy. Needs a tag in hand
  /// unless that is all of it.
  @inline(__always)
  mutating func takeFront(_ free: TagPointer, _ size: UInt) -> TagPointer {
    inUseBytes = inUseBytes &+ size
    let tag = cutFront(free, size)
    tag.pointee.kind = .busy
    tag.pointee.payload = 0
    return tag
  }

  /// Takes the front `size` bytes of a free segment off the free lists. The
  /// rest keeps its tag, and with it its place by age.
  @inline(__always)
  mutating func cutFront(_ free: TagPointer, _ size: UInt) -> TagPointer {
    if free.pointee.size == size {
      unlist(free)
      return free
    }
    let tag = reserve.take()
    tag.pointee.start = free.pointee.start
    tag.pointee.size = size
    link(tag, below: free)
    if free.pointee.isDirty {
      tag.pointee.isDirty = true
      dirty.cutFront(free, size)
      freeDirtyBytes = freeDirtyBytes &- size
    } else {
      tag.pointee.isDirty = false
      clean.cutFront(free, size)
    }
    return tag
  }

  /// Joins a run of free neighbours that has room for `size` bytes under
  /// `constraints` into one segment, dirty if any of them is. Called with the lock held.
  ///
  /// Neighbours of one kind have coalesced: every run to join has a dirty segment, and
  /// is looked at from the one with the lowest address.
  /// - Complexity: O(free dirty segments and their neighbours).
  mutating func joinedRun(_ size: UInt, under constraints: Constraints) -> TagPointer? {
    var next = age.oldest
    while let dirty = next {
      next = dirty.pointee.younger
      var first = dirty
      if let below = dirty.pointee.before, below.pointee.kind == .free { first = below }
      if first != dirty, first.pointee.isDirty || first.pointee.before?.pointee.kind == .free {
        continue
      }
      var end = first.pointee.end
      var segment = first.pointee.after
      while let here = segment, here.pointee.kind == .free {
        end = here.pointee.end
        segment = here.pointee.after
      }
      if constraints.place(size, from: first.pointee.start, to: end) != Arena.none {
        join(first, upTo: end)
        return first
      }
    }
    return nil
  }

  @_optimize(size)
  private mutating func join(_ first: TagPointer, upTo end: UInt) {
    guard first.pointee.end != end else { return }
    var stamp = first.pointee.isDirty ? first.pointee.stamp : 0
    unlist(first)
    while first.pointee.end != end {
      let next = first.pointee.after.unsafelyUnwrapped  // the run ends at `end`
      if next.pointee.isDirty { stamp = max(stamp, next.pointee.stamp) }
      unlist(next)
      unlink(next)
      first.pointee.size = first.pointee.size &+ next.pointee.size
      reserve.give(next)
    }
    // Neighbours of one kind would have coalesced: some part was dirty.
    first.pointee.isDirty = true
    first.pointee.stamp = stamp
    enlist(first)
    age.append(first)
  }
}
