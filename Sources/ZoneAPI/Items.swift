// Items.swift: keg_zone_alloc and keg_zone_free.
//
// The fast path is malloc's (Malloc/FastPath.swift), with the zone's offset in the place
// of the size: 14 instructions to allocate, 13 to free. It serves exactly WAITOK or
// NOWAIT, items without constructor or destructor, zones without limit. Constructor and
// destructor are called around the same few instructions (`allocateOne`, `freeOne`). An
// array that is empty or full is exchanged as malloc's is (Exchange.swift), unless
// functions of the program may have to be called for that. All else finds an empty bin
// and takes the slow way:
//
//   flags, injected failure ─▶ cache ─▶ depot ─▶ keg ─▶ limit: drain, sleep (AtLimit.swift)
//                                                   └─▶ memory: drain hook, reclaim, once more
//   then ZERO, then the constructor, outside all locks

import Base
import Keg
import Malloc
import Platform
import Synchronization
import Zone

/// Flags of kegmalloc.h.
enum AllocFlags {
  static var waitOK: Int32 { 1 }
  static var noWait: Int32 { 2 }
  static var zero: Int32 { 4 }
  static var noVM: Int32 { 8 }
  static var useReserve: Int32 { 16 }
  static var all: Int32 { 31 }
}

/// The bin that serves the calling thread at `offset`.
@inline(__always)
func fastBin(_ offset: UInt) -> UnsafeMutablePointer<Bin> {
  ((keg_get_thread_bins() &- 8).word &+ offset).pointer(to: Bin.self)
}

@c public func keg_zone_alloc(
  _ zone: UnsafeMutableRawPointer, _ flags: Int32
) -> UnsafeMutableRawPointer? {
  if _fastPath(UInt32(bitPattern: flags &- 1) < handle(zone).pointee.plainFlags) {
    let bin = fastBin(handle(zone).takeOffset)
    let top = bin.pointee.top
    if _fastPath(top != bin.pointee.low) {
      bin.pointee.top = top &- 8
      keg_compiler_barrier()
      return UnsafeMutableRawPointer(bitPattern: (top &- 8).word)
    }
  }
  return keg_zone_alloc_slowly(zone, flags)
}

@c public func keg_zone_free(
  _ zone: UnsafeMutableRawPointer, _ item: UnsafeMutableRawPointer?
) {
  if _fastPath(UInt(bitPattern: item) >= handle(zone).pointee.leastPlainItem) {
    if _fastPath(push(UInt(bitPattern: item), fastBin(handle(zone).giveOffset))) { return }
  }
  keg_zone_free_slowly(zone, item)
}

@c public func keg_zone_alloc_arg(
  _ zone: UnsafeMutableRawPointer, _ argument: UnsafeMutableRawPointer?, _ flags: Int32
) -> UnsafeMutableRawPointer? {
  if handle(zone).pointee.constructor == nil { return keg_zone_alloc(zone, flags) }
  return handle(zone).allocateOne(argument, flags)
}

@c public func keg_zone_alloc_timeout(
  _ zone: UnsafeMutableRawPointer, _ argument: UnsafeMutableRawPointer?, _ flags: Int32,
  _ milliseconds: UInt32
) -> UnsafeMutableRawPointer? {
  handle(zone).check()
  return handle(zone).allocate(argument, flags, milliseconds: max(UInt64(milliseconds), 1))
}

@c public func keg_zone_free_arg(
  _ zone: UnsafeMutableRawPointer, _ item: UnsafeMutableRawPointer?,
  _ argument: UnsafeMutableRawPointer?
) {
  if handle(zone).pointee.destructor == nil { return keg_zone_free(zone, item) }
  handle(zone).freeOne(item, argument)
}

@c public func keg_zone_wait(_ zone: UnsafeMutableRawPointer) -> Int32 {
  handle(zone).check()
  guard let item = keg_zone_alloc_arg(zone, nil, AllocFlags.waitOK) else { return keg_get_errno() }
  keg_zone_free_arg(zone, item, nil)
  return 0
}

// In C's calling convention, so that the fast paths jump to them.
@c @inline(never) public func keg_zone_alloc_slowly(
  _ zone: UnsafeMutableRawPointer, _ flags: Int32
) -> UnsafeMutableRawPointer? {
  handle(zone).allocateOne(nil, flags)
}

@c @inline(never) public func keg_zone_free_slowly(
  _ zone: UnsafeMutableRawPointer, _ item: UnsafeMutableRawPointer?
) {
  handle(zone).freeOne(item, nil)
}

// MARK: - With constructor, destructor, argument

extension UnsafeMutablePointer where Pointee == Handle {
  @inline(__always)
  func allocateOne(
    _ argument: UnsafeMutableRawPointer?, _ flags: Int32
  ) -> UnsafeMutableRawPointer? {
    if let constructor = pointee.constructor, _fastPath(UInt32(bitPattern: flags &- 1) < 2) {
      let bin = fastBin(takeOffset)
      let top = bin.pointee.top
      if _fastPath(top != bin.pointee.low) {
        bin.pointee.top = top &- 8
        keg_compiler_barrier()
        let item = UnsafeMutableRawPointer(bitPattern: (top &- 8).word)
        return _fastPath(constructor(item, pointee.itemSize, argument, flags) == 0)
          ? item : refuse(UInt(bitPattern: item))
      }
    }
    return allocate(argument, flags, milliseconds: 0)
  }

