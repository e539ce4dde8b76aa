// Process.swift: the one allocator of the process.
//
// Everything global of this layer is in one struct. It lies in storage of the shim and
// is initialised by boot: as a Swift global it would be initialised lazily, under
// swift_once, on which a malloc in between would hang. Zones of the
// size classes are made when their class is first used: a small program uses a
// quarter of them, and memory that is not touched costs nothing.

import Base
import Keg
import Pages
import Platform
import SizeClass
import Synchronization
import Vmem
import Zone

/// The zone of a size class and its keg, side by side; the name follows them.
struct ClassZone: ~Copyable {
  var zone: Zone
  var keg: Keg
}

/// Whether boot is through. Acquires what boot released: `process`.
@inline(__always)
var isRunning: Bool { keg_is_running() }

let bootLock = Lock(rank: .boot)

/// Undefined until `isRunning`.
@inline(__always)
var process: UnsafeMutablePointer<Process> {
  keg_process_storage().pointer(to: Process.self)
}

struct Process: ~Copyable {
  /// Protects `threads`.
  let threadListLock: Lock
  /// Protects the making of zones.
  let registryLock: Lock
  var options: Options
  var pageSize: UInt
  var heap: UnsafeMutablePointer<Heap>?
  var threadCaches: UnsafeMutablePointer<Pool>?
  var classZones: UnsafeMutablePointer<Pool>?
  var bucketPools: UnsafeMutablePointer<BucketPools>?
  /// Every attached thread's cache.
  var threads: List<ThreadCache>
  /// Bit i: a thread has number i + 1.
  var threadNumbers: UInt64
  /// Zones by class, 0 until used. Written under `registryLock`; a reader that
  /// sees a zone sees it whole (x86 keeps the order of stores).
  private var zones: InlineArray<82, UInt>
  /// Bytes of items that the buckets of all threads can hold.
  let cacheBytes: Atomic<UInt>
  /// What a thread may cache in any case, bytes: less when there are many threads.
  let fewCacheBytes: Atomic<UInt>
  var ticker: Ticker
  var hasBackgroundThread: Bool
  /// Where the table at exit goes.
  var reportDescriptor: Int32
  /// The thread that forks now, by its thread pointer, and what its TLS held.
  var forkOwner: UInt
  var forkBins: UInt
  /// Whether it took the locks.
  var forkTookLocks: Bool
  /// Forks by handlers that interrupted that thread's fork.
  var forksInHandlers: UInt
  /// Where `drainIdleDepots` goes on.
  let depotHand: Atomic<UInt>
  /// What signal handlers over slow paths freed; see `deferFree`.
  let deferred: Atomic<UInt>
  var emergency: EmergencyPool
  var layerAbove: LayerAbove
  var zoneChecks: ZoneChecks
  let failures: FailureSource

  init() {
    threadListLock = Lock(rank: .threadList)
    registryLock = Lock(rank: .zoneList)
    options = Options()
    pageSize = 4096
    heap = nil
    threadCaches = nil
    threadNumbers = 0
    classZones = nil
    bucketPools = nil
    threads = List()
    zones = InlineArray(repeating: 0)
    ticker = Ticker()
    hasBackgroundThread = false
    reportDescriptor = 2
    forkOwner = 0
    forkBins = 0
    forkTookLocks = false
    forksInHandlers = 0
    cacheBytes = Atomic(0)
    fewCacheBytes = Atomic(ThreadCache.fewBytes)
    depotHand = Atomic(0)
    deferred = Atomic(0)
    emergency = EmergencyPool()
    layerAbove = LayerAbove()
    zoneChecks = ZoneChecks()
    failures = FailureSource()
  }

  /// The zone of class `index`, if it was ever used.
  @inline(__always)
  func existingZone(_ index: UInt) -> UnsafeMutablePointer<Zone>? {
    UnsafeMutablePointer(bitPattern: zones[Int(bitPattern: index)])
  }

  /// The zone of class `index`, made if need be; nil when there is no memory.
  @inline(__always)
  mutating func zone(_ index: UInt) -> UnsafeMutablePointer<Zone>? {
    existingZone(index) ?? makeZone(index)
  }

  /// What a slab of a class holds at least: making and giving back a slab costs as much as
  /// ten items do, and a class in use costs a slab (docs/performance.md).
  private func leastItems(ofSize size: UInt) -> UInt {
    if size == SizeClass.largest { return 4 }
    return size > 8192 ? 2 : size > 2048 ? min(16, SizeClass.largest / size) : 8
  }

  @inline(never)
  @_optimize(size)
  private mutating func makeZone(_ index: UInt) -> UnsafeMutablePointer<Zone>? {
    registryLock.lock()
    defer { registryLock.unlock() }
    if let zone = existingZone(index) { return zone }
    guard let heap, let bucketPools, let memory = classZones?.pointee.take(), memory != 0 else {
      return nil
    }
    let size = SizeClass.size(of: index)
    let pair = memory.pointer(to: ClassZone.self)
    let name = nameZone(size, at: memory &+ UInt(MemoryLayout<ClassZone>.stride))
    let zone = withUnsafeMutablePointer(to: &pair.pointee.zone) { $0 }
    let keg = withUnsafeMutablePointer(to: &pair.pointee.keg) { $0 }
    keg.initialize(
      to: Keg(
        name: name, itemSize: size, alignment: min(size, 16),
        bin: UInt16(truncatingIfNeeded: index &<< Bin.strideShift), heap: heap,
        hasMargin: size <= heap.pointee.mostMargined,
        leastItems: leastItems(ofSize: size)))
    keg.pointee.policy.smallSlabs = 16
    keg.pointee.policy.mostWaits = size <= Keg.mostByTurns ? 4 : 32
    zone.initialize(
      to: Zone(
        name: name, itemSize: size, keg: keg, pools: bucketPools,
        bucketScale: BucketSize.scale(forItemSize: size)))
    keg_compiler_barrier()
    zones[Int(bitPattern: index)] = zone.address
    return zone
  }

  /// Calls `body` with every zone in use, smallest items first.
  func forEachZone(_ body: (UnsafeMutablePointer<Zone>) -> Void) {
    var index: UInt = 1
    while index <= SizeClass.count {
      if let zone = existingZone(index) { body(zone) }
      index &+= 1
    }
  }
}

extension Process {
  /// Calls `body` with every keg in use, domain by domain.
  func forEachKeg(_ body: (UnsafeMutablePointer<Keg>) -> Void) {
    forEachZone { zone in
      guard let first = zone.pointee.keg else { return }
      var next = Optional(first)
      while let keg = next {
        // Before `body`, which may drop the lock under which a keg is divided.
        next = first.domain(after: keg)
        body(keg)
      }
    }
  }
}

/// Writes `malloc-<size>` to `address`, 16 bytes.
private func nameZone(_ size: UInt, at address: UInt) -> UnsafePointer<CChar> {
  let name = address.pointer(to: CChar.self)
  var used = 0
  ("malloc-" as StaticString).withUTF8Buffer {
    for byte in $0 {
      name[used] = CChar(bitPattern: byte)
      used &+= 1
    }
  }
  var power: UInt = 10000
  while power > 1, size / power == 0 { power /= 10 }
  while power > 0 {
    name[used] = CChar(truncatingIfNeeded: 48 &+ size / power % 10)
    used &+= 1
    power /= 10
  }
  name[used] = 0
  return UnsafePointer(name)
}
