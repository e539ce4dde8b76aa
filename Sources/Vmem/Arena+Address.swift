// Arena+Address.swift: allocation for owners that keep addresses, not tags.
//
// A hash table of registered segments finds the tag again. Segments of sizes that
// have a quantum cache are in a table of the caches, under the caches' lock, and
// stay there while they are cached; so a pair that the cache serves takes no other
// lock and is checked all the same. Takes SegmentHash for the tables; only for
// arenas made with `hashMemory`.
//
//   size ≤ cachedBytes   caches.lock   caches.hash   ◀─ allocateAddress
//   others               lock          hash          ◀─ allocateAddress, register

import Base
import Pages

extension UnsafeMutablePointer where Pointee == Arena {
  /// Allocates `size` bytes, rounded up to the quantum.
  ///
  /// Takes the lock; may import and call the kernel with the lock dropped.
  /// - Returns: the start, or `Arena.none`.
  package func allocateAddress(_ size: UInt) -> UInt {
    var isDirty = false
    return allocateAddress(size, isDirty: &isDirty)
  }

  /// As `allocateAddress`; `isDirty` says whether the memory may hold old bytes.
  /// - Parameter mayImport: false to be served from the spans that are there.
  package func allocateAddress(
    _ size: UInt, isDirty: UnsafeMutablePointer<Bool>, mayImport: Bool = true
  ) -> UInt {
    let size = pointee.rounded(size)
    // 0 wraps to the largest size, which no cache has.
    let isCacheable = size &- 1 < pointee.cachedBytes
    if isCacheable, let tag = caches.take(size &>> pointee.quantumShift) {
      isDirty.pointee = tag.pointee.isDirty
      // Unless its last owner kept the tag, it is registered.
      return tag.pointee.isHashed ? tag.pointee.start : registerCacheable(tag)
    }
    guard let tag = allocateSegment(size, mayImport: mayImport) else { return Arena.none }
    isDirty.pointee = tag.pointee.isDirty
    return isCacheable ? registerCacheable(tag) : register(tag)
  }

  @inline(never)
  private func registerCacheable(_ tag: TagPointer) -> UInt {
    let start = tag.pointee.start
    caches.pointee.lock.lock()
    guard caches.pointee.hash.hasTable else {
      caches.pointee.lock.unlock()
      freeSegment(tag, dirty: tag.pointee.isDirty, stamp: 0)
      return Arena.none
    }
    caches.pointee.hash.insert(tag)
    let isCrowded = caches.pointee.hash.desiredLog2 > caches.pointee.hash.log2
    caches.pointee.lock.unlock()
    if isCrowded { _ = caches.fitTable(from: pointee.hashMemory) }
    return start
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
    let size = pointee.rounded(size)
    if size &- 1 < pointee.cachedBytes {
      switch caches.give(address: address, size, size &>> pointee.quantumShift, dirty, stamp) {
      case .kept: return
      case .full(let tag): return freeSegment(tag, dirty: dirty, stamp: stamp)
      case .unknown: break
      }
    }
    freePastCaches(address: address, size: size, dirty: dirty, stamp: stamp)
  }

  /// As `free(address:size:dirty:stamp:)`, but no quantum cache keeps the segment.
  package func freePastCaches(address: UInt, size: UInt, dirty: Bool, stamp: UInt64) {
    let size = pointee.rounded(size)
    if size &- 1 < pointee.cachedBytes, let tag = caches.unregister(address, size) {
      return freeSegment(tag, dirty: dirty, stamp: stamp)
    }
    pointee.lock.lock()
    guard let tag = pointee.hash.find(address) else {
      die("free of an address that was not allocated, or of another size:", at: address, zone: nil)
    }
    if tag.pointee.size != size {
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
    if let tag = pointee.hash.find(address) { return tag }
    caches.pointee.lock.lock()
    defer { caches.pointee.lock.unlock() }
    guard let tag = caches.pointee.hash.find(address), !tag.pointee.isCached else { return nil }
    return tag
  }

  /// Fits the hash table to the number of registered segments (A07): called by
  /// `register` when the table is crowded, and by the arena's owner every 10 s.
  ///
  /// Takes the lock; cuts the table, which may call the kernel, without it.
  /// - Returns: whether the table has the right size now.
  /// - Complexity: O(registered segments) when the size changes.
  @inline(never)
  package func rehash() -> Bool {
    if pointee.cachedBytes != 0, !caches.fitTable(from: pointee.hashMemory) { return false }
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

extension UnsafeMutablePointer where Pointee == QuantumCaches {
  /// As `Arena.rehash`, for the caches' table. Takes the caches' lock.
  @inline(never)
  fileprivate func fitTable(from memory: UnsafeMutablePointer<Metadata>?) -> Bool {
    pointee.lock.lock()
    let exponent = pointee.hash.desiredLog2
    let isMissing = !pointee.hash.hasTable(log2: exponent)
    pointee.lock.unlock()
    let table = isMissing ? SegmentHash.cutTable(log2: exponent, from: memory) : 0
    pointee.lock.lock()
    defer { pointee.lock.unlock() }
    if table != 0 { pointee.hash.adopt(table, log2: exponent) }
    let desired = pointee.hash.desiredLog2
    guard pointee.hash.hasTable(log2: desired) else { return false }
    if desired != pointee.hash.log2 { pointee.hash.resize(log2: desired) }
    return true
  }
}