  @inline(__always)
  func freeOne(_ item: UnsafeMutableRawPointer?, _ argument: UnsafeMutableRawPointer?) {
    guard let item else { return }
    if _slowPath(giveOffset == 0) { return free(item, argument) }
    if let destructor = pointee.destructor {
      destructor(item, pointee.itemSize, argument)
      if _fastPath(push(UInt(bitPattern: item), fastBin(giveOffset))) { return }
    }
    giveItem(UInt(bitPattern: item))
  }
}

// MARK: - The slow way

extension UnsafeMutablePointer where Pointee == Handle {
  /// - Parameter milliseconds: the longest wait at the limit; 0: for good.
  @inline(never)
  func allocate(
    _ argument: UnsafeMutableRawPointer?, _ flags: Int32, milliseconds: UInt64
  ) -> UnsafeMutableRawPointer? {
    if UInt32(bitPattern: flags &- 1) < 2 {
      let item = takeFromRefill()
      if item != 0 {
        return pointee.constructor == nil
          ? UnsafeMutableRawPointer(bitPattern: item) : construct(item, argument, flags)
      }
    }
    check()
    let flags = saneFlags(flags)
    if flags & ~AllocFlags.all != 0
      || flags & AllocFlags.zero != 0 && pointee.flags.contains(.noTouch)
    {
      return fail(22 /* EINVAL */)
    }
    if flags & AllocFlags.noWait != 0, injectsFailure() { return fail(12 /* ENOMEM */) }
    let item = takeItem(flags, milliseconds)
    if item == 0 { return nil }
    if isChecked { noteGiven(item) }
    return construct(item, argument, flags)
  }

  /// errno, the count, nil.
  func fail(_ error: Int32) -> UnsafeMutableRawPointer? {
    noteFailure()
    keg_set_errno(error)
    return nil
  }

  /// An item without construction, or 0 with errno set.
  func takeItem(_ flags: Int32, _ milliseconds: UInt64) -> UInt {
    if pointee.flags.contains(.ofMalloc), !pointee.zone.isLimited || mallocIsChecked {
      let item = allocateForProgram(pointee.zone.pointee.itemSize)
      if item == 0 { _ = fail(12) }
      return item
    }
    var item: UInt = 0
    let result = inSection {
      item = takeThroughCaches(TakeFlags(alloc: flags))
    }
    switch result {
    case .done: break
    case .inHandler:
      _ = fail(4 /* EINTR */)
      return 0
    case .noMemory:
      _ = fail(12)
      return 0
    }
    if item != 0 { return item }
    while pointee.zone.isLimited {
      let (granted, error) = takeAtLimit(flags, milliseconds)
      if granted != 0 { return granted }
      if error != 0 {
        _ = fail(error)
        return 0
      }
      // Somebody has freed an item between the two looks, or there is no memory.
      _ = inSection { item = takeThroughCaches(TakeFlags(alloc: flags)) }
      if item != 0 { return item }
      if isFull { continue }
      if flags & AllocFlags.waitOK == 0 { break }
      // Room that came and went again, or no memory: a grant tells.
      let (last, timeout) = takeGranted(flags, milliseconds)
      if last != 0 { return last }
      if timeout == 0 { break }
      _ = fail(timeout)
      return 0
    }
    if flags & AllocFlags.noVM == 0 {
      // P03: whoever caches on top of this zone gives back first, then the zones.
      if runDrainHook() { item = takeAgain(flags, milliseconds) }
      if item == 0 {
        _ = keg_reclaim(3)
        item = takeAgain(flags, milliseconds)
      }
    }
    if item == 0 { _ = fail(12) }
    return item
  }

  /// After memory was given back.
  private func takeAgain(_ flags: Int32, _ milliseconds: UInt64) -> UInt {
    var item: UInt = 0
    _ = inSection { item = takeThroughCaches(TakeFlags(alloc: flags)) }
    if item != 0 || !pointee.zone.isLimited || flags & AllocFlags.waitOK == 0 { return item }
    return takeGranted(flags, milliseconds).item
  }

  /// Zeroes and constructs an item; nil when the constructor refuses.
  func construct(
    _ item: UInt, _ argument: UnsafeMutableRawPointer?, _ flags: Int32
  ) -> UnsafeMutableRawPointer? {
    let pointer = UnsafeMutableRawPointer(bitPattern: item)
    let size = pointee.itemSize
    if flags & AllocFlags.zero != 0 {
      pointer?.initializeMemory(as: UInt8.self, repeating: 0, count: size)
    }
    if let constructor = pointee.constructor, constructor(pointer, size, argument, flags) != 0 {
      return refuse(item)
    }
    return pointer
  }

