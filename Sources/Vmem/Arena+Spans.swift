// Arena+Spans.swift: where an arena's integers come from and go back to (A05).
//
//   source ──import──▶ span ──▶ segments ──all free──▶ span ──release──▶ source
//                        ╰── begins where another ends, mergesSpans: extends it
//
// Lock: the arena's is dropped around import and release, so that a source may
// be an arena (of a higher rank) or the kernel, and other threads go on.

import Base

extension UnsafeMutablePointer where Pointee == Arena {
  /// Adds a span that stays: it is never released.
  ///
  /// Takes the lock; may call the kernel for tags.
  /// - Returns: false, with nothing changed, when `start` or `size` is not a
  ///   multiple of the quantum, `size` is 0, the span reaches the last integer
  ///   or overlaps another, or there is no memory for its tags.
  /// - Complexity: O(log spans), expected.
  package func addSpan(_ start: UInt, _ size: UInt, dirty: Bool = false) -> Bool {
    guard lockWithTags() else { return false }
    defer { pointee.lock.unlock() }
    return pointee.insertSpan(start, size, kind: .staticSpan, dirty: dirty)
  }

  /// Imports `size` bytes or more. Called without the lock.
  /// - Returns: true with the lock held, the span added (or, by another thread, one in which
  ///   there is room for `size` bytes) and two tags in hand;
  ///   false without the lock when the source has nothing or tags ran out.
  @_optimize(size)
  func importLocking(_ size: UInt) -> Bool {
    // The tags first: a span without tags could be neither kept nor, by an
    // arena that does not release, given back.
    guard let importSpan = pointee.importSpan, let tags = takePrivateTags(importing: size) else {
      return false
    }
    var wanted = size.roundedUp(to: pointee.importQuantum)
    if wanted < size { wanted = size }
    var actualSize = wanted
    var isDirty = false
    var start = importSpan(pointee.source, wanted, &actualSize, &isDirty)
    if start == Arena.none, wanted != size {
      actualSize = size
      start = importSpan(pointee.source, size, &actualSize, &isDirty)
    }
    while pointee.mergesSpans, start == Arena.none, actualSize == 0 {
      // Another thread has imported meanwhile: perhaps enough.
      pointee.lock.lock()
      if pointee.clean.instantFit(size) != nil {
        pointee.importingBytes = pointee.importingBytes &- size
        pointee.giveTags(tags)
        return true
      }
      pointee.lock.unlock()
      actualSize = wanted
      start = importSpan(pointee.source, wanted, &actualSize, &isDirty)
    }
    pointee.lock.lock()
    pointee.importingBytes = pointee.importingBytes &- size
    pointee.giveTags(tags)
    if start == Arena.none {
      pointee.lock.unlock()
      return false
    }
    if !pointee.insertSpan(start, actualSize, kind: .importedSpan, dirty: isDirty) {
      die("imported span is not an arena's, or overlaps one, at", at: start, zone: nil)
    }
    return true
  }

  /// `TagReserve.perOperation` tags that no other thread can take meanwhile,
  /// chained over `next`; nil also when the limit forbids to import `size` bytes.
  /// What rounding adds to the request, here or at the source, is not asked about.
  @inline(never)
  @_optimize(size)
  private func takePrivateTags(importing size: UInt) -> TagPointer? {
    guard lockWithTags() else { return nil }
    defer { pointee.lock.unlock() }
    let held = pointee.totalBytes &+ pointee.importingBytes
    if held >= pointee.limitBytes || pointee.limitBytes &- held < size { return nil }
    pointee.importingBytes = pointee.importingBytes &+ size
    var chain: TagPointer? = nil
    for _ in 0..<TagReserve.perOperation {
      let tag = pointee.reserve.take()
      tag.pointee.next = chain
      chain = tag
    }
    return chain
  }

  /// Drops the lock; then releases the span around `tag`, a free segment, if it
  /// was imported and is wholly free.
  /// - Complexity: O(free neighbours, which alternate between clean and dirty).
  @inline(never)
  func unlockReleasing(_ tag: TagPointer) {
    guard let span = pointee.wholeSpan(around: tag), let releaseSpan = pointee.releaseSpan else {
      return pointee.lock.unlock()
    }
    let start = span.pointee.start
    let size = span.pointee.size
    let (isDirty, stamp) = pointee.removeSpan(span)
    pointee.lock.unlock()
    releaseSpan(pointee.source, start, size, isDirty, stamp)
  }
}

