// Rig.swift: a heap over fake pages, and kegs and zones over it.

import Base
import Glibc
import Keg
import Pages
import Platform
import Vmem
import Zone

package typealias HeapPointer = UnsafeMutablePointer<Heap>
package typealias KegPointer = UnsafeMutablePointer<Keg>
package typealias ZonePointer = UnsafeMutablePointer<Zone>

package final class Rig: @unchecked Sendable {
  package let pages = FakePages()
  package let hooks = HookLog()
  package private(set) var heap: HeapPointer!
  private var bucketPools: UnsafeMutablePointer<BucketPools>?

  /// Runs `body` with a rig of its own for this thread, and takes it down. The thread has no
  /// number meanwhile: another test may have attached it to the process's allocator.
  /// - Parameter wanted: bytes of address space for the heap; 0: no heap.
  package static func use(
    wanted: UInt = 1 << 28, _ body: (Rig) throws -> Void
  ) rethrows {
    let rig = Rig()
    let outer = pthread_getspecific(key)
    pthread_setspecific(key, Unmanaged.passUnretained(rig).toOpaque())
    let number = UInt32(keg_thread_number())
    keg_set_thread_number(0)
    defer {
      keg_set_thread_number(number)
      pthread_setspecific(key, outer)
      rig.pages.releaseAll()
    }
    if wanted > 0 {
      rig.heap = Heap.create(wanted: wanted, pageSize: 4096, source: FakePages.source())
    }
    try body(rig)
    withExtendedLifetime(rig) {}
  }

  private static let key: pthread_key_t = {
    var key = pthread_key_t()
    pthread_key_create(&key, nil)
    return key
  }()

  /// The calling thread's rig.
  package static var current: Rig {
    guard let raw = pthread_getspecific(key) else { die("test: no rig on this thread") }
    return Unmanaged<Rig>.fromOpaque(raw).takeUnretainedValue()
  }

  /// Runs `body` on `count` threads of this rig and waits for them.
  package func inParallel(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) {
    Parallel.run(count) { index in
      pthread_setspecific(Rig.key, Unmanaged.passUnretained(self).toOpaque())
      body(index)
    }
  }

  // MARK: Kegs and zones; they live in the heap's metadata

  package func keg(
    _ name: StaticString = "test", size: UInt, alignment: UInt = 16, bin: UInt16 = 32,
    itemInit: InitFunction? = nil, itemFini: FiniFunction? = nil, flags: KegFlags = .none
  ) -> KegPointer {
    let keg = heap.pointee.metadata.room(for: Keg.self)!
    keg.initialize(
      to: Keg(
        name: cString(name), itemSize: size, alignment: alignment, bin: bin, heap: heap,
        itemInit: itemInit, itemFini: itemFini, flags: flags))
    return keg
  }

  /// - Parameter isBounded: whether its depot has the usual bound; else it has none.
  package func zone(
    _ name: StaticString = "test", size: UInt, keg: KegPointer?,
    hooks: ZoneHooks = ZoneHooks(), flags: ZoneFlags = .none, isBounded: Bool = false
  ) -> ZonePointer {
    let zone = heap.pointee.metadata.room(for: Zone.self)!
    zone.initialize(
      to: Zone(
        name: cString(name), itemSize: size, keg: keg, pools: pools, hooks: hooks, flags: flags))
    if !isBounded { zone.pointee.mostItems = .max }
    return zone
  }

  package func zone(size: UInt, flags: ZoneFlags = .none) -> ZonePointer {
    zone(size: size, keg: keg(size: size), flags: flags)
  }

  package var pools: UnsafeMutablePointer<BucketPools> {
    if let bucketPools { return bucketPools }
    let memory = heap.pointee.metadata.room(for: Pool.self, count: BucketSize.count)!
    let pools = heap.pointee.metadata.room(for: BucketPools.self)!
    pools.initialize(to: BucketPools(memory: memory, metadata: heap.pointee.metadata))
    bucketPools = pools
    return pools
  }

  /// From now on there is no metadata and no page to be had.
  package func exhaustMetadata() {
    pages.allowCommits(0)
    pages.allowReserves(0)
    let metadata = heap.pointee.metadata
    metadata.pointee.lock.withLock {
      while metadata.pointee.cut(16, alignment: 16) != 0 {}
    }
  }
}

