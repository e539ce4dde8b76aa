// Limits.swift: keg_zone_set_max and what goes with it; reserves, reclaim, figures.

import Base
import Keg
import Malloc
import Platform
import Synchronization
import Zone

@c public func keg_zone_set_max(_ zone: UnsafeMutableRawPointer, _ items: UInt) -> UInt {
  let handle = handle(zone)
  handle.check()
  let most = Int(min(items, UInt(Int.max)))
  _ = inSection {
    if handle.pointee.flags.contains(.ofMalloc) {
      handle.pointee.zone.setLimit(most)
      return
    }
    if most != 0 { handle.makeArrays() }
    handle.sizeBuckets(limit: most)
    handle.pointee.zone.setLimit(most)
    handle.publishOffsets()
    if most != 0 {
      // What threads have cached comes back as they pass by.
      askForDrains()
      handle.drainCaches()
    } else {
      handle.flushArrays()
    }
    handle.noteWhetherOver()
    handle.pointee.zone.wakeWaiters()
  }
  return UInt(bitPattern: most)
}

extension UnsafeMutablePointer where Pointee == Handle {
  /// Notes whether more items are out than the limit allows: then none is cached, so
  /// that nobody gets an item until enough are freed. In a section.
  func noteWhetherOver() {
    let zone = pointee.zone
    zone.pointee.lock.lock()
    let isOver = zone.isLimited && zone.itemsOut > zone.limitItems
    pointee.isOver.store(isOver, ordering: .relaxed)
    zone.pointee.lock.unlock()
  }
}

@c public func keg_zone_get_max(_ zone: UnsafeMutableRawPointer) -> UInt {
  handle(zone).check()
  return UInt(bitPattern: handle(zone).pointee.zone.limitItems)
}

@c public func keg_zone_set_maxcache(_ zone: UnsafeMutableRawPointer, _ items: UInt) {
  let handle = handle(zone)
  handle.check()
  _ = inSection {
    handle.pointee.zone.pointee.lock.lock()
    handle.pointee.zone.pointee.mostItems = Int(min(items, UInt(Int.max)))
    handle.pointee.zone.pointee.lock.unlock()
    handle.pointee.zone.reclaim(.drain)
  }
}

@c public func keg_zone_get_cur(_ zone: UnsafeMutableRawPointer) -> UInt {
  handle(zone).check()
  return handle(zone).figures().used
}

@c public func keg_zone_exhausted(_ zone: UnsafeMutableRawPointer) -> Int32 {
  handle(zone).check()
  return handle(zone).pointee.zone.hasWaiters ? 1 : 0
}

@c public func keg_zone_set_warning(
  _ zone: UnsafeMutableRawPointer, _ text: UnsafePointer<CChar>?
) {
  handle(zone).check()
  handle(zone).pointee.warning = text
}

@c public func keg_zone_set_maxaction(
  _ zone: UnsafeMutableRawPointer,
  _ action: (@convention(c) (UnsafeMutableRawPointer?, UnsafeMutableRawPointer?) -> Void)?,
  _ argument: UnsafeMutableRawPointer?
) {
  handle(zone).check()
  handle(zone).pointee.maxArgument = argument
  handle(zone).pointee.maxAction = action
}

@c public func keg_zone_set_drain_hook(
  _ zone: UnsafeMutableRawPointer?, _ hook: (@convention(c) (UnsafeMutableRawPointer?) -> Void)?,
  _ argument: UnsafeMutableRawPointer?
) -> Int32 {
  if let zone {
    handle(zone).check()
    handle(zone).pointee.drainArgument = argument
    handle(zone).pointee.drainHook = hook
    return 0
  }
  var error: Int32 = 12
  _ = inSection {
    guard let zones = makeRegistry()?.zones else { return }
    zones.pointee.drainArgument = argument
    zones.pointee.drainHook = hook
    error = 0
  }
  return error
}

// MARK: - Reserves

/// Runs `body` with the zone's keg; EINVAL when it has none of its own.
private func withKeg(
  _ zone: UnsafeMutableRawPointer, _ body: (UnsafeMutablePointer<Keg>) -> Bool
) -> Int32 {
  let handle = handle(zone)
  handle.check()
  guard let keg = handle.keg else { return 22 /* EINVAL */ }
  var isDone = false
  let result = inSection { isDone = body(keg) }
  return isDone ? 0 : result == .inHandler ? 4 : 12
}

@c public func keg_zone_set_watermarks(
  _ zone: UnsafeMutableRawPointer, _ low: UInt, _ high: UInt
) -> Int32 {
  if low > 1 &<< 48 || high > 1 &<< 48 || high != 0 && high < low { return 22 }
  return withKeg(zone) {
    $0.setWatermarks(low: low, high: high)
    return true
  }
}

@c public func keg_zone_reserve(_ zone: UnsafeMutableRawPointer, _ n: UInt) -> Int32 {
  if n > 1 &<< 48 { return 22 }
  return withKeg(zone) {
    $0.setReserve(n)
    return true
  }
}

