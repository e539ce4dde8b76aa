// Metadata.swift: memory for the allocator's own structures.
//
// Boundary tags, slab headers, buckets and thread caches never lie beside user
// bytes: a program that writes past a block cannot reach them. They come from a
// region of their own, cut front to back in committed steps, and go back only to
// the pool they came from. Nothing here is ever given back to the kernel, but for
// the reserved rest when the program limits its address space.
//
//   region   |#### handed to pools ####|·· committed ··|   reserved      |
//            start                     front           committed         end
//
// When the region is used up, further ones of 1 MiB follow it.
//
// Lock: rank `metadata`, the highest: it is taken under every other lock.

import Base

package struct Metadata: ~Copyable {
  private let source: PageSource
  // Not the first field: TSan takes a mutating call for a write to the first.
  package let lock: Lock
  private var front: UInt
  private var committed: UInt
  private var end: UInt
  private var start: UInt
  /// Bytes cut from regions before this one.
  private var earlierBytes: UInt = 0
  /// The regions of 1 MiB after the first one, linked through their first words.
  private var regions: UInt = 0

  /// A region over `[start, end)`, which must be reserved with `source`.
  package init(start: UInt, end: UInt, source: PageSource) {
    lock = Lock(rank: .metadata)
    self.source = source
    self.start = start
    self.end = end
    front = start
    committed = start
  }

  /// Bytes handed to pools.
  package var usedBytes: UInt { earlierBytes &+ front &- start }

  /// Gives the reserved rest of the region back to the kernel.
  package mutating func releaseTail() {
    if committed < end, source.release(committed, end &- committed) { end = committed }
  }

  /// Cuts `size` bytes off the region; known zero.
  ///
  /// Called with the lock held. May call the kernel.
  /// - Parameter size: a multiple of `alignment`.
  /// - Returns: the address, or 0 when the region or memory is exhausted.
  package mutating func cut(_ size: UInt, alignment: UInt) -> UInt {
    var address = front.roundedUp(to: alignment)
    if address &+ size > end {
      guard size <= Self.nextRegionBytes &- Self.linkBytes, startNextRegion() else { return 0 }
      address = front
    }
    if address &+ size > committed {
      // Steps of 128 KiB: one mprotect (about 1 µs) a step.
      let step = min((address &+ size &- committed).roundedUp(to: 1 &<< 17), end &- committed)
      guard source.commit(committed, step) else { return 0 }
      committed = committed &+ step
    }
    front = address &+ size
    return address
  }

  /// Commits the region's first `size` bytes in advance, if they can be had.
  ///
  /// A heap that took all memory the process may have could otherwise not be used
  /// for items of another size once its blocks are freed. Called with the lock held.
  package mutating func commitAhead(_ size: UInt) {
    let wanted = min(size.roundedUp(to: 1 &<< 17), end &- start)
    if start &+ wanted > committed, source.commit(committed, start &+ wanted &- committed) {
      committed = start &+ wanted
    }
  }

  private static var nextRegionBytes: UInt { 1 &<< 20 }
  /// A page of each of them, for the link.
  private static var linkBytes: UInt { 4096 }

  /// Calls `body` with the bounds of the regions after the first one.
  package func forEachRegion(_ body: (_ start: UInt, _ end: UInt) -> Void) {
    var region = regions
    while region != 0 {
      body(region, region &+ Self.nextRegionBytes)
      region = region.word
    }
  }

  private mutating func startNextRegion() -> Bool {
    let region = source.reserve(Self.nextRegionBytes)
    guard region != 0 else { return false }
    guard source.commit(region, Self.linkBytes) else {
      _ = source.release(region, Self.nextRegionBytes)
      return false
    }
    region.word = regions
    regions = region
    earlierBytes = usedBytes
    start = region &+ Self.linkBytes
    front = start
    committed = start
    end = region &+ Self.nextRegionBytes
    return true
  }
}

