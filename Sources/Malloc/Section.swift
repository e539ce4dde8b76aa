// Section.swift: how the layers above Malloc use the locks below it.
//
// A call of the zone or arena API works under locks of the core, and so must be
// inside the allocator as malloc's own slow path is: a signal handler that comes in
// between must find TLS busy and take none of them. But a constructor or an import
// function belongs to the program and may itself allocate; for it the thread steps
// outside again.
//
//   keg_… ──▶ inSection { … locks … outsideSection { the program's function } … locks … }
//             enter                 leave                            enter        leave
//
// The entry of the section lies on its stack; TLS says where. A function of the
// program must return: one that longjmps or throws out of it leaves the thread as
// it is outside, which is safe, but the API call is half done.
//
// The layer above also owns locks that fork must take, caches that a reclaim must
// drain and periodic work: `LayerAbove` is how it is told.

import Base
import Keg
import Platform
import Synchronization
import Zone

/// How a section came out.
package enum SectionResult: UInt8 {
  /// The body has run.
  case done
  /// A signal handler over the allocator itself: nothing can be waited for.
  case inHandler
  /// The allocator has no address space or memory to start with.
  case noMemory
}

/// What the entry of a section keeps on its stack. TLS points at it.
struct SectionFrame {
  var entry = Entry.emergency
  var outer: UInt = 0
}

/// Runs `body` inside the allocator.
///
/// Inlined, with the way in and out as calls: there are forty of these.
@inline(__always)
package func inSection(_ body: () -> Void) -> SectionResult {
  var frame = SectionFrame()
  return withUnsafeMutablePointer(to: &frame) {
    let result = beginSection($0)
    if case .done = result {
      body()
      endSection($0)
    }
    return result
  }
}

@inline(never)
func beginSection(_ frame: UnsafeMutablePointer<SectionFrame>) -> SectionResult {
  let entry = enter()
  if case .emergency = entry { return .inHandler }
  guard isRunning else {
    leave(entry)
    return .noMemory
  }
  frame.pointee = SectionFrame(entry: entry, outer: keg_get_section())
  keg_set_section(frame.address)
  return .done
}

@inline(never)
func endSection(_ frame: UnsafeMutablePointer<SectionFrame>) {
  keg_set_section(frame.pointee.outer)
  leave(frame.pointee.entry)
}

/// Runs `body`, a function of the program, outside. Called in a section with no
/// lock held.
@inline(never)
package func outsideSection(_ body: () -> Void) {
  let section = stepOutside()
  body()
  stepInside(section)
}

/// Leaves the section; 0 when there is none. The layers below do so too, over
/// keg_step_outside, for the functions of the program that they call.
func stepOutside() -> UInt {
  let section = keg_get_section()
  if section == 0 { return 0 }
  leave(section.pointer(to: SectionFrame.self).pointee.entry)
  keg_set_section(0)
  return section
}

func stepInside(_ section: UInt) {
  if section == 0 { return }
  keg_set_section(section)
  section.pointer(to: SectionFrame.self).pointee.entry = enter()
}

/// The calling thread's word for its table of zones' bins, see ThreadTable.swift of
/// ZoneAPI; 0 for a thread that has no cache. Only in a section.
package var sectionTableWord: UInt {
  let section = keg_get_section()
  if section == 0 { return 0 }
  guard case .bins(let cache) = section.pointer(to: SectionFrame.self).pointee.entry else { return 0 }
  return cache.tableWord
}

/// The heap of the process; only in a section.
package var sharedHeap: UnsafeMutablePointer<Heap> {
  process.pointee.heap.unsafelyUnwrapped  // a section runs after boot
}

/// What fork does to a lock.
package enum LockAction: UInt8 {
  case take
  case drop
  /// In the child: its holder does not exist there.
  case reset

  @inline(never)
  package func apply(to lock: borrowing Lock) {
    switch self {
    case .take: lock.lock()
    case .drop: lock.unlock()
    case .reset: lock.reset()
    }
  }
}

/// Which locks of the layer above: fork takes all locks in the order of their ranks.
package enum LockStage: UInt8 {
  case zones
  case kegs
  case arenas
}

