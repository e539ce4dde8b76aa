// Arena+Dismantle.swift: the end of an arena.
//
// Its spans go, segment by segment and tag by tag; imported ones back to the source,
// with the lock dropped. What metadata gave for hash tables stays with whoever owns
// the arena's memory: tables are never given back, so the next arena there should
// take them over.

import Base

extension UnsafeMutablePointer where Pointee == Arena {
  /// Takes everything out of an arena that nobody uses any more. Takes the locks; may
  /// release spans.
  /// - Parameter force: whether busy segments are dropped.
  /// - Returns: false, with only the caches drained, when there are busy segments and
  ///   they are not to be dropped.
  package func dismantle(force: Bool) -> Bool {
    _ = reap()
    pointee.lock.lock()
    if pointee.inUseBytes != 0, !force {
      pointee.lock.unlock()
      return false
    }
    while let span = pointee.spans.head {
      let start = span.pointee.start
      let size = span.pointee.size
      let isImported = span.pointee.kind == .importedSpan
      pointee.dropBusySegments(of: span)
      let (isDirty, stamp) = pointee.removeSpan(span)
      pointee.lock.unlock()
      if isImported, let releaseSpan = pointee.releaseSpan {
        releaseSpan(pointee.source, start, size, isDirty, stamp)
      }
      pointee.lock.lock()
    }
    pointee.reserve.giveAll()
    pointee.lock.unlock()
    return true
  }

  /// What the next arena at this place takes over: the tables of one that was
  /// dismantled, so all of them empty.
  package var formerTables: FormerTables {
    FormerTables(hash: pointee.hash.tables, cached: caches.pointee.hash.tables)
  }
}

/// Hash tables of an arena that is no more; none by default.
package struct FormerTables {
  var hash = InlineArray<18, UInt>(repeating: 0)
  var cached = InlineArray<18, UInt>(repeating: 0)

  package init() {}

  fileprivate init(hash: InlineArray<18, UInt>, cached: InlineArray<18, UInt>) {
    self.hash = hash
    self.cached = cached
  }
}

extension Arena {
  /// Makes the busy segments of a span free. Called with the lock held.
  fileprivate mutating func dropBusySegments(of span: TagPointer) {
    var segment = span.pointee.after
    while let here = segment, !here.pointee.isSpan {
      if here.pointee.kind == .busy { putBack(here, dirty: false, stamp: 0) }
      // `here` stayed, whatever it has coalesced with.
      segment = here.pointee.after
    }
  }
}
