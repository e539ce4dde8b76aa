// Item.swift: the owner of one element of a zone.

/// An element in memory of its zone.
///
/// It cannot be copied: when it ends, the element ends, as the zone's destructor, and
/// its memory is the zone's again. Other threads may free it.
public struct Item<Element: ~Copyable>: ~Copyable {
  @usableFromInline let memory: UnsafeMutableRawPointer
  // Unmanaged, because `take` could not leave a stored object behind: this item holds
  // one reference until it ends.
  @usableFromInline let storage: Unmanaged<ZoneStorage>

  @usableFromInline
  init(owning memory: UnsafeMutableRawPointer, of zone: Zone<Element>) {
    self.memory = memory
    storage = Unmanaged.passRetained(zone.storage)
  }

  deinit {
    storage.takeUnretainedValue().give(memory) {
      $0.assumingMemoryBound(to: Element.self).deinitialize(count: 1)
    }
    storage.release()
  }

  /// Lends the element to `body`.
  @inlinable
  public borrowing func borrow<Result: ~Copyable, Failure: Error>(
    _ body: (borrowing Element) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    try body(memory.assumingMemoryBound(to: Element.self).pointee)
  }

  /// Lends the element to `body`, which may change it.
  @inlinable
  public mutating func update<Result: ~Copyable, Failure: Error>(
    _ body: (inout Element) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    try body(&memory.assumingMemoryBound(to: Element.self).pointee)
  }

  /// Moves the element out; its memory is the zone's again.
  public consuming func take() -> Element {
    let element = memory.assumingMemoryBound(to: Element.self).move()
    storage.takeUnretainedValue().give(memory)
    storage.release()
    discard self
    return element
  }
}

extension Item: @unchecked Sendable where Element: Sendable & ~Copyable {}
