// ZoneTable.swift: all zones of the program by number, and what Malloc asks of them.
//
//   slots  | 0 | handle 1 | handle 2 | 0 | 1 | …      0: free; number 0 is never used
//                                          └ being destroyed: nobody's, and not free yet
//
// The number of a zone also says where its bin lies in every thread's table: until these
// bins are empty no other zone may get it.
//
// Lock: Malloc's registry lock for writing. Readers pin what they find: a pin is taken
// first, then the slot is read again; destroy clears the slot first, then waits for the
// pins. Both need sequential consistency, else each might miss the other's store.

import Base
import Keg
import Malloc
import Pages
import Platform
import SizeClass
import Synchronization
import Zone

struct ZoneTable: ~Copyable {
  /// Zones that can exist at once, number 0 included: a thread's table is 64 KiB.
  static var slotCount: UInt { UInt(KEG_ZONE_TABLE_BYTES) &>> Bin.strideShift }

  static var countedPools: UInt { 10 }
  fileprivate static var reserved: UInt { 1 }

  fileprivate var slots: UnsafeMutablePointer<Atomic<UInt>>?
  /// One above the largest number ever used.
  fileprivate let top = Atomic<UInt>(1)
  /// Handles; threads' tables; CPUs' arrays; slab headers with counters, one pool for
  /// each power of two from 128 bytes on.
  fileprivate var handles: UnsafeMutablePointer<Pool>?
  var tables: UnsafeMutablePointer<Pool>?
  var arrays: UnsafeMutablePointer<Pool>?
  fileprivate var counted: UnsafeMutablePointer<Pool>?
  /// Handles of destroyed zones, linked by `primary`; registry lock.
  fileprivate var goneHandles: HandlePointer?
  var pools: UnsafeMutablePointer<BucketPools>?
  /// CPUs that arrays are made for.
  var cpuCount: UInt = 1
  /// Handles of malloc's zones by class, 0 until asked for; registry lock.
  fileprivate var ofMalloc: UnsafeMutablePointer<UInt>?
  var drainHook: DrainHook?
  /// How many calls with wrong flags were reported; relaxed: a count. Here, because a
  /// global would be made on first use, under a lock that a malloc may spin on.
  let flagWarnings = Atomic<UInt32>(0)
  var drainArgument: UnsafeMutableRawPointer?
}

typealias ZoneTablePointer = UnsafeMutablePointer<ZoneTable>

/// The process's table; only once a zone exists.
var zoneTable: ZoneTablePointer {
  registry.unsafelyUnwrapped.zones  // whoever has a zone has a registry
}

extension UnsafeMutablePointer where Pointee == ZoneTable {
  /// Makes the pools. Called once, under the registry lock.
  func open(_ metadata: UnsafeMutablePointer<Metadata>) -> Bool {
    guard
      let slots = metadata.room(for: Atomic<UInt>.self, count: Int(ZoneTable.slotCount)),
      let pools = metadata.room(for: Pool.self, count: 3 + Int(ZoneTable.countedPools)),
      let ofMalloc = metadata.room(for: UInt.self, count: Int(SizeClass.count) + 1)
    else { return false }
    pointee.cpuCount = min(UInt(keg_cpu_count()), 64)
    pools.initialize(
      to: Pool(name: "zones", itemBytes: Handle.byteCount, alignment: 64, metadata: metadata))
    (pools + 1).initialize(
      to: Pool(
        name: "zone arrays", itemBytes: UInt(KEG_ZONE_TABLE_BYTES), alignment: 64,
        metadata: metadata))
    (pools + 2).initialize(
      to: Pool(
        name: "CPU arrays", itemBytes: ArraySlot.byteCount &* pointee.cpuCount, alignment: 64,
        metadata: metadata))
    pointee.slots = slots
    var index: UInt = 0
    while index < ZoneTable.countedPools {
      (pools + 3 + Int(bitPattern: index)).initialize(
        to: Pool(name: "counted slabs", itemBytes: 128 &<< index, metadata: metadata))
      index &+= 1
    }
    pointee.counted = pools + 3
    pointee.handles = pools
    pointee.tables = pools + 1
    pointee.arrays = pools + 2
    pointee.ofMalloc = ofMalloc
    pointee.pools = sharedBucketPools
    keg_publish_empty_zone_table()
    return true
  }

  var top: UInt { pointee.top.load(ordering: .relaxed) }

  private func slot(_ number: UInt) -> UnsafeMutablePointer<Atomic<UInt>> {
    pointee.slots.unsafelyUnwrapped + Int(bitPattern: number)  // made with the table
  }

  /// The zone with this number; nil: none. Called where it cannot be destroyed.
  func handle(_ number: UInt) -> HandlePointer? {
    let word = slot(number).pointee.load(ordering: .acquiring)
    return word == ZoneTable.reserved ? nil : HandlePointer(bitPattern: word)
  }

  /// The lowest free number, or 0. Called with the registry lock held.
  func freeNumber() -> UInt {
    var number: UInt = 1
    while number < ZoneTable.slotCount {
      if slot(number).pointee.load(ordering: .relaxed) == 0 { return number }
      number &+= 1
    }
    return 0
  }