  /// The constructor has refused an item: it is neither destroyed nor counted as a free (D05).
  @inline(never)
  private func refuse(_ item: UInt) -> UnsafeMutableRawPointer? {
    if isChecked, mayTake(item) { noteTaken(item) }
    giveItem(item)
    return fail(125 /* ECANCELED */)
  }

  @inline(never)
  func free(_ item: UnsafeMutableRawPointer?, _ argument: UnsafeMutableRawPointer?) {
    check()
    if isChecked, !mayTake(UInt(bitPattern: item)) { return }
    pointee.destructor?(item, pointee.itemSize, argument)
    if isChecked { noteTaken(UInt(bitPattern: item)) }
    giveItem(UInt(bitPattern: item))
  }

  /// Gives a destroyed item back. Dies in a handler over the allocator: nothing may wait.
  func giveItem(_ item: UInt) {
    if giveIntoRoom(item) { return }
    if mallocIsChecked, pointee.flags.contains(.ofMalloc) { return freeForProgram(item) }
    if pointee.flags.contains(.ofMalloc), !pointee.zone.isLimited {
      guard let keg, keg.slab(holding: item) != nil else {
        die("invalid free of", at: item, zone: name)
      }
      freeBytes(item)
      return
    }
    let result = inSection {
      giveThroughCaches(item)
      if pointee.wantsTrim.exchange(false, ordering: .relaxed) { pointee.zone.trimSurplus() }
    }
    if result == .inHandler {
      die("keg_zone_free by a signal handler that interrupted the allocator, of", at: item, zone: name)
    }
  }

  /// An item from the first that has one: cache, depot, keg; 0: none, or others wait at
  /// the limit. In a section.
  func takeThroughCaches(_ flags: TakeFlags) -> UInt {
    let zone = pointee.zone
    if zone.hasWaiters { return 0 }
    if let cache = cache() {
      var item = cache.bin.popEither()
      if item == 0, cache.bin.loadFull(from: zone) { item = cache.bin.popEither() }
      cache.giveBack()
      if item != 0 { return item }
      if !flags.contains(.noGrowth), !flags.contains(.useReserve) {
        let item = takeByBucket()
        // Functions of the program may wait for this caller alone.
        if item != 0 || !hasFunctions { return item }
      }
    }
    return zone.allocateItem(flags)
  }

  /// Fills a bucket from the keg for the cache, and takes an item of it.
  private func takeByBucket() -> UInt {
    let zone = pointee.zone
    guard let bucket = zone.pointee.pools.pointee.take(entries: zone.pointee.bucketEntries) else {
      return zone.allocateItem()
    }
    zone.fill(bucket, min(bucket.capacity, max(zone.pointee.bucketEntries, 1)))
    let count = bucket.pointee.count
    if count == 0 {
      zone.pointee.pools.pointee.give(bucket)
      return 0
    }
    let item = bucket.slots[Int(count) &- 1]
    bucket.pointee.count = count &- 1
    if let cache = cache() {
      cache.bin.install(bucket, zone)
      cache.giveBack()
    } else {
      zone.adopt(bucket)
    }
    return item
  }

  /// Gives an item to the first that takes it: cache, depot, keg. In a section.
  func giveThroughCaches(_ item: UInt) {
    let zone = pointee.zone
    // U07: a waiter must see the item.
    guard !zone.hasWaiters, !pointee.isOver.load(ordering: .relaxed), let cache = cache() else {
      zone.freeItem(item)
      if pointee.isOver.load(ordering: .relaxed) { noteWhetherOver() }
      return
    }
    // A waiter that came meanwhile drains this array after we have dropped its lock.
    if zone.hasWaiters {
      cache.giveBack()
      zone.freeItem(item)
      return
    }
    if cache.bin.pushEither(item) {
      cache.giveBack()
      return
    }
    let full = cache.bin.detachFull()
    cache.giveBack()
    var empty = full.flatMapBucket { zone.putBucket($0) }
    let wanted = zone.pointee.bucketEntries
    if let small = empty, small.capacity < wanted {
      zone.pointee.pools.pointee.give(small)
      empty = nil
    }
    empty = empty ?? zone.pointee.pools.pointee.take(entries: wanted)
    guard let again = self.cache() else {
      if let empty { zone.pointee.pools.pointee.give(empty) }
      zone.freeItem(item)
      return
    }
    if let empty { again.bin.installEmpty(empty, zone) }
    let isDone = !zone.hasWaiters && again.bin.pushEither(item)
    again.giveBack()
    if !isDone { zone.freeItem(item) }
  }
}

extension Optional where Wrapped == UnsafeMutablePointer<Bucket> {
  /// `body` of the bucket if there is one.
  @inline(__always)
  fileprivate func flatMapBucket(
    _ body: (UnsafeMutablePointer<Bucket>) -> UnsafeMutablePointer<Bucket>?
  ) -> UnsafeMutablePointer<Bucket>? {
    if let self { return body(self) }
    return nil
  }
}
