// Create.swift: keg_zone_create and its kin.
//
// A zone is assembled from what its attributes ask for:
//
//   keg            the default: slabs of the heap
//   backed keg     back end, buffer, NOTOUCH                the zone imports from it
//   primary's keg  secondary zone: zinit and zfini are the zone's own
//   import         cache zone: no keg at all
//
// Lock: the registry's, for the name, the number and the table.

import Base
import Keg
import Malloc
import Pages
import Platform
import Synchronization
import Vmem
import Zone

/// struct keg_zone_attr of kegmalloc.h.
struct ZoneAttributes {
  var structSize = UInt(MemoryLayout<ZoneAttributes>.size)
  var constructor: Constructor?
  var destructor: Destructor?
  var itemInit: InitFunction?
  var itemFini: FiniFunction?
  var alignment: UInt = 0
  var flags: UInt64 = 0
  var mostItems: UInt = 0
  var cacheCapacity: UInt = 0
  var backEnd = BackEndFunctions()
  var buffer: UnsafeMutableRawPointer?
  var bufferBytes: UInt = 0
  var slabBytes: UInt = 0
  var primary: UnsafeMutableRawPointer?
  var importItems: ItemImport?
  var releaseItems: ItemRelease?
  var importArgument: UnsafeMutableRawPointer?
}

/// struct keg_backend of kegmalloc.h.
struct BackEndFunctions {
  var allocate: (@convention(c) (UnsafeMutableRawPointer?, UInt, Int32) -> UnsafeMutableRawPointer?)?
  var free: (@convention(c) (UnsafeMutableRawPointer?, UnsafeMutableRawPointer?, UInt) -> Void)?
  var argument: UnsafeMutableRawPointer?
}

@c public func keg_zone_create(
  _ name: UnsafePointer<CChar>?, _ size: UInt, _ constructor: UnsafeMutableRawPointer?,
  _ destructor: UnsafeMutableRawPointer?, _ itemInit: UnsafeMutableRawPointer?,
  _ itemFini: UnsafeMutableRawPointer?, _ alignment: UInt, _ flags: UInt64
) -> UnsafeMutableRawPointer? {
  var attributes = ZoneAttributes()
  attributes.setFunctions(constructor, destructor, itemInit, itemFini)
  attributes.alignment = alignment
  attributes.flags = flags
  return create(name, size, attributes)
}

@c public func keg_zone_create_attr(
  _ name: UnsafePointer<CChar>?, _ size: UInt, _ attributes: UnsafeRawPointer?
) -> UnsafeMutableRawPointer? {
  var own = ZoneAttributes()
  guard let attributes else { return create(name, size, own) }
  // Programs of an earlier version have a shorter structure; what is beyond is default.
  let given = attributes.load(as: UInt.self)
  guard given >= 8, given <= UInt(MemoryLayout<ZoneAttributes>.size) else { return failed(22) }
  withUnsafeMutableBytes(of: &own) {
    $0.baseAddress.unsafelyUnwrapped  // of a struct that is not empty
      .copyMemory(from: attributes, byteCount: Int(bitPattern: given))
  }
  return create(name, size, own)
}

@c public func keg_zone_create_secondary(
  _ name: UnsafePointer<CChar>?, _ constructor: UnsafeMutableRawPointer?,
  _ destructor: UnsafeMutableRawPointer?, _ itemInit: UnsafeMutableRawPointer?,
  _ itemFini: UnsafeMutableRawPointer?, _ primary: UnsafeMutableRawPointer?
) -> UnsafeMutableRawPointer? {
  guard let primary else { return failed(22) }
  var attributes = ZoneAttributes()
  attributes.setFunctions(constructor, destructor, itemInit, itemFini)
  attributes.primary = primary
  return create(name, handle(primary).pointee.zone.pointee.itemSize, attributes)
}

