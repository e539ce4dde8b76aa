// Arena+Address.swift: allocation for owners that keep addresses, not tags.
//
// The hash table of registered segments finds the tag again. This way passes
// the quantum caches by: the table is under the arena's lock anyway. Takes
// SegmentHash for the table; only for arenas made with `hashMemory`.

import Base

extension UnsafeMutablePointer where Pointee == Arena {
  /// Allocates `size` bytes, rounded up to the quantum.
  ///
  /// Takes the lock; may import and call the kernel with the lock dropped.
  /// - Returns: the start, or `Arena.none`.
  package func allocateAddress(_ size: UInt) -> UInt {
    guard let tag = allocateSegment(pointee.rounded(size)) else { return Arena.none }
    return register(tag)
  }

  /// Makes a busy segment known by its start. Its owner may forget the tag, and
  /// frees it with `free(address:size:dirty:stamp:)`.
  ///
  /// Takes the lock; may call the kernel with the lock dropped.
  /// - Returns: the start; `Arena.none`, and the segment is free again, if the
  ///   arena has no hash table.
  package func register(_ tag: TagPointer) -> UInt {
    let start = tag.pointee.start
    pointee.lock.lock()
    guard pointee.hash.hasTable else {
      pointee.lock.unlock()
      freeSegment(tag, dirty: tag.pointee.isDirty, stamp: 0)
      return Arena.none
    }
    pointee.hash.insert(tag)
    let isCrowded = pointee.hash.desiredLog2 > pointee.hash.log2
    pointee.lock.unlock()
    if isCrowded { _ = rehash() }
    return start
  }

  /// Frees the registered segment at `address`.
  ///
  /// Takes the lock; may release a span with the lock dropped. Ends the process
  /// when nothing was allocated there, or something of another size.
  /// - Parameter size: that of the allocation, rounded up or not.
  package func free(address: UInt, size: UInt, dirty: Bool, stamp: UInt64) {
    pointee.lock.lock()
    guard let tag = pointee.hash.find(address) else {
      die("free of an address that was not allocated:", at: address, zone: nil)
    }
    if tag.pointee.size != pointee.rounded(size) {
      die("free of another size than was allocated: ", size, " bytes at ", address)
    }
    pointee.putBack(tag, dirty: dirty, stamp: stamp)
    if pointee.releases { return unlockReleasing(tag) }
    pointee.lock.unlock()
  }

  /// The tag of the registered segment that starts at `address`. Takes the lock;
  /// the tag stays valid only as long as nobody frees the segment.
  package func find(address: UInt) -> TagPointer? {
    pointee.lock.lock()
    defer { pointee.lock.unlock() }
    return pointee.hash.find(address)
  }

  /// Fits the hash table to the number of registered segments (A07): called by
  /// `register` when the table is crowded, and by the arena's owner every 10 s.
  ///
  /// Takes the lock; cuts the table, which may call the kernel, without it.
  /// - Returns: whether the table has the right size now.
  /// - Complexity: O(registered segments) when the size changes.
  @inline(never)
  package func rehash() -> Bool {
    let exponent = missingTable()
    let table =
      exponent == UInt.max ? 0 : SegmentHash.cutTable(log2: exponent, from: pointee.hashMemory)
    pointee.lock.lock()
    defer { pointee.lock.unlock() }
    if table != 0 { pointee.hash.adopt(table, log2: exponent) }
    let desired = pointee.hash.desiredLog2
    guard pointee.hash.hasTable(log2: desired) else { return false }
    if desired != pointee.hash.log2 { pointee.hash.resize(log2: desired) }
    return true
  }

  /// The exponent of the table that has to be cut first, or `UInt.max`.
  @inline(never)
  private func missingTable() -> UInt {
    pointee.lock.lock()
    defer { pointee.lock.unlock() }
    let desired = pointee.hash.desiredLog2
    return pointee.hash.hasTable(log2: desired) ? UInt.max : desired
  }
}
