// Bulk.swift: many items in one call (S12), and keg_prefill (S08).
//
//   array:  one subtraction and one copy for all it has        (order of stores: FastPath.swift)
//   depot:  a bucket at a time, copied
//   slabs:  the rest straight into the caller's array, no bucket in between
//
// Zones with a constructor or destructor, a limit or failures to inject go item by item.

import Base
import Malloc
import Platform
import Synchronization
import Zone

/// Copies `count` words.
@inline(__always)
private func copyWords(_ from: UInt, _ to: UInt, _ count: Int) {
  // One memmove; `update(from:)` becomes a call for each word.
  UnsafeMutableRawPointer(bitPattern: to).unsafelyUnwrapped  // callers' memory
    .copyMemory(
      from: UnsafeRawPointer(bitPattern: from).unsafelyUnwrapped, byteCount: count &* 8)
}

/// Moves up to `count` items out of a bin; how many.
@inline(__always)
private func popMany(
  _ bin: UnsafeMutablePointer<Bin>, _ items: UnsafeMutablePointer<UInt>, _ count: Int
) -> Int {
  let top = bin.pointee.top
  let some = min(count, Int(bitPattern: (top &- bin.pointee.low) &>> 3))
  if some == 0 { return 0 }
  let first = top &- UInt(bitPattern: some) &* 8
  bin.pointee.top = first
  keg_compiler_barrier()
  copyWords(first, items.address, some)
  return some
}

/// Moves up to `count` items into a bin; how many.
@inline(__always)
private func pushMany(
  _ bin: UnsafeMutablePointer<Bin>, _ items: UnsafeMutablePointer<UInt>, _ count: Int
) -> Int {
  let top = bin.pointee.top
  let some = min(count, Int(bitPattern: (bin.pointee.high &- top) &>> 3))
  if some == 0 { return 0 }
  copyWords(items.address, top, some)
  keg_compiler_barrier()
  bin.pointee.top = top &+ UInt(bitPattern: some) &* 8
  return some
}

@c public func keg_zone_alloc_bulk(
  _ zone: UnsafeMutableRawPointer, _ items: UnsafeMutablePointer<UInt>?, _ count: UInt,
  _ flags: Int32
) -> UInt {
  guard let items, count <= UInt(Int.max) / 8 else {
    if count != 0 { keg_set_errno(22 /* EINVAL */) }
    return 0
  }
  let wanted = Int(bitPattern: count)
  var got = 0
  if _fastPath(UInt32(bitPattern: flags &- 1) < handle(zone).pointee.plainFlags) {
    got = popMany(fastBin(handle(zone).takeOffset), items, wanted)
    if _fastPath(got == wanted) { return count }
  }
  return UInt(bitPattern: handle(zone).allocateMany(items, got, wanted, flags))
}

@c public func keg_zone_free_bulk(
  _ zone: UnsafeMutableRawPointer, _ items: UnsafeMutablePointer<UInt>?, _ count: UInt
) {
  guard let items else { return }
  let all = Int(bitPattern: count)
  // In an array it would be the next one's item.
  let null = keg_find_null(items.address, count)
  if _slowPath(null != 0) { die("NULL among items that are freed, at", at: null, zone: handle(zone).name) }
  let isPlain = handle(zone).pointee.destructor == nil
  let done = isPlain ? pushMany(fastBin(handle(zone).giveOffset), items, all) : 0
  if _slowPath(done < all) { handle(zone).freeMany(items + done, all &- done) }
}

extension UnsafeMutablePointer where Pointee == Handle {
  @inline(never)
  fileprivate func allocateMany(
    _ items: UnsafeMutablePointer<UInt>, _ first: Int, _ wanted: Int, _ flags: Int32
  ) -> Int {
    check()
    let flags = saneFlags(flags)
    var got = first
    // Without a constructor, and nothing special asked for.
    let isPlain = UInt32(bitPattern: flags &- 1) < 2 && pointee.constructor == nil
      && !pointee.zone.isLimited && !pointee.flags.contains(.ofMalloc)
      && pointee.meanFailures.load(ordering: .relaxed) == 0 && !failuresAreInjected && !isChecked
    if isPlain { _ = inSection { got &+= takeMany(items + got, wanted &- got) } }
    while got < wanted {
      guard let item = allocate(nil, flags, milliseconds: 0) else { break }
      items[got] = UInt(bitPattern: item)
      got &+= 1
    }
    return got
  }