@c public func keg_zone_prealloc(_ zone: UnsafeMutableRawPointer, _ n: UInt) -> Int32 {
  if n > 1 &<< 48 { return 22 }
  return withKeg(zone) { $0.preallocate(n, populate: true) }
}

@c public func keg_zone_reserve_va(_ zone: UnsafeMutableRawPointer, _ n: UInt) -> Int32 {
  handle(zone).check()
  if n == 0 || n > 1 &<< 48 || handle(zone).pointee.flags.contains(.ofMalloc) { return 22 }
  var most: UInt = 0
  let error = withKeg(zone) { keg in
    keg.keepSlabs()
    guard keg.preallocate(n, populate: false) else { return false }
    most = keg.pointee.itemCount
    return true
  }
  if error == 0 { _ = keg_zone_set_max(zone, most) }
  return error
}

@c public func keg_zone_reclaim(_ zone: UnsafeMutableRawPointer, _ level: Int32) -> Int32 {
  handle(zone).check()
  if level == 3 { _ = inSection { askForDrains() } }
  return handle(zone).reclaim(level) ? 0 : 22
}

@c public func keg_refcnt(
  _ zone: UnsafeMutableRawPointer, _ item: UnsafeMutableRawPointer?
) -> UnsafeMutablePointer<UInt32>? {
  handle(zone).check()
  guard let counter = handle(zone).keg?.counter(of: UInt(bitPattern: item)) else {
    keg_set_errno(22)
    return nil
  }
  return counter
}

// MARK: - Figures

/// struct keg_zone_stats of kegmalloc.h.
struct ZoneFigures {
  var size: UInt = 0
  var stride: UInt = 0
  var slabs: UInt = 0
  var slabItems: UInt = 0
  var slabBytes: UInt = 0
  var used: UInt = 0
  var inArrays: UInt = 0
  var inDepot: UInt = 0
  var freeItems: UInt = 0
  var mostItems: UInt = 0
  var imported: UInt = 0
  var released: UInt = 0
  var exchanged: UInt = 0
  var failures: UInt = 0
  var sleeps: UInt = 0
  var sleepers: UInt = 0
  var bucketSize: UInt = 0
}

extension UnsafeMutablePointer where Pointee == Handle {
  /// Figures of one moment. Outside sections.
  func figures() -> ZoneFigures {
    var all = ZoneFigures()
    let zone = pointee.zone
    all.inArrays = pointee.flags.contains(.ofMalloc)
      ? mallocItemsInArrays(UInt(zone.pointee.keg?.pointee.bin ?? 0) &>> Bin.strideShift)
      : itemsInArrays()
    var taken: UInt = 0
    _ = inSection {
      zone.pointee.lock.lock()
      all.inDepot = UInt(bitPattern: zone.pointee.depotItems)
      all.imported = zone.pointee.statistics.imported
      all.released = zone.pointee.statistics.released
      all.exchanged = zone.pointee.statistics.taken
      all.sleeps = zone.pointee.limit.sleeps
      all.bucketSize = UInt(bitPattern: zone.pointee.bucketEntries)
      all.failures = pointee.flags.contains(.ofMalloc) ? zone.pointee.statistics.failures : 0
      zone.pointee.lock.unlock()
      taken = all.imported &- all.released
      if let keg {
        let totals = keg.totals()
        all.stride = keg.pointee.layout.stride
        all.slabs = totals.slabs
        all.slabItems = keg.pointee.layout.itemCount
        all.slabBytes = totals.slabs &* keg.pointee.layout.byteCount
        all.freeItems = totals.freeItems
      } else if let backed = pointee.backed {
        backed.pointee.lock.lock()
        all.stride = backed.pointee.stride
        all.slabs = UInt(bitPattern: backed.pointee.slabCount)
        all.slabItems = all.slabs == 0 ? 0 : backed.pointee.itemCount / all.slabs
        all.slabBytes = all.slabs &* backed.pointee.slabBytes
        all.freeItems = backed.pointee.freeCount
        backed.pointee.lock.unlock()
      }
    }
    all.size = zone.pointee.itemSize
    all.sleepers = UInt(bitPattern: zone.waiterCount)
    all.mostItems = UInt(bitPattern: zone.limitItems)
    all.failures &+= UInt(pointee.failures.load(ordering: .relaxed))
    // Arrays are a moment old: never a negative count (source 001).
    all.inArrays = min(all.inArrays, taken)
    all.inDepot = min(all.inDepot, taken &- all.inArrays)
    all.used = taken &- all.inArrays &- all.inDepot
    return all
  }
}

@c public func keg_zone_stats(
  _ zone: UnsafeMutableRawPointer, _ stats: UnsafeMutableRawPointer?, _ size: UInt
) -> Int32 {
  handle(zone).check()
  guard let stats, size >= 8, size <= UInt(MemoryLayout<ZoneFigures>.size) else { return 22 }
  var all = handle(zone).figures()
  withUnsafeBytes(of: &all) {
    stats.copyMemory(from: $0.baseAddress.unsafelyUnwrapped, byteCount: Int(bitPattern: size))
  }
  return 0
}
