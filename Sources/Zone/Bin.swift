// Bin.swift: one zone's part of a thread's array (U05–U07).
//
//                low            top             high
//   loaded  |hdr| i0 | i1 | … | ik |            |        pop: top -= 8; push: top += 8
//   previous|hdr| …                             |        full, empty or in between
//
// Pop takes the last item, push adds one; `top` alone says how many there are, so
// each commits with one store, and a signal handler that interrupts either and
// frees what it allocates leaves the interrupted one right (docs/signals.md).
// All zero is a bin without a bucket: empty and full at once, so that pop and push
// both leave the fast path.
//
// Only the owning thread touches a bin. 32 bytes: two share a cache line.

import Base

package struct Bin {
  package var top: UInt
  package var low: UInt
  package var high: UInt
  /// The other bucket, or 0.
  package var previous: UInt

  /// A bin without buckets.
  package init() {
    top = 0
    low = 0
    high = 0
    previous = 0
  }

  package static var strideShift: UInt { 5 }
  /// Buckets of larger items, in bytes, may have a quarter of what the zone says, for a
  /// thread that caches much already.
  static var mediumItem: UInt { 1024 }
  /// Buckets of items up to 512 bytes grow as far, 30 items, or until they hold so many
  /// bytes, whatever is cached: with 8 a thread that allocates much spends its time on the
  /// way to the keg.
  static var freeGrowth: Int { 4 }
  static var freeBytes: UInt { 4096 }
  /// Bytes of items from which on a bucket grows no more because the bin swaps.
  static var mostGrown: UInt { 4096 }
  /// Buckets of larger items, in bytes, start with two.
  static var largeItem: UInt { 2048 }
}

extension UnsafeMutablePointer where Pointee == Bin {
  package var count: Int { Int(bitPattern: (pointee.top &- pointee.low) &>> 3) }

  private var loaded: UnsafeMutablePointer<Bucket>? {
    pointee.low == 0 ? nil : (pointee.low &- Bucket.headerBytes).pointer(to: Bucket.self)
  }

  private var previousBucket: UnsafeMutablePointer<Bucket>? {
    pointee.previous == 0 ? nil : pointee.previous.pointer(to: Bucket.self)
  }

  func load(_ bucket: UnsafeMutablePointer<Bucket>) {
    let low = bucket.low
    pointee.low = low
    pointee.high = bucket.high
    pointee.top = low &+ UInt(bucket.pointee.count) &* 8
  }

  /// Takes the loaded bucket out, its count written back.
  package func unload() -> UnsafeMutablePointer<Bucket>? {
    guard let bucket = loaded else { return nil }
    bucket.pointee.count = UInt32(truncatingIfNeeded: count)
    pointee.top = 0
    pointee.low = 0
    pointee.high = 0
    return bucket
  }

  private func swap(with other: UnsafeMutablePointer<Bucket>) {
    pointee.previous = unload()?.address ?? 0
    load(other)
  }

  /// Takes the previous bucket for an empty loaded one.
  /// - Returns: false when it has no items either.
  @inline(never)
  package func swapForItems() -> Bool {
    guard let other = previousBucket, other.pointee.count > 0 else { return false }
    swap(with: other)
    return true
  }

  /// Whether a larger bucket would spare swaps: the previous one is full, while the loaded
  /// one is empty, and the bin holds little.
  package func swapsTooOften(_ zone: UnsafeMutablePointer<Zone>) -> Bool {
    guard let other = previousBucket, other.isFull else { return false }
    return other.capacity < zone.pointee.bucketEntries
      && UInt(other.capacity) &* zone.pointee.itemSize < Bin.mostGrown
  }

  /// As `swapForItems`, but into a larger bucket, where its items and as much room are
  /// side by side: a bin that swaps to and fro gets what it needs not to.
  /// - Returns: false when no larger bucket is to be had.
  @_optimize(size)
  package func grow(for zone: UnsafeMutablePointer<Zone>, mayBeLarge: Bool) -> Bool {
    let wanted = wantedEntries(zone, true, mayBeLarge, false, false)
    guard let other = previousBucket, other.capacity < wanted,
      let larger = zone.pointee.pools.pointee.take(entries: wanted)
    else { return false }
    larger.pointee.count = other.pointee.count
    larger.slots.update(from: other.slots, count: Int(other.pointee.count))
    other.pointee.count = 0
    if let old = unload() { zone.pointee.pools.pointee.give(old) }
    load(larger)
    return true
  }

  /// Takes the previous bucket for a full loaded one.
  /// - Returns: false when it is full as well, or there is none.
  package func swapForRoom() -> Bool {
    guard let other = previousBucket, !other.isFull else { return false }
    swap(with: other)
    return true
  }