  /// From cache, depot and slabs. In a section.
  private func takeMany(_ items: UnsafeMutablePointer<UInt>, _ wanted: Int) -> Int {
    var got = 0
    if let cache = cache() {
      while got < wanted {
        let item = cache.bin.popEither()
        if item == 0, !cache.bin.loadFull(from: pointee.zone) { break }
        if item != 0 {
          items[got] = item
          got &+= 1
        }
        got &+= popMany(cache.bin, items + got, wanted &- got)
      }
      cache.giveBack()
    }
    if got < wanted { got &+= pointee.zone.takeMany(wanted &- got, into: items + got, .noWait) }
    return got
  }

  @inline(never)
  fileprivate func freeMany(_ items: UnsafeMutablePointer<UInt>, _ count: Int) {
    check()
    var done = 0
    if pointee.destructor != nil || pointee.flags.contains(.ofMalloc) || isChecked {
      while done < count {
        free(UnsafeMutableRawPointer(bitPattern: items[done]), nil)
        done &+= 1
      }
      return
    }
    let result = inSection {
      // More than two buckets are not worth caching.
      let direct = count &- 2 &* pointee.zone.pointee.bucketEntries
      if direct > 0 || pointee.zone.hasWaiters {
        done = pointee.zone.hasWaiters ? count : direct
        pointee.zone.giveMany(items, done)
      }
      while done < count {
        if let cache = cache() {
          done &+= pushMany(cache.bin, items + done, count &- done)
          cache.giveBack()
        }
        if done < count {
          giveThroughCaches(items[done])
          done &+= 1
        }
      }
    }
    if result == .inHandler {
      die("keg_zone_free_bulk by a signal handler that interrupted the allocator, of",
        at: items[0], zone: name)
    }
  }
}

// MARK: - Prefill

@c public func keg_prefill(_ zone: UnsafeMutableRawPointer, _ n: UInt) -> Int32 {
  let handle = handle(zone)
  handle.check()
  guard handle.pointee.offset != 0, !handle.pointee.zone.isLimited, n <= UInt(BucketSize.largest)
  else { return 22 /* EINVAL */ }
  var isFilled = false
  let result = inSection { isFilled = handle.prefill(Int(bitPattern: n)) }
  return isFilled ? 0 : result == .inHandler ? 4 : 12
}

extension UnsafeMutablePointer where Pointee == Handle {
  /// Puts items into the caller's loaded bucket until it has `wanted`. In a section.
  fileprivate func prefill(_ wanted: Int) -> Bool {
    let zone = pointee.zone
    let table = ownTable()
    if table == 0 { return false }
    let bin = tableBin(table, pointee.offset)
    if bin.count >= wanted { return true }
    var bucket = bin.unload()
    if bucket == nil || bucket.unsafelyUnwrapped.capacity < wanted {
      guard let larger = zone.pointee.pools.pointee.take(entries: wanted) else {
        if let bucket { bin.install(bucket, zone) }
        return false
      }
      if let old = bucket {
        let count = Int(old.pointee.count)
        copyWords(old.low, larger.low, count)
        larger.pointee.count = old.pointee.count
        zone.pointee.pools.pointee.give(old)
      }
      bucket = larger
    }
    guard let bucket else { return false }
    // Not in the bin meanwhile: init may use the zone.
    let had = Int(bucket.pointee.count)
    let got = zone.takeMany(wanted &- had, into: bucket.slots + had, .noWait)
    bucket.pointee.count = UInt32(truncatingIfNeeded: had &+ got)
    if let other = bin.unload() {
      if other.pointee.count == 0 { zone.pointee.pools.pointee.give(other) } else { zone.adopt(other) }
    }
    if bucket.pointee.count == 0 {
      zone.pointee.pools.pointee.give(bucket)
      return wanted == 0
    }
    bin.install(bucket, zone)
    return had &+ got >= wanted
  }
}