  /// Enters a complete handle. Called with the registry lock held.
  func enter(_ handle: HandlePointer, _ number: UInt) {
    slot(number).pointee.store(handle.address, ordering: .releasing)
    if number >= top { pointee.top.store(number &+ 1, ordering: .releasing) }
  }

  /// Takes a handle off the table; its number stays taken. Called with the registry lock held.
  func remove(_ number: UInt) {
    slot(number).pointee.store(ZoneTable.reserved, ordering: .sequentiallyConsistent)
  }

  /// Frees a number whose bins are empty. Called with the registry lock held.
  func release(_ number: UInt) { slot(number).pointee.store(0, ordering: .relaxed) }

  /// Pins the zone with this number; nil: none.
  func pin(_ number: UInt) -> HandlePointer? {
    guard let found = handle(number) else { return nil }
    found.pins.pointee.wrappingAdd(1, ordering: .sequentiallyConsistent)
    if slot(number).pointee.load(ordering: .sequentiallyConsistent) == found.address {
      return found
    }
    found.unpin()
    return nil
  }

  /// Calls `body` with every zone, pinned.
  func forEach(_ body: (HandlePointer) -> Void) {
    var number: UInt = 1
    while number < top {
      if let found = pin(number) {
        body(found)
        found.unpin()
      }
      number &+= 1
    }
  }

  /// The pool for slab headers of at least `bytes`.
  func countedPool(_ bytes: UInt) -> UnsafeMutablePointer<Pool> {
    let index = max(bytes, 128).log2Ceiling &- 7
    return pointee.counted.unsafelyUnwrapped + Int(bitPattern: index)  // made with the table
  }

  /// Memory for a handle, or 0. In a section.
  func takeHandle() -> UInt {
    registryLock.pointee.lock()
    defer { registryLock.pointee.unlock() }
    if let gone = pointee.goneHandles {
      pointee.goneHandles = gone.pointee.primary
      return gone.address
    }
    return pointee.handles?.take() ?? 0
  }

  /// Keeps the memory of a handle that is gone, which still says so to whoever uses it.
  func keep(_ handle: HandlePointer) {
    registryLock.pointee.lock()
    handle.pointee.primary = pointee.goneHandles
    pointee.goneHandles = handle
    registryLock.pointee.unlock()
  }

  /// Where the handle of malloc's class `index` is noted. Registry lock.
  func ofMalloc(_ index: UInt) -> UnsafeMutablePointer<UInt> {
    pointee.ofMalloc.unsafelyUnwrapped + Int(bitPattern: index)  // made with the table
  }

  /// Fork: all locks of zones, or of their kegs; see `LayerAbove.forEachLock`.
  func forEachLock(_ stage: LockStage, _ action: LockAction) {
    var number: UInt = 1
    while number < top {
      if let handle = handle(number) { handle.apply(stage, action) }
      number &+= 1
    }
  }
}

extension UnsafeMutablePointer where Pointee == Handle {
  func unpin() { pins.pointee.wrappingSubtract(1, ordering: .sequentiallyConsistent) }

  fileprivate func apply(_ stage: LockStage, _ action: LockAction) {
    switch stage {
    case .zones:
      forEachArray { action.apply(to: $0.pointee.lock) }
      action.apply(to: pointee.zone.pointee.lock)
      if action == .reset {
        pointee.zone.forgetWaiters()
        pins.pointee.store(0, ordering: .relaxed)
      }
    case .kegs:
      if pointee.flags.contains(.secondary) { return }
      if let backed = pointee.backed {
        action.apply(to: backed.pointee.lock)
      } else if let keg {
        action.apply(to: keg.pointee.lock)
      }
    case .arenas:
      break
    }
  }
}

// MARK: - What Malloc asks

/// Fills in the functions that Malloc calls. Called once, under the registry lock.
func connectZones() {
  let above = layerAbove
  above.pointee.flushTable = { flushTable($0) }
  above.pointee.releaseTable = { releaseTable($0) }
  above.pointee.adoptTable = { adoptTable($0) }
  above.pointee.zoneTop = { registry?.zones.top ?? 0 }
  above.pointee.pinZone = { number, figures in
    guard let handle = registry?.zones.pin(number) else { return 0 }
    figures[0] = handle.pointee.zone.address
    figures[1] = handle.itemsInArrays()
    return handle.address
  }
  above.pointee.unpinZone = { $0.pointer(to: Handle.self).unpin() }
  above.pointee.memoryIsShort = { runProcessDrainHook() }
}

/// LayerAbove.tick: the working sets, and the depots of zones without functions of
/// the program. Called by the background thread too, which may not call those.
func tickZones() {
  registry?.zones.forEach { handle in
    if handle.hasFunctions {
      handle.pointee.zone.tickWithoutTrim()
      handle.pointee.wantsTrim.store(true, ordering: .relaxed)
    } else {
      handle.pointee.zone.tick()
    }
  }
}

/// LayerAbove.reclaim: what the zones cache; 3: the caller's bins too, the CPUs' arrays,
/// and those of other threads at their next slow path.
func reclaimZones(_ level: Int32) {
  registry?.zones.forEach { _ = $0.reclaim(level) }
}