/// The bytes of a literal, which end with 0.
package func cString(_ string: StaticString) -> UnsafePointer<CChar> {
  UnsafeRawPointer(string.utf8Start).assumingMemoryBound(to: CChar.self)
}

// What the checks of tests can name: their macros copy what they look at, and
// kegs, zones and arenas cannot be copied.

extension UnsafeMutablePointer where Pointee == Heap {
  /// Bytes in use, and free and dirty, in both arenas.
  package var inUseBytes: UInt {
    pointee.arena.sizes.inUse + pointee.outsideArena.sizes.inUse - recentBytes
  }
  package var bytesToPurge: UInt {
    pointee.arena.sizes.dirty + pointee.outsideArena.sizes.dirty + recentBytes
  }
  package var outsideCount: Int { pointee.outside.count }
  package func checkInvariants() {
    pointee.arena.checkInvariants()
    pointee.outsideArena.checkInvariants()
  }
  /// Slab headers in use in all pools.
  package var headersInUse: UInt {
    (0..<Heap.slabHeaderPoolCount).reduce(0) { $0 + (pointee.slabHeaders + $1).pointee.usedCount }
  }
  package var tagsInUse: UInt { pointee.tags.pointee.usedCount }
}

extension UnsafeMutablePointer where Pointee == Keg {
  package var slabCount: UInt { pointee.slabCount }
  package var freeCount: UInt { pointee.freeCount }
  package var usedCount: UInt { pointee.usedCount }
  package var itemCount: UInt { pointee.itemCount }
  package var slabsMade: UInt { pointee.slabsMade }
  package var slabsReturned: UInt { pointee.slabsReturned }
  package var layout: SlabLayout { pointee.layout }

  /// Takes `count` items in as many calls as that needs; fewer when memory ends. In
  /// the order in which a bucket would pop them.
  package func takeAll(_ count: Int) -> [UInt] {
    var items = [UInt](repeating: 0, count: count)
    var got = 0
    items.withUnsafeMutableBufferPointer { buffer in
      while got < count {
        let more = take(count - got, into: buffer.baseAddress! + got)
        if more == 0 { break }
        buffer[got..<(got + more)].reverse()
        got += more
      }
    }
    return Array(items.prefix(got))
  }

  package func giveAll(_ items: [UInt]) {
    var items = items
    items.withUnsafeMutableBufferPointer { give($0.baseAddress!, $0.count) }
  }
}

extension UnsafeMutablePointer where Pointee == Zone {
  package var statistics: ZoneStatistics { pointee.statistics }
  package var depotItems: Int { pointee.depotItems }
  package var workingSet: WorkingSet { pointee.workingSet }
  package var bucketEntries: Int { pointee.bucketEntries }
  package var startEntries: Int { pointee.startEntries }
}

extension Rig {
  /// Buckets in use in all pools.
  package var bucketsInUse: UInt {
    (0..<BucketSize.count).reduce(0) { $0 + pools.pointee.pool(at: $1).pointee.usedCount }
  }

  /// From now on there is no bucket to be had, and no metadata.
  package func exhaustBuckets() {
    exhaustMetadata()
    for index in 0..<BucketSize.count {
      while pools.pointee.pool(at: index).take() != 0 {}
    }
  }

  /// A bin without buckets, as a thread's array has it at first.
  package func bin() -> UnsafeMutablePointer<Bin> {
    let bin = heap.pointee.metadata.room(for: Bin.self)!
    bin.initialize(to: Bin())
    return bin
  }
}

extension UnsafeMutablePointer where Pointee == Bin {
  /// malloc as the fast and slow paths do it. 0: no memory.
  package func allocate(_ zone: ZonePointer) -> UInt {
    if count == 0, !swapForItems(), !refill(from: zone) { return zone.allocateItem() }
    pointee.top -= 8
    return pointee.top.word
  }

  /// free as the fast and slow paths do it.
  package func free(_ item: UInt, _ zone: ZonePointer) {
    if pointee.top == pointee.high, !swapForRoom(), !makeRoom(for: zone) {
      zone.freeItem(item)
      return
    }
    pointee.top.word = item
    pointee.top += 8
  }

  package var hasPrevious: Bool { pointee.previous != 0 }
  /// Slots of the loaded bucket.
  package var loadedCapacity: Int { Int((pointee.high - pointee.low) / 8) }
}
