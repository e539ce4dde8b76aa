// Stack.swift: who called? The capture of stacks for every allocation and free.
//
//   captureStack() ─▶ frames of ours cut off ─▶ seen from here before? (StackShortcut) ─▶ StackID
//                                                  │ no
//                                                  ▼
//                                               record (StackRecord): only what is new
//                                                  │ is walked, by rows (StackWalk, StackRow)
//                                                  ▼
//                                          hash (StackHash) ─▶ depot (StackDepot) ─▶ StackID
//
// Rows come from the compilers' tables, found through the loader without its lock
// (StackCFI, StackRules). libunwind, which reads the same tables, is the judge: at
// start of whether we understand the machine at all, later of a sample of stacks
// (StackCheck). Option `unwind` chooses another way.
//
// A capture takes no lock, allocates nothing from the program's heap, and uses about
// two KiB of stack. It must be called outside all our locks. A signal handler may
// interrupt it and capture as well.

import Base
import DebugPlatform
import Keg
import Malloc
import Pages
import Platform
import Synchronization

/// Everything global of the capture. Lies in zeroed storage of the shim.
struct Stacks: ~Copyable {
  var mode: UInt = UnwindMode.auto
  var depth = 24
  /// StackHash.power(depth)
  var power: UInt = 0
  var textStart: UInt = 0
  var textSize: UInt = 0
  /// One of `LibunwindState`.
  var libunwind: UInt = 0
  /// One thread at a time uses libunwind.
  let libunwindLock = Lock(rank: .none)
  /// Protects `knownSymbols`; only ever tried.
  let nameLock = Lock(rank: .none)
  var knownSymbols: UnsafeMutablePointer<KnownSymbol>? = nil
  /// Stacks compared with a walk that took nothing from the record or the cache, and
  /// those that differed.
  let checks = Atomic<UInt>(0)
  let failures = Atomic<UInt>(0)
  /// The same with libunwind.
  let libunwindChecks = Atomic<UInt>(0)
  let libunwindFailures = Atomic<UInt>(0)
  var rows: RowCache
  var depot: StackDepot
  var records: Pool

  init(rows: consuming RowCache, depot: consuming StackDepot, records: consuming Pool) {
    self.rows = rows
    self.depot = depot
    self.records = records
  }
}

/// Undefined until `stacksAreUp`.
@inline(__always)
var stacks: UnsafeMutablePointer<Stacks> { keg_stacks_storage().pointer(to: Stacks.self) }

@inline(__always)
var stacksAreUp: Bool { keg_stacks_are_up() }

/// A TLS word that says: this thread is ending and gets no record any more.
private var recordGone: UInt { 1 }

/// Frames of one stack on the stack.
typealias FrameBuffer = InlineArray<64, UInt>

// MARK: - Start, fork, thread exit

/// Makes caches and depot. Called once, when the debug layer has booted; without
/// memory for them stacks are empty.
func bootStacks() {
  let metadata = Core.heap.pointee.metadata
  guard MemoryLayout<Stacks>.size <= Int(KEG_STACKS_BYTES),
    let entries = metadata.room(for: RowCache.Entry.self, count: RowCache.count),
    let chunks = metadata.room(for: Atomic<UInt>.self, count: Int(StackDepot.chunkLimit))
  else { return }
  let followsFramePointers =
    Core.option(.unwind) == UnwindMode.framePointers || !keg_can_find_modules()
  stacks.initialize(
    to: Stacks(
      rows: RowCache(entries: entries, followsFramePointers: followsFramePointers),
      depot: StackDepot(chunks: chunks, source: PageSource.kernel()),
      records: Pool(
        name: "stack records", itemBytes: StackRecord.byteCount, alignment: 64, metadata: metadata)))
  stacks.pointee.mode = followsFramePointers ? UnwindMode.framePointers : Core.option(.unwind)
  stacks.pointee.depth = Int(Core.option(.stackDepth))
  stacks.pointee.power = StackHash.power(stacks.pointee.depth)
  stacks.pointee.textStart = keg_text_start()
  stacks.pointee.textSize = keg_text_end() &- keg_text_start()
  stacks.pointee.knownSymbols = metadata.room(for: KnownSymbol.self, count: knownSymbolCount)
  if Core.option(.unwind) != UnwindMode.off { keg_set_stacks_up() }
}

