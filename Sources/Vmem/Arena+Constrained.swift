// Arena+Constrained.swift: segments that must lie in particular places (A04).
//
// The free segment is cut in up to three:
//
//   |· free, keeps its tag ·|#### busy ####|· free, new tag ·|
//                           ▲ Constraints.place
//
// The quantum caches are passed by. Takes Constraints for the arithmetic.

import Base

extension UnsafeMutablePointer where Pointee == Arena {
  /// Allocates `size` bytes, rounded up to the quantum, whose start is `phase`
  /// past a multiple of `alignment`, that contain no border at a multiple of
  /// `nocross` (0: any), and lie within `minimum ... maximum` (both included).
  ///
  /// Takes the lock. Imports, with the lock dropped, only if alignment and
  /// phase are all that is asked for: a source promises nothing else.
  /// - Returns: the tag; nil when there is no such place or the parameters
  ///   contradict each other.
  /// - Complexity: O(1) with `fit: .instant` and only an alignment, if a segment
  ///   of `size + alignment` bytes is free; else O(free segments).
  package func allocate(
    _ size: UInt, alignment: UInt, phase: UInt = 0, nocross: UInt = 0,
    minimum: UInt = 0, maximum: UInt = .max, fit: Fit = .instant, mayImport: Bool = true
  ) -> TagPointer? {
    let size = pointee.rounded(size)
    let constraints = Constraints(
      alignment: max(alignment, pointee.quantum), phase: phase, nocross: nocross,
      minimum: minimum, maximum: maximum)
    guard size != 0, constraints.isValid(size: size, quantum: pointee.quantum) else { return nil }
    if let tag = allocateFree(size, under: constraints, fit: fit) { return tag }
    if mayImport, pointee.importSpan != nil, constraints.isOnlyAlignment {
      let enough = size &+ constraints.slack(quantum: pointee.quantum)
      if enough >= size, let tag = importAndTake(size, enough, under: constraints) { return tag }
    }
    return allocateJoined(size, under: constraints)
  }

  /// Whether a request makes sense, so that a failure means that there is no room.
  package func isValid(
    _ size: UInt, alignment: UInt, phase: UInt, nocross: UInt, minimum: UInt, maximum: UInt
  ) -> Bool {
    let constraints = Constraints(
      alignment: max(alignment, pointee.quantum), phase: phase, nocross: nocross,
      minimum: minimum, maximum: maximum)
    return size != 0 && constraints.isValid(size: size, quantum: pointee.quantum)
  }

  @inline(never)
  private func allocateFree(_ size: UInt, under constraints: Constraints, fit: Fit)
    -> TagPointer?
  {
    guard lockWithTags() else { return nil }
    defer { pointee.lock.unlock() }
    var free: TagPointer? = nil
    let enough = size &+ constraints.slack(quantum: pointee.quantum)
    if fit == .instant, enough >= size {
      free = pointee.search(
        size, under: constraints, from: (enough &>> pointee.quantumShift).log2Ceiling)
    }
    free =
      free
      ?? pointee.search(size, under: constraints, from: (size &>> pointee.quantumShift).log2Floor)
    guard let free else { return nil }
    return pointee.take(size, of: free, under: constraints)
  }

  @inline(never)
  private func importAndTake(
    _ size: UInt, _ enough: UInt, under constraints: Constraints
  ) -> TagPointer? {
    guard importLocking(enough) else { return nil }
    defer { pointee.lock.unlock() }
    guard
      let free = pointee.search(
        size, under: constraints, from: (size &>> pointee.quantumShift).log2Floor)
    else { return nil }
    return pointee.take(size, of: free, under: constraints)
  }

  @inline(never)
  private func allocateJoined(_ size: UInt, under constraints: Constraints)
    -> TagPointer?
  {
    guard lockWithTags() else { return nil }
    defer { pointee.lock.unlock() }
    guard let free = pointee.joinedRun(size, under: constraints) else { return nil }
    return pointee.take(size, of: free, under: constraints)
  }
}

// MARK: - Under the lock

extension Arena {
  fileprivate mutating func search(_ size: UInt, under constraints: Constraints, from order: UInt)
    -> TagPointer?
  {
    dirty.firstFit(size, under: constraints, from: order)
      ?? clean.firstFit(size, under: constraints, from: order)
  }

  /// Cuts `size` bytes out of a free segment that has room for them. Called
  /// with the lock held and two tags in hand.
  fileprivate mutating func take(_ size: UInt, of free: TagPointer, under constraints: Constraints)
    -> TagPointer
  {
    let start = constraints.place(size, from: free.pointee.start, to: free.pointee.end)
    if start == free.pointee.start { return takeFront(free, size) }
    let rest = reserve.take()
    rest.pointee.kind = .free
    rest.pointee.isDirty = free.pointee.isDirty
    rest.pointee.stamp = free.pointee.stamp
    rest.pointee.start = start
    rest.pointee.size = free.pointee.end &- start
    link(rest, above: free)
    resize(free, to: start &- free.pointee.start)
    if rest.pointee.isDirty { age.insert(rest, behind: free) }
    enlist(rest)
    return takeFront(rest, size)
  }

  /// Changes the size of a listed free segment at its end; its age stays.
  private mutating func resize(_ free: TagPointer, to size: UInt) {
    if free.pointee.isDirty {
      dirty.remove(free)
      freeDirtyBytes = freeDirtyBytes &- free.pointee.size
    } else {
      clean.remove(free)
    }
    free.pointee.size = size
    enlist(free)
  }
}
