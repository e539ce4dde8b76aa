// DebugFork.swift: fork(2) with other threads inside the debug layer.
//
// The child's copy of a page may be newer than its copy of another: if a thread were
// changing an item meanwhile, record and bytes would disagree. So who forks raises a
// flag, makes every processor see it (membarrier(2): the threads themselves need no
// fence then), and waits until no other thread is inside.
//
// pthread_atfork's handlers of this layer run outside those of the core: its locks
// are taken first and dropped last.

import Base
import DebugPlatform
import Keg
import Malloc
import Platform
import Synchronization

func prepareFork() {
  let thread = keg_debug_thread()
  // A handler forks over a call of ours, or over another fork: no lock can be waited for.
  if thread.pointee.state >= KEG_DEBUG_INSIDE {
    if debug.pointee.forkOwner == thread.address { debug.pointee.forksInHandlers &+= 1 }
    return
  }
  keg_debug_fork_faults(Int32(KEG_FORK_PREPARE))
  // From here to the end of fork handlers are served as over a call of ours.
  let state = takeNested(debug.pointee.forkLock)
  debug.pointee.forkOwner = thread.address
  debug.pointee.stateBeforeFork = state
  debug.pointee.threadLock.lock()
  keg_debug_set_forking(true)
  keg_debug_barrier()
  let limit = patienceEnd()
  waitForOthers(until: limit)
  // A tick that began before the flag was seen may report, and holds a lock of the core.
  if Core.holdTicks(until: limit) { Core.allowTicks() }
  prepareForkOfStacks()
  debug.pointee.quarantineLock.lock()
  debug.pointee.reportLock.lock()
  debug.pointee.guardLock.lock()
  forEachSampleLock { $0.lock() }
  debug.pointee.zoneLock.lock()
  debug.pointee.recordLock.lock()
}

/// Takes a lock that is waited for outside, where nobody waits for this thread, and held
/// nested, so that a handler over its holder takes no lock.
/// - Returns: the caller's state, to be restored when the lock has been dropped.
func takeNested(_ lock: borrowing Lock) -> Int {
  let thread = keg_debug_thread()
  let state = thread.pointee.state
  while true {
    thread.pointee.state = KEG_DEBUG_NESTED
    keg_compiler_barrier()
    if lock.tryLock() { return state }
    keg_compiler_barrier()
    thread.pointee.state = state
    keg_debug_yield()
  }
}

/// When to go on, whatever other threads do. They are not waited for for ever: one may
/// hang in a write to a full pipe, or have been interrupted by a handler that never returns.
private func patienceEnd() -> UInt64 { keg_monotonic_nanoseconds() &+ 200_000_000 }

/// Takes threads off the list that have ended unnoticed: pthread calls no destructor of a
/// key that is set in the last round of them. Their thread-local storage may be unmapped.
private func forgetEndedThreads() {
  let own = keg_debug_thread().address
  let process = Int(processID())
  var part = debug.pointee.threads.head
  while let here = part {
    part = here.pointee.next
    if here.pointee.local != own,
      keg_syscall6(234 /* tgkill */, process, Int(here.pointee.id), 0, 0, 0, 0) == -3 /* ESRCH */
    {
      forget(here)
    }
  }
}

/// Takes a thread off the list; its counts stay. Called with the list locked.
func forget(_ part: UnsafeMutablePointer<DebugThread>) {
  debug.pointee.threads.remove(part)
  debug.pointee.counts.allocations &+= part.pointee.counts.allocations
  debug.pointee.counts.frees &+= part.pointee.counts.frees
}

/// Waits until no other thread is in a call of ours.
/// - Returns: whether that came true before `limit`.
@discardableResult
private func waitForOthers(until limit: UInt64) -> Bool {
  forgetEndedThreads()
  var areOutside = true
  let own = keg_debug_thread().address
  debug.pointee.threads.forEach { part in
    let local = part.pointee.local.pointer(to: keg_debug_thread.self)
    if part.pointee.local == own { return }
    while keg_debug_state_of(local) >= KEG_DEBUG_INSIDE, keg_monotonic_nanoseconds() < limit {
      keg_debug_yield()
    }
    if keg_debug_state_of(local) >= KEG_DEBUG_INSIDE { areOutside = false }
  }
  return areOutside
}