// MARK: - Under the lock

extension Arena {
  /// Called with the lock held and two tags in hand.
  mutating func insertSpan(_ start: UInt, _ size: UInt, kind: BoundaryTag.Kind, dirty: Bool) -> Bool
  {
    guard size != 0, start &+ size > start, (start | size).isMultiple(ofPowerOfTwo: quantum)
    else { return false }
    let below = tree.last(notAbove: start)
    let above = below != nil ? below.unsafelyUnwrapped.pointee.next : spans.head
    if let below, below.pointee.end > start { return false }
    if let above, above.pointee.start < start &+ size { return false }

    // The segment goes above everything that is below the next span.
    var place = above != nil ? above.unsafelyUnwrapped.pointee.before : last
    if mergesSpans, let below, below.pointee.end == start {
      below.pointee.size = below.pointee.size &+ size
    } else {
      let span = reserve.take()
      span.pointee.kind = kind
      span.pointee.start = start
      span.pointee.size = size
      link(span, above: place)
      if let below { spans.insert(span, after: below) } else { spans.prepend(span) }
      tree.insert(span)
      place = span
    }
    let segment = reserve.take()
    segment.pointee.start = start
    segment.pointee.size = size
    link(segment, above: place)
    totalBytes = totalBytes &+ size
    // When an imported span became dirty is not known: not before the rest.
    let stamp = age.youngest != nil ? age.youngest.unsafelyUnwrapped.pointee.stamp : 0
    coalesce(segment, dirty: dirty, stamp: stamp)
    return true
  }

  @inline(never)
  fileprivate mutating func giveTags(_ chain: TagPointer) {
    var tag: TagPointer? = chain
    while let here = tag {
      tag = here.pointee.next
      reserve.give(here)
    }
  }

  /// Takes a wholly free span out of the arena.
  /// - Returns: whether a part of it is dirty, and the latest stamp of such a part.
  mutating func removeSpan(_ span: TagPointer) -> (isDirty: Bool, stamp: UInt64) {
    var isDirty = false
    var stamp: UInt64 = 0
    while let segment = span.pointee.after, !segment.pointee.isSpan {
      if segment.pointee.isDirty {
        isDirty = true
        stamp = max(stamp, segment.pointee.stamp)
      }
      unlist(segment)
      unlink(segment)
      reserve.give(segment)
    }
    spans.remove(span)
    tree.remove(span)
    unlink(span)
    totalBytes = totalBytes &- span.pointee.size
    // Last: a tag given may be another arena's at once.
    reserve.give(span)
    return (isDirty, stamp)
  }

  /// The imported span whose segments, `tag` among them, are all free.
  fileprivate func wholeSpan(around tag: TagPointer) -> TagPointer? {
    var span = tag
    while span.pointee.kind == .free { span = span.pointee.before.unsafelyUnwrapped }
    guard span.pointee.kind == .importedSpan else { return nil }
    var segment = tag.pointee.after
    while let here = segment, !here.pointee.isSpan {
      if here.pointee.kind != .free { return nil }
      segment = here.pointee.after
    }
    return span
  }
}

// MARK: - An arena as the source of another

extension Arena {
  /// Imports from the arena that `source` points to, which must have a hash table.
  package static var importFromArena: Import {
    { source, size, actualSize, isDirty in
      guard let source else { return UInt.max }
      let arena = source.assumingMemoryBound(to: Arena.self)
      actualSize.pointee = arena.pointee.rounded(size)
      return arena.allocateAddress(size, isDirty: isDirty)
    }
  }

  /// Releases to the arena that `source` points to.
  package static var releaseToArena: Release {
    { source, start, size, isDirty, stamp in
      guard let source else { return }
      source.assumingMemoryBound(to: Arena.self)
        .free(address: start, size: size, dirty: isDirty, stamp: stamp)
    }
  }
}