// fork: another thread that is in libunwind comes out of it first. A handler that
// forks over a capture of its own thread does not wait for itself.

func prepareForkOfStacks() {
  if stacksAreUp, !isCapturing { stacks.pointee.libunwindLock.lock() }
}

func parentOfForkOfStacks() {
  if stacksAreUp, !isCapturing { stacks.pointee.libunwindLock.unlock() }
}

/// Whether the calling thread is in a capture, below the handler that asks.
private var isCapturing: Bool {
  let record = keg_get_stack_record()
  return record > recordGone && record.pointer(to: StackRecord.self).pointee.isBusy
}

func childOfForkOfStacks() {
  guard stacksAreUp else { return }
  stacks.pointee.libunwindLock.reset()
  stacks.pointee.nameLock.reset()
  stacks.pointee.depot.forgetOthers()
}

/// The calling thread ends.
func releaseStackRecord() {
  let record = keg_get_stack_record()
  keg_set_stack_record(recordGone)
  if record > recordGone { withMetadata { recordPool.give(record) } }
}

private var recordPool: UnsafeMutablePointer<Pool> {
  withUnsafeMutablePointer(to: &stacks.pointee.records) { $0 }
}

/// Runs `body` so that a signal handler takes no lock meanwhile (Malloc/SlowPath.swift).
private func withMetadata(_ body: () -> Void) {
  let bins = keg_get_thread_bins()
  keg_set_thread_bins(keg_bins_busy())
  keg_compiler_barrier()
  body()
  keg_compiler_barrier()
  keg_set_thread_bins(bins)
}

/// A module was unloaded: other code may come to its addresses.
@c public func keg_stacks_module_left() { if stacksAreUp { stacks.pointee.rows.invalidate() } }

// MARK: - Capture

@inline(__always)
func isOurs(_ pc: UInt) -> Bool {
  pc &- stacks.pointee.textStart < stacks.pointee.textSize
}

/// A capture that has walked and not yet looked up its id.
struct PendingStack {
  var id: StackID = 0
  /// 0: `id` is known.
  var hash: UInt64 = 0
}

/// The stack of the caller, without the frames of this library.
/// - Returns: 0 when stacks are off or there is no memory.
func captureStack() -> StackID { finishStack(startStack()) }

/// Walks the caller's stack; the depot's table is loaded meanwhile. What the thread does
/// until `finishStack`, which must follow, is captured without its record.
@inline(never)
func startStack() -> PendingStack {
  let address = keg_get_stack_record()
  if _slowPath(address <= recordGone) { return startFirstStack() }
  let start = callerOfLibrary(keg_frame_pointer())
  let record = address.pointer(to: StackRecord.self)
  if _slowPath(record.pointee.isBusy) { return PendingStack(id: capturePlainly(start)) }
  record.pointee.isBusy = true
  keg_compiler_barrier()
  let captures = record.pointee.captures &+ 1
  record.pointee.captures = captures
  let id = record.findShortcut(start, key: stacks.pointee.rows.key(start.pc))
  if _fastPath(id != 0), _fastPath(captures & 8191 != 0) {
    keg_compiler_barrier()
    record.pointee.isBusy = false
    return PendingStack(id: id)
  }
  return startWalk(start, record, id)
}

/// The same without a record.
@inline(never)
private func startFirstStack() -> PendingStack {
  guard stacksAreUp else { return PendingStack() }
  let start = callerOfLibrary(keg_frame_pointer())
  guard let record = makeRecord() else { return PendingStack(id: capturePlainly(start)) }
  record.pointee.isBusy = true
  return startWalk(start, record, 0)
}

/// The same with the record, which is busy.
/// - Parameter shortcut: what a shortcut says; 0: there is none.
@inline(never)
private func startWalk(
  _ start: StackCursor, _ record: UnsafeMutablePointer<StackRecord>, _ shortcut: StackID
) -> PendingStack {
  var pending = PendingStack()
  if stacks.pointee.mode == UnwindMode.libunwind {
    pending.id = captureCompletely()
  } else {
    pending = walk(start, record, shortcut)
  }
  if pending.hash == 0 {
    keg_compiler_barrier()
    record.pointee.isBusy = false
  }
  return pending
}

@inline(__always)
func finishStack(_ pending: PendingStack) -> StackID {
  pending.hash == 0 ? pending.id : identify(pending.hash)
}