extension UnsafeMutablePointer where Pointee == Metadata {
  /// Room for `count` values that stay for good; known zero. Takes the lock.
  /// - Returns: nil when there is no memory.
  package func room<T: ~Copyable>(for type: T.Type, count: Int = 1) -> UnsafeMutablePointer<T>? {
    pointee.lock.lock()
    defer { pointee.lock.unlock() }
    let bytes = UInt(bitPattern: MemoryLayout<T>.stride &* count)
    let address = pointee.cut(bytes.roundedUp(to: 64), alignment: 64)
    return UnsafeMutablePointer<T>(bitPattern: address)
  }
}

/// Structures of one size, in a LIFO free list linked through their first word.
///
/// An internal zone without caches (UMA's INTERNAL flag, U01): it shows up in
/// the statistics under its name.
/// - Invariant: `usedCount + freeCount` structures of `itemBytes` were cut.
package struct Pool: ~Copyable {
  package let name: StaticString
  package let itemBytes: UInt
  private let alignment: UInt
  fileprivate let metadata: UnsafeMutablePointer<Metadata>
  private var free: UInt
  private var fresh: UInt
  private var freshEnd: UInt
  package private(set) var usedCount: UInt
  package private(set) var freeCount: UInt

  /// - Parameters:
  ///   - itemBytes: at least 8; rounded up to `alignment`.
  ///   - alignment: a power of two, at least 8.
  package init(
    name: StaticString, itemBytes: UInt, alignment: UInt = 16,
    metadata: UnsafeMutablePointer<Metadata>
  ) {
    self.name = name
    self.itemBytes = itemBytes.roundedUp(to: alignment)
    self.alignment = alignment
    self.metadata = metadata
    free = 0
    fresh = 0
    freshEnd = 0
    usedCount = 0
    freeCount = 0
  }

  /// Called with the metadata lock held.
  fileprivate mutating func takeItem() -> UInt {
    if free != 0 {
      let item = free
      free = item.word
      freeCount &-= 1
      usedCount &+= 1
      return item
    }
    if fresh == freshEnd {
      // Half a KiB at first, so that the pools of a small process share pages.
      let count = max(1, (usedCount < 32 ? 512 : 4096) / itemBytes)
      let region = metadata  // without this copy the compiler fails under TSan
      let batch = region.pointee.cut(count &* itemBytes, alignment: alignment)
      guard batch != 0 else { return 0 }
      fresh = batch
      freshEnd = batch &+ count &* itemBytes
    }
    let item = fresh
    fresh = fresh &+ itemBytes
    usedCount &+= 1
    return item
  }

  /// Called with the metadata lock held.
  fileprivate mutating func giveItem(_ item: UInt) {
    item.word = free
    free = item
    freeCount &+= 1
    usedCount &-= 1
  }

  /// As `UnsafeMutablePointer.take`; for a pool that one thread uses.
  package mutating func take() -> UInt {
    metadata.pointee.lock.lock()
    defer { metadata.pointee.lock.unlock() }
    return takeItem()
  }

  /// As `UnsafeMutablePointer.give`; for a pool that one thread uses.
  package mutating func give(_ item: UInt) {
    metadata.pointee.lock.lock()
    giveItem(item)
    metadata.pointee.lock.unlock()
  }
}

// A pool that threads share is used through its pointer: a mutating call is an
// access to all of it, and here that begins only under the lock.
extension UnsafeMutablePointer where Pointee == Pool {
  /// Takes one structure. Its contents are undefined. Takes the metadata lock.
  /// - Returns: its address, or 0 when there is no memory.
  package func take() -> UInt {
    pointee.metadata.pointee.lock.lock()
    defer { pointee.metadata.pointee.lock.unlock() }
    return pointee.takeItem()
  }

  /// Gives back a structure that came from `take`. Never fails, never allocates.
  /// Takes the metadata lock.
  package func give(_ item: UInt) {
    pointee.metadata.pointee.lock.lock()
    pointee.giveItem(item)
    pointee.metadata.pointee.lock.unlock()
  }
}