@c public func keg_zone_create_cache(
  _ name: UnsafePointer<CChar>?, _ size: UInt, _ constructor: UnsafeMutableRawPointer?,
  _ destructor: UnsafeMutableRawPointer?, _ itemInit: UnsafeMutableRawPointer?,
  _ itemFini: UnsafeMutableRawPointer?, _ importItems: UnsafeMutableRawPointer?,
  _ releaseItems: UnsafeMutableRawPointer?, _ argument: UnsafeMutableRawPointer?, _ flags: UInt64
) -> UnsafeMutableRawPointer? {
  guard importItems != nil, releaseItems != nil else { return failed(22) }
  var attributes = ZoneAttributes()
  attributes.setFunctions(constructor, destructor, itemInit, itemFini)
  attributes.flags = flags
  attributes.importItems = function(importItems)
  attributes.releaseItems = function(releaseItems)
  attributes.importArgument = argument
  return create(name, size, attributes)
}

/// A C function by its address; nil for NULL.
private func function<F>(_ address: UnsafeMutableRawPointer?) -> F? {
  var address = address
  return withUnsafeBytes(of: &address) { $0.load(as: Optional<F>.self) }
}

extension ZoneAttributes {
  fileprivate mutating func setFunctions(
    _ constructor: UnsafeMutableRawPointer?, _ destructor: UnsafeMutableRawPointer?,
    _ itemInit: UnsafeMutableRawPointer?, _ itemFini: UnsafeMutableRawPointer?
  ) {
    self.constructor = function(constructor)
    self.destructor = function(destructor)
    self.itemInit = function(itemInit)
    self.itemFini = function(itemFini)
  }

  var handleFlags: HandleFlags {
    var all = HandleFlags(rawValue: flags)
    if all.contains(.counted) { all = all.union(.noFree) }
    if primary != nil { all = all.union(.secondary) }
    if importItems != nil { all = all.union(.cache) }
    return all
  }

  /// Whether functions of the program may run when items enter or leave the keg.
  func hasFunctions(_ keg: UnsafeMutablePointer<Keg>?) -> Bool {
    if importItems != nil || usesBackEnd || itemInit != nil || itemFini != nil { return true }
    guard let keg else { return true }
    return keg.pointee.itemInit != nil || keg.pointee.itemFini != nil
  }

  var usesBackEnd: Bool { backEnd.allocate != nil || buffer != nil }

  /// Whether these attributes make sense together for items of `size` bytes.
  func isValid(_ size: UInt) -> Bool {
    let flags = HandleFlags(rawValue: self.flags)
    if self.flags & ~HandleFlags.known.rawValue != 0 || size == 0 { return false }
    if alignment != 0, !alignment.isPowerOfTwo || alignment > SlabLayout.mostAlignment { return false }
    if flags.contains(.noTouch), flags.contains(.zeroInit) { return false }
    if flags.contains(.noBucket), flags.contains(.maxBucket) { return false }
    if flags.contains(.allFini), !flags.contains(.noFree), !flags.contains(.counted) { return false }
    if cacheCapacity > UInt(BucketSize.largest) || mostItems > UInt(Int.max) { return false }
    if primary != nil { return importItems == nil && !usesBackEnd && self.flags == 0 }
    if importItems != nil || releaseItems != nil {
      let onlyKegs = HandleFlags.counted.rawValue | HandleFlags.noDump.rawValue
        | HandleFlags.noFree.rawValue | HandleFlags.zeroInit.rawValue
      return importItems != nil && releaseItems != nil && !usesBackEnd && self.flags & onlyKegs == 0
    }
    if usesBackEnd {
      if backEnd.allocate != nil, buffer != nil || backEnd.free == nil { return false }
      if buffer != nil, bufferBytes / 2 < size / 2 { return false }
      if flags.contains(.counted) || flags.contains(.noDump) { return false }
      return size <= 1 &<< 40 && slabBytes <= 1 &<< 40
    }
    if flags.contains(.noTouch) { return false }
    return size <= SlabLayout.mostChunks &* Chunk.size
      && size.roundedUp(to: max(alignment, 1)) <= SlabLayout.mostChunks &* Chunk.size
  }
}

func failed(_ error: Int32) -> UnsafeMutableRawPointer? {
  keg_set_errno(error)
  return nil
}

