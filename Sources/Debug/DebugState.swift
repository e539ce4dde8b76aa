// DebugState.swift: the state of the debug layer, and how it comes to be.
//
// It lies in storage of the shim, as the core's does, and for the same reason. Boot
// happens in the first call of the first thread; a thread attaches in its first call.
//
// Locks of this layer are leaves among themselves and are taken before any of the
// core's: nothing here runs with a lock of the core held, but for `forgetRecords`, which
// takes none unless it reports.

import Base
import DebugPlatform
import Keg
import Malloc
import Pages
import Platform
import Synchronization
import Vmem

/// Undefined until `keg_debug_is_running()`.
@inline(__always)
var debug: UnsafeMutablePointer<DebugState> { keg_debug_storage().pointer(to: DebugState.self) }

struct DebugState: ~Copyable {
  /// Protects `recordMemory`.
  let recordLock: Lock
  let quarantineLock: Lock
  /// Protects the report buffer and the table of findings.
  let reportLock: Lock
  /// Protects `threads`.
  let threadLock: Lock
  /// Held by the thread that forks.
  let forkLock: Lock
  /// Protects `guardArena`.
  let guardLock: Lock
  /// Protects `sampleKegs`.
  let sampleLock: Lock
  /// Protects `zoneItems`.
  let zoneLock: Lock
  var zoneItems: ZoneItems
  var sampleKegs: SampleKegs
  var guardArena: GuardArena
  var guardChoice: GuardChoice
  /// The page of the heap that the last look opened last.
  var openedPage: UInt = 0
  var recordMemory: RecordMemory
  var quarantine: Quarantine
  var profile: Profile
  var findings: FindingTable
  var threads: List<DebugThread>
  var threadPool: UnsafeMutablePointer<Pool>?
  /// Counts of threads that have ended.
  var counts: Counts
  var isTrashing: Bool
  /// Whether no option asks for more of a malloc than the default mode does.
  var isPlain: Bool
  /// Whether `mtbf` or `limit` is set.
  var isFailing: Bool
  /// One allocation in so many is checked.
  var sampleEvery: Int32
  /// Nanoseconds at boot.
  var start: UInt64
  /// Milliseconds since, as of some recent call of any thread.
  var now: UInt32
  /// How often the leak marks were set; part of every record.
  var epoch: UInt32
  /// In the child of a fork: when it was made, and which threads of its ancestors forked.
  var forkedAt: UInt32
  var forkers: InlineArray<8, UInt32>
  /// The process whose findings these are.
  var pid: UInt32
  /// How far the last check of this process is: `Ending`; and whose check it is, by its
  /// `keg_debug_thread`.
  let ending: Atomic<UInt32>
  var endingThread: UInt
  /// Figures of the leak check, for the summary.
  var leaks: UInt
  var leakedBytes: UInt
  /// Standard error as it was at boot: programs close theirs. And the file of reports,
  /// -1 until it is opened. Both with what `keg_debug_file` said of them then.
  var errorDescriptor: Int32
  var reportDescriptor: Int32
  var errorFile: UInt
  var reportFile: UInt
  /// The `keg_debug_thread` of the thread that forks, 0: none; the state it had before;
  /// and how many forks its handlers made meanwhile, which took no locks.
  var forkOwner: UInt
  var stateBeforeFork: Int
  var forksInHandlers: UInt
  /// A span that nobody gets, below the first that somebody gets; 0: none.
  var margin: UInt
  /// What signal handlers over our calls freed, linked through their left zones.
  let orphans: Atomic<UInt>
  /// Arrays of records whose slabs are gone, linked through their first words; the second
  /// is the number of records.
  let returnedRecords: Atomic<UInt>

  init() {
    recordLock = Lock(rank: .none)
    quarantineLock = Lock(rank: .none)
    reportLock = Lock(rank: .none)
    threadLock = Lock(rank: .none)
    forkLock = Lock(rank: .none)
    guardLock = Lock(rank: .none)
    sampleLock = Lock(rank: .none)
    zoneLock = Lock(rank: .none)
    zoneItems = ZoneItems()
    sampleKegs = SampleKegs()
    guardArena = GuardArena()
    guardChoice = GuardChoice()
    recordMemory = RecordMemory()
    quarantine = Quarantine()
    profile = Profile()
    findings = FindingTable()
    threads = List()
    threadPool = nil
    counts = Counts()
    isTrashing = true
    isPlain = false
    isFailing = false
    sampleEvery = 1
    start = 0
    now = 0
    epoch = 0
    forkedAt = 0
    forkers = InlineArray(repeating: 0)
    pid = 0
    ending = Atomic(Ending.none)
    endingThread = 0
    leaks = 0
    leakedBytes = 0
    errorDescriptor = 2
    reportDescriptor = -1
    errorFile = 0
    reportFile = 0
    forkOwner = 0
    stateBeforeFork = 0
    forksInHandlers = 0
    margin = 0
    orphans = Atomic(0)
    returnedRecords = Atomic(0)
  }
}

struct Counts {
  var allocations: UInt = 0
  var frees: UInt = 0
}

/// What a thread has of its own.
struct DebugThread: Linked, ~Copyable {
  var next: UnsafeMutablePointer<DebugThread>?
  var previous: UnsafeMutablePointer<DebugThread>?
  /// The thread's `keg_debug_thread`.
  let local: UInt
  /// gettid
  var id: UInt32
  var counts: Counts
  var batch: Batch