  /// How many entries this thread's next bucket should have: the next size, about
  /// twice what it has, from 8, or 2 of large items, up to what the zone says. Threads that
  /// allocate little cache little.
  @inline(never)
  private func wantedEntries(
    _ zone: UnsafeMutablePointer<Zone>, _ mayGrow: Bool, _ mayBeLarge: Bool, _ atOnce: Bool,
    _ isTight: Bool
  ) -> Int {
    var most = zone.pointee.bucketEntries
    if atOnce { return most }
    let size = zone.pointee.itemSize
    if !mayBeLarge, size > Bin.mediumItem { most = max(most / 4, min(most, 2)) }
    guard let loaded, !isTight else {
      return min(size <= (mayGrow ? Bin.largeItem : Zone.largestSorted) ? 8 : 2, most)
    }
    let index = Int(loaded.pointee.sizeIndex)
    let isFree =
      size <= Zone.largestSorted
      && (index < Bin.freeGrowth
        || UInt(bitPattern: BucketSize.capacity(at: index)) &* size < Bin.freeBytes)
    let step = mayGrow || isFree ? 1 : 0
    let next = min(index &+ step, BucketSize.count &- 1)
    return min(BucketSize.capacity(at: next), most)
  }

  /// Items that both buckets can hold.
  package var capacity: Int {
    Int(bitPattern: (pointee.high &- pointee.low) &>> 3) &+ (previousBucket?.capacity ?? 0)
  }

  /// Puts items into a bin whose buckets are empty: from the depot, or the keg.
  /// - Parameters:
  ///   - mayGrow: whether this thread may have larger buckets than now.
  ///   - mayBeLarge: whether these may be many bytes.
  ///   - atOnce: whether it gets buckets of the zone's size from the start.
  ///   - isTight: whether buckets are to be as small as the first, also of small items.
  /// - Returns: false when there is no item or no bucket to be had.
  package func refill(
    from zone: UnsafeMutablePointer<Zone>, mayGrow: Bool = true, mayBeLarge: Bool = true,
    atOnce: Bool = false, isTight: Bool = false
  ) -> Bool {
    let spent = unload()
    if let bucket = zone.takeBucket(returning: spent) {
      load(bucket)
      return true
    }
    if let spent { load(spent) }
    let wanted = wantedEntries(zone, mayGrow, mayBeLarge, atOnce, isTight)
    if wanted == 0 { return false }
    let has = loaded?.capacity ?? 0
    if has < wanted || isTight && has > wanted,
      let other = zone.pointee.pools.pointee.take(entries: wanted)
    {
      if let old = unload() { zone.pointee.pools.pointee.give(old) }
      load(other)
    }
    guard let bucket = loaded else { return false }
    // Of most sizes most threads need few, and wait for ever with what they got beyond:
    // two, then as many as the last bucket could hold.
    zone.fill(bucket, atOnce ? bucket.capacity : min(max(has, 2), bucket.capacity))
    load(bucket)
    return bucket.pointee.count > 0
  }

  /// Makes room in a bin whose buckets are full: one goes to the depot, or to slabs.
  /// - Parameters:
  ///   - isTight: as of `refill`.
  ///   - isForOthers: whether small items may go to the depot, not to their slabs.
  ///   - keepsFull: whether the loaded one stays as the previous; who only frees has no use
  ///     for it.
  /// - Returns: false when there is no bucket to be had.
  package func makeRoom(
    for zone: UnsafeMutablePointer<Zone>, mayGrow: Bool = true, mayBeLarge: Bool = true,
    atOnce: Bool = false, isForOthers: Bool = true, isTight: Bool = false, keepsFull: Bool = true
  ) -> Bool {
    let wanted = wantedEntries(zone, mayGrow, mayBeLarge, atOnce, isTight)
    if wanted == 0 { return false }
    var empty: UnsafeMutablePointer<Bucket>? = nil
    if let other = previousBucket {
      empty = zone.putBucket(other, isForOthers)
      pointee.previous = 0
    }
    if !keepsFull, let full = unload() {
      if let empty { zone.pointee.pools.pointee.give(empty) }
      empty = zone.putBucket(full, isForOthers)
    }
    if let other = empty, other.capacity < wanted || isTight && other.capacity > wanted {
      zone.pointee.pools.pointee.give(other)
      empty = nil
    }
    empty = empty ?? zone.pointee.pools.pointee.take(entries: wanted)
    guard let empty else { return false }
    swap(with: empty)
    return true
  }

  /// Hands both buckets to the zone and leaves the bin as if never used.
  @inline(never)
  package func flush(to zone: UnsafeMutablePointer<Zone>) {
    if let bucket = unload() { zone.adopt(bucket) }
    if let bucket = previousBucket {
      pointee.previous = 0
      zone.adopt(bucket)
    }
  }

  /// As `flush`, but past the depot: the items go to their slabs.
  package func evict(to zone: UnsafeMutablePointer<Zone>) {
    if let bucket = unload() { zone.giveBack(bucket) }
    if let bucket = previousBucket {
      pointee.previous = 0
      zone.giveBack(bucket)
    }
  }

  /// Hands the previous bucket to the zone and forgets the loaded one's items.
  package func adoptOrphan(_ zone: UnsafeMutablePointer<Zone>) {
    if let bucket = unload() { zone.pointee.pools.pointee.give(bucket) }
    flush(to: zone)
  }

  /// Items in both buckets.
  package var cachedCount: Int {
    count &+ Int(previousBucket?.pointee.count ?? 0)
  }
}