private func create(
  _ name: UnsafePointer<CChar>?, _ size: UInt, _ attributes: ZoneAttributes
) -> UnsafeMutableRawPointer? {
  guard let name, attributes.isValid(size) else { return failed(22 /* EINVAL */) }
  if let primary = attributes.primary {
    handle(primary).check()
    let flags = handle(primary).pointee.flags
    if handle(primary).keg == nil || flags.contains(.secondary) || flags.contains(.ofMalloc) {
      return failed(22)
    }
  }
  var made: HandlePointer? = nil
  var error: Int32 = 12
  let result = inSection {
    guard let registry = makeRegistry() else { return }
    let zones = registry.zones
    let memory = zones.takeHandle()
    if memory == 0 { return }
    guard let fresh = assemble(memory, size, attributes, zones) else { return }
    registryLock.pointee.lock()
    let number = zones.freeNumber()
    if number == 0 {
      registryLock.pointee.unlock()
      zones.keep(fresh)
      error = 28 /* ENOSPC */
      return
    }
    writeName(name, memory, zones)
    fresh.pointee.number = number
    fresh.pointee.state = .live
    if fresh.pointee.entries > 0 { fresh.pointee.offset = number &<< Bin.strideShift }
    if let primary = fresh.pointee.primary { primary.pointee.secondaryCount &+= 1 }
    zones.enter(fresh, number)
    registryLock.pointee.unlock()
    made = fresh
  }
  guard let made else { return failed(result == .inHandler ? 4 : error) }
  if attributes.mostItems != 0 {
    _ = keg_zone_set_max(UnsafeMutableRawPointer(made), attributes.mostItems)
  }
  made.publishOffsets()
  return UnsafeMutableRawPointer(made)
}

/// Builds handle, zone and keg in `memory`. In a section, without the registry lock.
private func assemble(
  _ memory: UInt, _ size: UInt, _ attributes: ZoneAttributes, _ zones: ZoneTablePointer
) -> HandlePointer? {
  guard let pools = zones.pointee.pools else { return nil }  // made at boot
  let flags = attributes.handleFlags
  let name = UnsafePointer(Handle.name(at: memory))
  let alignment = attributes.alignment == 0 ? (size < 16 ? 8 : 16) : attributes.alignment
  var hooks = ZoneHooks()
  var zoneFlags = ZoneFlags.none
  var keg: UnsafeMutablePointer<Keg>? = nil
  var backed: UnsafeMutablePointer<BackedKeg>? = nil
  if let primary = attributes.primary {
    keg = handle(primary).keg
    zoneFlags = .secondary
    hooks.itemInit = attributes.itemInit
    hooks.itemFini = attributes.itemFini
  } else if attributes.importItems != nil {
    zoneFlags = .cache
    hooks.itemInit = attributes.itemInit
    hooks.itemFini = attributes.itemFini
    hooks.importItems = attributes.importItems
    hooks.releaseItems = attributes.releaseItems
    hooks.argument = attributes.importArgument
  } else if attributes.usesBackEnd {
    let place = Handle.backedKeg(at: memory)
    makeBackedKeg(place, name, size, alignment, attributes)
    hooks.importItems = { keg, items, count, flags in
      Int32(
        truncatingIfNeeded: UInt(bitPattern: keg).pointer(to: BackedKeg.self)
          .take(Int(count), into: items, flags))
    }
    hooks.releaseItems = { keg, items, count in
      UInt(bitPattern: keg).pointer(to: BackedKeg.self).give(items, Int(count))
    }
    hooks.argument = UnsafeMutableRawPointer(place)
    backed = place
  } else {
    let place = Handle.keg(at: memory)
    makeKeg(place, name, size, alignment, attributes, zones)
    keg = place
  }
  let zone = Handle.zone(at: memory)
  zone.initialize(
    to: Zone(
      name: name, itemSize: size, keg: keg, pools: pools, hooks: hooks,
      flags: flags.contains(.noBucket) ? zoneFlags.union(.noBucket) : zoneFlags,
      bucketScale: BucketSize.scale(forItemSize: size)))
  let made = memory.pointer(to: Handle.self)
  made.initialize(
    to: Handle(
      zone: zone, constructor: attributes.constructor, destructor: attributes.destructor))
  made.pointee.flags = zonesAreChecked ? flags.union(.checked) : flags
  if attributes.hasFunctions(keg) { made.pointee.flags = made.pointee.flags.union(.callsOut) }
  made.pointee.backed = backed
  made.pointee.primary = attributes.primary.map { handle($0) }
  made.pointee.entries = bucketEntries(zone, flags, attributes)
  zone.setBucketEntries(made.pointee.entries, most: made.mostEntries, depotItems: .max)
  return made
}