/// The functions of the layer above; nil, and `state` 0, until it is first used.
package struct LayerAbove: ~Copyable {
  /// Where the layer keeps its own state, in metadata; stored when that is complete.
  package let state = Atomic<UInt>(0)
  package var forEachLock: (@convention(c) (_ stage: UInt8, _ action: UInt8) -> Void)?
  /// Called in a child of _Fork or a raw clone that found a lock held, after the core's
  /// locks were reset.
  package var orphaned: (@convention(c) () -> Void)?
  /// Called once a tick by one thread, inside the allocator, without locks but the
  /// ticker's and, often, the caller's thread cache.
  package var tick: (@convention(c) (_ now: UInt64) -> Void)?
  /// Gives back what the layer caches; `level` as of keg_reclaim. Called outside the
  /// allocator: it may call the program's functions, in sections of its own.
  package var reclaim: (@convention(c) (_ level: Int32) -> Void)?

  /// Hands what a thread's table of bins holds to the zones: called by its owner under
  /// the lock of its cache, or by who holds that lock. Calls no function of the program.
  package var flushTable: (@convention(c) (_ table: UInt) -> Void)?
  /// The same, and the table itself goes: its thread has ended.
  package var releaseTable: (@convention(c) (_ table: UInt) -> Void)?
  /// The same in a forked child, for a thread that does not exist there.
  package var adoptTable: (@convention(c) (_ table: UInt) -> Void)?
  /// Keeps the zone with this number, which is below `zoneTop`, from being destroyed.
  /// Returns a pin for `unpinZone`, or 0: there is none. Writes its zone's address and
  /// its items in arrays to `figures`.
  package var pinZone:
    (@convention(c) (_ number: UInt, _ figures: UnsafeMutablePointer<UInt>) -> UInt)?
  package var unpinZone: (@convention(c) (_ pin: UInt) -> Void)?
  package var zoneTop: (@convention(c) () -> UInt)?
  /// Called, outside the allocator, when malloc finds no memory. True: try again.
  package var memoryIsShort: (@convention(c) () -> Bool)?
  /// Called before memory goes back outside of malloc and free, by a thread without
  /// locks: by malloc_trim, and, not to `attach` it to the layer, when the thread ends.
  /// True: `stepOut` is called afterwards.
  package var stepIn: (@convention(c) (_ attach: Bool) -> Bool)?
  package var stepOut: (@convention(c) () -> Void)?

  package init() {}

  func forEachLock(_ stage: LockStage, _ action: LockAction) {
    forEachLock?(stage.rawValue, action.rawValue)
  }
}

/// Used under the registry's lock of the layer above, or where nothing else runs.
package var layerAbove: UnsafeMutablePointer<LayerAbove> {
  withUnsafeMutablePointer(to: &process.pointee.layerAbove) { $0 }
}

/// Protects the making of the layer's state, and its lists.
package var registryLock: UnsafePointer<Lock> {
  withUnsafePointer(to: process.pointee.registryLock) { $0 }
}

package var sharedBucketPools: UnsafeMutablePointer<BucketPools>? { process.pointee.bucketPools }

/// Calls `body` with every thread's table of zones' bins, the thread's cache locked.
///
/// Called outside sections, with no lock held, and not by handlers.
package func forEachThreadTable(_ body: (UInt) -> Void) {
  let bins = keg_get_thread_bins()
  setThreadBins(keg_bins_busy())
  process.pointee.threadListLock.lock()
  process.pointee.threads.forEach { cache in
    cache.pointee.lock.lock()
    body(cache.tableWord.word)
    cache.pointee.lock.unlock()
  }
  process.pointee.threadListLock.unlock()
  setThreadBins(bins)
}

/// The zone of malloc's class `index`, made if need be. In a section.
package func mallocZone(_ index: UInt) -> UnsafeMutablePointer<Zone>? {
  process.pointee.zone(index)
}

/// Items of malloc's class `index` in threads' arrays, a moment ago. Outside sections.
package func mallocItemsInArrays(_ index: UInt) -> UInt { itemsInArrays(index) }

/// Asks every thread for what its bins hold, at its next slow path.
package func askForDrains() { requestDrains(.everything) }

/// malloc's and free's bodies for the layers above.
package func allocateBytes(_ size: UInt) -> UInt { UInt(bitPattern: keg_malloc(size)) }
package func freeBytes(_ address: UInt) { keg_free(UnsafeMutableRawPointer(bitPattern: address)) }