  init(local: UInt, id: UInt32) {
    self.local = local
    self.id = id
    next = nil
    previous = nil
    counts = Counts()
    batch = Batch()
  }
}

private let debugBootLock = Lock(rank: .none)

/// Boots the core and this layer unless that has been done. False: no memory.
private func bootDebug() -> Bool {
  if keg_debug_is_running() { return true }
  guard Core.start() else { return false }
  debugBootLock.lock()
  if keg_debug_is_running() {
    debugBootLock.unlock()
    return true
  }
  debug.initialize(to: DebugState())
  guard MemoryLayout<DebugState>.size <= Int(KEG_DEBUG_BYTES),
    let pool = Core.heap.pointee.metadata.room(for: Pool.self)
  else {
    debugBootLock.unlock()
    return false
  }
  pool.initialize(
    to: Pool(
      name: "debug threads", itemBytes: UInt(MemoryLayout<DebugThread>.stride), alignment: 64,
      metadata: Core.heap.pointee.metadata))
  debug.pointee.threadPool = pool
  debug.pointee.isTrashing = Core.option(.debugTrash) == TrashMode.on
  debug.pointee.isFailing = Core.option(.debugMeanFailures) != 0 || Core.option(.debugLimit) != 0
  // What is not sampled is the core's, failures too.
  if Core.option(.debugMeanFailures) != 0, Core.option(.debugSample) == 1 { leaveFailuresToDebug() }
  debug.pointee.sampleEvery = Int32(truncatingIfNeeded: Core.option(.debugSample))
  if debug.pointee.sampleEvery > 1 { keg_debug_set_sampling() }
  debug.pointee.start = keg_monotonic_nanoseconds()
  debug.pointee.pid = processID()
  keg_debug_register_barrier()
  debug.pointee.errorDescriptor = keg_debug_keep_stderr()
  debug.pointee.errorFile = keg_debug_file(debug.pointee.errorDescriptor)
  openReportEarly()
  debug.pointee.quarantine.configure()
  Core.heap.pointee.mostMargined = greatestShared
  Core.heap.pointee.forgetRecords = {
    forgetRecords(UInt(bitPattern: $0).pointer(to: Slab.self))
  }
  Core.heap.pointee.restoreSlot = {
    if case .item(let item) = place(of: $0) { restoreFirstWord(item) }
  }
  if let span = Core.heap.allocateSpan(Chunk.size) { debug.pointee.margin = span.pointee.start }
  bootGuard()
  installFaultHandler()
  bootZoneChecks()
  bootProfile()
  debug.pointee.isPlain =
    debug.pointee.isTrashing && !debug.pointee.isFailing && debug.pointee.sampleEvery == 1
    && debug.pointee.guardChoice.which == .none && !debug.pointee.profile.isOn
  keg_debug_set_running()
  debugBootLock.unlock()
  var hooks = keg_debug_hooks(
    fork_prepare: { prepareFork() }, fork_parent: { parentOfFork() },
    fork_child: { childOfFork() }, thread_exits: { debugThreadExits() })
  keg_debug_install_hooks(&hooks)
  layerAbove.pointee.orphaned = { forkOrphanedDebug() }
  layerAbove.pointee.stepIn = { stepIn($0) }
  layerAbove.pointee.stepOut = { leaveDebug() }
  bootStacks()
  return true
}

func processID() -> UInt32 {
  UInt32(truncatingIfNeeded: keg_syscall6(Int(KEG_SYS_getpid), 0, 0, 0, 0, 0, 0))
}

func threadID() -> UInt32 {
  UInt32(truncatingIfNeeded: keg_syscall6(Int(KEG_SYS_gettid), 0, 0, 0, 0, 0, 0))
}

/// Gives the calling thread its part of the state. False: no memory.
func attachDebugThread() -> Bool {
  guard bootDebug(), let pool = debug.pointee.threadPool else { return false }
  let thread = keg_debug_thread()
  thread.pointee.id = threadID()
  let part = pool.take()
  if part == 0 { return true }
  let pointer = part.pointer(to: DebugThread.self)
  pointer.initialize(to: DebugThread(local: thread.address, id: thread.pointee.id))
  debug.pointee.threadLock.lock()
  debug.pointee.threads.append(pointer)
  debug.pointee.threadLock.unlock()
  thread.pointee.quarantine = part
  keg_debug_watch_thread_exit()
  return true
}

/// The calling thread ends: what it holds back goes to the common quarantine.
private func debugThreadExits() {
  let thread = keg_debug_thread()
  let address = thread.pointee.quarantine
  guard address != 0, case .straight = enterDebug() else { return }
  thread.pointee.quarantine = 0
  let part = address.pointer(to: DebugThread.self)
  handOver(part)
  leaveDebug()
  let state = takeNested(debug.pointee.threadLock)
  forget(part)
  debug.pointee.threadLock.unlock()
  debug.pointee.threadPool?.give(address)
  releaseStackRecord()
  keg_compiler_barrier()
  thread.pointee.state = state
}

/// Before the core gives slabs back outside of malloc and free: others see this thread
/// inside then. False: it is already, or will not be waited for.
private func stepIn(_ attaches: Bool) -> Bool {
  let state = keg_debug_thread().pointee.state
  if state != KEG_DEBUG_OUTSIDE, state != KEG_DEBUG_UNATTACHED || !attaches { return false }
  guard case .straight = enterDebug() else { return false }
  return true
}
