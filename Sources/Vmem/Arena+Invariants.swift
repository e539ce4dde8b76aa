// Arena+Invariants.swift: the equations of Arena.swift as code.
//
// Real where INVARIANTS is defined (the debug build and the tests), nothing
// elsewhere. Ends the process at the first that does not hold.

import Base

extension UnsafeMutablePointer where Pointee == Arena {
  /// Checks the whole arena. Takes both locks. O(segments).
  @inline(__always)
  package func checkInvariants() {
    #if INVARIANTS
      pointee.lock.lock()
      pointee.caches.lock.lock()
      pointee.checkSegments()
      pointee.checkLists(areDirty: true)
      pointee.checkLists(areDirty: false)
      pointee.checkAge()
      pointee.checkCaches(caches)
      pointee.caches.lock.unlock()
      pointee.lock.unlock()
    #endif
  }
}

extension Arena {
  #if INVARIANTS
    fileprivate mutating func checkSegments() {
      var total: UInt = 0
      var inUse: UInt = 0
      var withdrawn: UInt = 0
      var spanCount = 0
      var end: UInt = 0
      var spanEnd: UInt = 0
      var tag = spans.head
      var below: TagPointer? = nil
      while let here = tag {
        invariant(here.pointee.before == below, "arena: `before` does not match `after`")
        invariant(here.pointee.size != 0, "arena: empty segment")
        if here.pointee.isSpan {
          invariant(end == spanEnd, "arena: segments do not cover their span")
          invariant(here.pointee.start >= spanEnd, "arena: spans overlap")
          spanCount &+= 1
          invariant(tree.last(notAbove: here.pointee.start) == here, "arena: span not in the tree")
          spanEnd = here.pointee.end
          end = here.pointee.start
        } else {
          invariant(here.pointee.start == end, "arena: gap between segments")
          end = here.pointee.end
          total = total &+ here.pointee.size
          if here.pointee.kind == .busy { inUse = inUse &+ here.pointee.size }
          if here.pointee.kind == .withdrawn { withdrawn = withdrawn &+ here.pointee.size }
          checkNeighbours(here)
        }
        below = here
        tag = here.pointee.after
      }
      invariant(end == spanEnd, "arena: segments do not cover the last span")
      invariant(last == below, "arena: `last` is not the last segment")
      invariant(spanCount == spans.count, "arena: number of spans")
      invariant(total == totalBytes, "arena: totalBytes")
      invariant(inUse == inUseBytes, "arena: inUseBytes")
      invariant(withdrawn == withdrawnBytes, "arena: withdrawnBytes")
    }

    fileprivate mutating func checkNeighbours(_ tag: TagPointer) {
      invariant(!tag.pointee.isCached || tag.pointee.kind == .busy, "arena: cached and not busy")
      invariant(!tag.pointee.isHashed || tag.pointee.kind == .busy, "arena: hashed and not busy")
      if tag.pointee.isHashed {
        invariant(
          hash.find(tag.pointee.start) == tag
            || cachesPointer.pointee.hash.find(tag.pointee.start) == tag,
          "arena: not in the hash table")
      }
      guard tag.pointee.kind == .free, let after = tag.pointee.after else { return }
      invariant(
        after.pointee.kind != .free || after.pointee.isDirty != tag.pointee.isDirty,
        "arena: free neighbours of one kind")
    }

    /// The lists hold as many segments and bytes as the arena has free ones of
    /// their kind, and only such: so each is on exactly one list.
    fileprivate mutating func checkLists(areDirty: Bool) {
      let bitmap = areDirty ? dirty.bitmap : clean.bitmap
      var listedCount = 0
      var listedBytes: UInt = 0
      var order = 0
      while order < 64 {
        var tag = areDirty ? dirty.head(order) : clean.head(order)
        invariant(
          (bitmap &>> UInt(order)) & 1 == (tag == nil ? 0 : 1), "arena: bitmap of orders")
        while let here = tag {
          invariant(here.pointee.kind == .free, "arena: listed and not free")
          invariant(here.pointee.isDirty == areDirty, "arena: on the list of the other kind")
          invariant(clean.order(of: here.pointee.size) == UInt(order), "arena: wrong order")
          listedCount &+= 1
          listedBytes = listedBytes &+ here.pointee.size
          tag = here.pointee.next
        }
        order &+= 1
      }
      var tag = spans.head
      while let here = tag {
        if here.pointee.kind == .free, here.pointee.isDirty == areDirty {
          listedCount &-= 1
          listedBytes = listedBytes &- here.pointee.size
        }
        tag = here.pointee.after
      }
      invariant(listedCount == 0 && listedBytes == 0, "arena: free segment on no list")
    }

    fileprivate mutating func checkAge() {
      var bytes: UInt = 0
      var tag = age.oldest
      var older: TagPointer? = nil
      while let here = tag {
        invariant(here.pointee.kind == .free && here.pointee.isDirty, "arena: aging and not dirty")
        invariant(here.pointee.older == older, "arena: `older` does not match `younger`")
        bytes = bytes &+ here.pointee.size
        older = here
        tag = here.pointee.younger
      }
      invariant(age.youngest == older, "arena: `youngest` is not the last of the age list")
      invariant(bytes == freeDirtyBytes, "arena: dirtyBytes")
    }

    fileprivate mutating func checkCaches(_ caches: UnsafeMutablePointer<QuantumCaches>) {
      var quanta = cachedBytes &>> quantumShift
      while quanta > 0 {
        var count: UInt = 0
        var tag = caches.pointee.top(quanta)
        while let here = tag {
          invariant(here.pointee.isCached, "arena: in a quantum cache and not marked")
          invariant(here.pointee.size == quanta &* quantum, "arena: in another size's cache")
          count &+= 1
          tag = here.pointee.older
        }
        invariant(count == caches.pointee.count(quanta), "arena: number of cached segments")
        invariant(count <= QuantumCaches.limit(quanta), "arena: cache above its limit")
        quanta &-= 1
      }
    }
  #endif
}