/// Ends a capture of which nobody wants to know the id.
func abandonStack(_ pending: PendingStack) {
  if pending.hash != 0, let record = record() { record.pointee.isBusy = false }
}

/// The first frame that is not ours. All our functions keep frame pointers.
@inline(__always)
private func callerOfLibrary(_ framePointer: UInt) -> StackCursor {
  var bp = framePointer
  var address = (bp &+ 8).word
  while isOurs(address) {
    bp = bp.word
    address = (bp &+ 8).word
  }
  return StackCursor(pc: address &- 1, sp: bp &+ 16, bp: bp.word)
}

/// The calling thread's record, made when it is first asked for; nil when a handler
/// asks over the allocator, or there is no memory.
@inline(__always)
private func record() -> UnsafeMutablePointer<StackRecord>? {
  let address = keg_get_stack_record()
  return address > recordGone ? address.pointer(to: StackRecord.self) : makeRecord()
}

@inline(never)
private func makeRecord() -> UnsafeMutablePointer<StackRecord>? {
  if keg_get_stack_record() == recordGone || keg_get_thread_bins() == keg_bins_busy() {
    return nil
  }
  var address: UInt = 0
  withMetadata { address = recordPool.take() }
  guard address != 0 else { return nil }
  let record = address.pointer(to: StackRecord.self)
  record.initialize(to: StackRecord())
  keg_set_stack_record(address)
  return record
}

@inline(__always)
private func walk(
  _ start: StackCursor, _ record: UnsafeMutablePointer<StackRecord>, _ shortcut: StackID
) -> PendingStack {
  let depth = stacks.pointee.depth
  let rows = withUnsafeMutablePointer(to: &stacks.pointee.rows) { $0 }
  guard record.update(from: start, depth: depth, rows: rows) else {
    return PendingStack(id: capturePlainly(start))
  }
  if record.pointee.captures & 8191 == 0 { check(start, record) }
  let hash = record.hash(depth: depth, power: stacks.pointee.power)
  if hash == record.pointee.lastHash { return PendingStack(id: record.pointee.lastID) }
  stacks.pointee.depot.prefetch(hash)
  record.pointee.start = start
  record.pointee.key = rows.pointee.key(start.pc)
  if shortcut != 0 { return PendingStack(id: compare(shortcut, hash, record)) }
  return PendingStack(hash: hash)
}

/// The id of the stack that the record holds, which has this hash.
@inline(never)
private func identify(_ hash: UInt64) -> StackID {
  let record = keg_get_stack_record().pointer(to: StackRecord.self)
  let recent = record.recent(hash)
  var id = recent.pointee.hash == hash ? recent.pointee.id : stacks.pointee.depot.find(hash)
  if id == 0 {
    id = record.store(hash, depth: stacks.pointee.depth, in: stacks.pointee.depot)
  } else {
    record.own(id, depth: stacks.pointee.depth)
  }
  recent.pointee = RecentStack(hash: hash, id: id)
  record.pointee.lastHash = hash
  record.pointee.lastID = id
  if id != 0 {
    let rows = withUnsafeMutablePointer(to: &stacks.pointee.rows) { $0 }
    record.addShortcut(
      record.pointee.start, key: record.pointee.key, id, depth: stacks.pointee.depth, rows: rows)
  }
  keg_compiler_barrier()
  record.pointee.isBusy = false
  return id
}

/// The same for a sampled stack that has a shortcut.
@inline(never)
private func compare(
  _ shortcut: StackID, _ hash: UInt64, _ record: UnsafeMutablePointer<StackRecord>
) -> StackID {
  let id = identify(hash)
  if id != shortcut { refuteShortcut(shortcut, id, record.pointee.start, record) }
  return id
}

@inline(__always)
func withFrames<Result>(
  _ frames: inout FrameBuffer, _ body: (UnsafeMutablePointer<UInt>) -> Result
) -> Result {
  var span = frames.mutableSpan
  // Never nil: 64 words.
  return span.withUnsafeMutableBufferPointer { body($0.baseAddress.unsafelyUnwrapped) }
}

// MARK: - Reading

/// Calls `body` with the addresses of a stack, innermost first. Each lies inside the
/// call under way, or is the faulting instruction: look it up as it is.
func forEachFrame(_ id: StackID, _ body: (UInt) -> Void) {
  if stacksAreUp { stacks.pointee.depot.forEachFrame(id, limit: stacks.pointee.depth, body) }
}