/// What buckets hold: as asked for (S01), else as malloc's of that size, but UMA's largest
/// at most and sixteen items at least, or four of more than 16 MiB together: who makes a
/// zone for large ones uses more than one.
private func bucketEntries(
  _ zone: UnsafeMutablePointer<Zone>, _ flags: HandleFlags, _ attributes: ZoneAttributes
) -> Int {
  if flags.contains(.noBucket) { return 0 }
  if flags.contains(.maxBucket) { return BucketSize.largest }
  if attributes.cacheCapacity != 0 { return Int(bitPattern: attributes.cacheCapacity) }
  let most = Int(bitPattern: (1 &<< 24) / max(zone.pointee.itemSize, 1))
  return max(min(zone.pointee.startEntries, BucketSize.largest), max(min(16, most), 4))
}

extension UnsafeMutablePointer where Pointee == Handle {
  /// What buckets may grow to under contention (U09): a MiB, or what they start with.
  var mostEntries: Int {
    let entries = pointee.entries
    if entries == 0 { return 0 }
    return max(entries, min((1 &<< 20) / max(pointee.itemSize, 1), BucketSize.largest))
  }
}

/// Items that a slab holds at least: making one costs as much as ten items.
private var leastItems: UInt { 4 }

private func makeKeg(
  _ place: UnsafeMutablePointer<Keg>, _ name: UnsafePointer<CChar>, _ size: UInt,
  _ alignment: UInt, _ attributes: ZoneAttributes, _ zones: ZoneTablePointer
) {
  let flags = attributes.handleFlags
  var kegFlags = KegFlags.none
  if flags.contains(.noFree) { kegFlags = kegFlags.union(.noFree) }
  if flags.contains(.zeroInit), attributes.itemInit == nil { kegFlags = kegFlags.union(.zeroed) }
  if flags.contains(.noDump) { kegFlags = kegFlags.union(.noDump) }
  var headers: UnsafeMutablePointer<Pool>? = nil
  if flags.contains(.counted) {
    kegFlags = kegFlags.union(.counted)
    headers = zones.countedPool(
      Keg.countedHeaderBytes(itemSize: size, alignment: alignment, leastItems: leastItems))
  }
  place.initialize(
    to: Keg(
      name: name, itemSize: size, alignment: alignment, bin: 0, heap: sharedHeap,
      itemInit: attributes.itemInit, itemFini: attributes.itemFini, flags: kegFlags,
      headers: headers, leastItems: leastItems))
}

private func makeBackedKeg(
  _ place: UnsafeMutablePointer<BackedKeg>, _ name: UnsafePointer<CChar>, _ size: UInt,
  _ alignment: UInt, _ attributes: ZoneAttributes
) {
  let flags = attributes.handleFlags
  var backEnd = BackEnd()
  backEnd.allocate = attributes.backEnd.allocate
  backEnd.free = attributes.backEnd.free
  backEnd.argument = attributes.backEnd.argument
  backEnd.buffer = UInt(bitPattern: attributes.buffer)
  let stride = size.roundedUp(to: alignment)
  let slabBytes = attributes.buffer != nil
    ? attributes.bufferBytes
    : attributes.slabBytes != 0 ? max(attributes.slabBytes, stride) : max(stride &* 8, 1 &<< 16)
  // NOTOUCH items may be any numbers; alignment then is the program's own affair.
  let ownAlignment = flags.contains(.noTouch) && attributes.alignment == 0 ? 1 : alignment
  place.initialize(
    to: BackedKeg(
      name: name, itemSize: size, alignment: ownAlignment, slabBytes: slabBytes,
      backEnd: backEnd, heap: sharedHeap, itemInit: attributes.itemInit,
      itemFini: attributes.itemFini, keepsSlabs: flags.contains(.noFree)))
}