/// Runs `body` while no other thread is in a call of ours, nor the background thread in a
/// tick: items stay where they are. The caller holds no lock.
/// - Returns: false when one did not come out; then `body` did not run.
@discardableResult
func withOthersOutside(_ body: () -> Void) -> Bool {
  debug.pointee.forkLock.lock()
  debug.pointee.threadLock.lock()
  keg_debug_set_forking(true)
  keg_debug_barrier()
  let limit = patienceEnd()
  let areOutside = waitForOthers(until: limit)
  debug.pointee.threadLock.unlock()
  let isStill = areOutside && Core.holdTicks(until: limit)
  if isStill {
    body()
    Core.allowTicks()
  }
  keg_debug_set_forking(false)
  debug.pointee.forkLock.unlock()
  return isStill
}

func parentOfFork() {
  let thread = keg_debug_thread()
  if debug.pointee.forkOwner != thread.address { return }
  if debug.pointee.forksInHandlers > 0 {
    debug.pointee.forksInHandlers &-= 1
    return
  }
  let state = debug.pointee.stateBeforeFork
  debug.pointee.forkOwner = 0
  keg_debug_set_forking(false)
  debug.pointee.recordLock.unlock()
  debug.pointee.zoneLock.unlock()
  debug.pointee.guardLock.unlock()
  forEachSampleLock { $0.unlock() }
  debug.pointee.reportLock.unlock()
  debug.pointee.quarantineLock.unlock()
  parentOfForkOfStacks()
  debug.pointee.threadLock.unlock()
  debug.pointee.forkLock.unlock()
  keg_compiler_barrier()
  thread.pointee.state = state
  keg_debug_fork_faults(Int32(KEG_FORK_PARENT))
}

/// Whoever held a lock is not in this process.
private func resetLocks() {
  debug.pointee.forksInHandlers = 0
  debug.pointee.forkOwner = 0
  debug.pointee.recordLock.reset()
  debug.pointee.zoneLock.reset()
  debug.pointee.guardLock.reset()
  forEachSampleLock { $0.reset() }
  debug.pointee.reportLock.reset()
  debug.pointee.quarantineLock.reset()
  debug.pointee.threadLock.reset()
  debug.pointee.forkLock.reset()
  keg_debug_set_forking(false)
  childOfForkOfStacks()
}

/// A child that came to be by _Fork or a raw clone finds a lock of this layer or of the
/// core held: as there, it shall not hang.
func forkOrphanedDebug() {
  resetLocks()
  keg_debug_fork_faults(Int32(KEG_FORK_CHILD))
}

/// The child reports under its own name, and knows no threads but its one.
func childOfFork() {
  let thread = keg_debug_thread()
  // Not in the child of a handler, which returns into what it interrupted.
  let isWhole = debug.pointee.forkOwner == thread.address && debug.pointee.forksInHandlers == 0
  resetLocks()
  childOfForkOfLeaks()
  keg_debug_fork_faults(Int32(KEG_FORK_CHILD))
  debug.pointee.pid = processID()
  debug.pointee.ending.store(Ending.none, ordering: .relaxed)
  debug.pointee.findings.clear()
  debug.pointee.leaks = 0
  debug.pointee.leakedBytes = 0
  forgetReportFile()
  var i = 7
  while i > 0 {
    debug.pointee.forkers[i] = debug.pointee.forkers[i &- 1]
    i &-= 1
  }
  debug.pointee.forkers[0] = thread.pointee.id
  debug.pointee.forkedAt = max(milliseconds(), 1)  // 0: never
  debug.pointee.now = debug.pointee.forkedAt &+ 1
  thread.pointee.id = threadID()
  var part = debug.pointee.threads.head
  while let here = part {
    part = here.pointee.next
    if here.address != thread.pointee.quarantine { forget(here) } else { here.pointee.id = thread.pointee.id }
  }
  keg_compiler_barrier()
  if isWhole { thread.pointee.state = debug.pointee.stateBeforeFork }
}

/// A file named by process is another one in the child; a shared one stays open.
private func forgetReportFile() {
  let option: Option = Core.option(.debugJSONFile) != 0 ? .debugJSONFile : .debugLogFile
  let path = Core.option(option)
  if path != 0, keg_debug_names_process(path.pointer(to: CChar.self)) {
    debug.pointee.reportDescriptor = -1
  }
}

/// Whether a thread allocated the item that did not come along when this process was
/// forked: who held it, in a register perhaps, is not here, and its parent reports it.
func isOfAbsentThread(_ record: RecordPointer) -> Bool {
  if debug.pointee.forkedAt == 0 || record.pointee.allocationTime > debug.pointee.forkedAt { return false }
  let thread = record.allocationThread
  var i = 0
  while i < 8 {
    if debug.pointee.forkers[i] == thread { return false }
    i &+= 1
  }
  return thread != debug.pointee.pid
}
