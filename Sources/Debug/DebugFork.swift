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
  // A handler forks over a call of ours: no lock can be waited for.
  if thread.pointee.state >= KEG_DEBUG_INSIDE {
    debug.pointee.forksInHandlers &+= 1
    return
  }
  keg_debug_fork_faults(Int32(KEG_FORK_PREPARE))
  prepareForkOfStacks()
  debug.pointee.forkLock.lock()
  debug.pointee.threadLock.lock()
  keg_debug_set_forking(true)
  keg_debug_barrier()
  waitForOthers(until: patienceEnd())
  debug.pointee.quarantineLock.lock()
  debug.pointee.reportLock.lock()
  debug.pointee.guardLock.lock()
  forEachSampleLock { $0.lock() }
  debug.pointee.zoneLock.lock()
  debug.pointee.recordLock.lock()
}

/// When to go on, whatever other threads do. They are not waited for for ever: one may
/// hang in a write to a full pipe, or have been interrupted by a handler that never returns.
private func patienceEnd() -> UInt64 { keg_monotonic_nanoseconds() &+ 200_000_000 }

/// Waits until no other thread is in a call of ours.
/// - Returns: whether that came true before `limit`.
@discardableResult
private func waitForOthers(until limit: UInt64) -> Bool {
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
  if debug.pointee.forksInHandlers > 0 {
    debug.pointee.forksInHandlers &-= 1
    return
  }
  keg_debug_set_forking(false)
  debug.pointee.recordLock.unlock()
  debug.pointee.zoneLock.unlock()
  debug.pointee.guardLock.unlock()
  forEachSampleLock { $0.unlock() }
  debug.pointee.reportLock.unlock()
  debug.pointee.quarantineLock.unlock()
  debug.pointee.threadLock.unlock()
  debug.pointee.forkLock.unlock()
  parentOfForkOfStacks()
  keg_debug_fork_faults(Int32(KEG_FORK_PARENT))
}

/// Whoever held a lock is not in this process.
private func resetLocks() {
  debug.pointee.forksInHandlers = 0
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
  resetLocks()
  childOfForkOfLeaks()
  keg_debug_fork_faults(Int32(KEG_FORK_CHILD))
  debug.pointee.pid = processID()
  debug.pointee.isFinished = false
  debug.pointee.findings.clear()
  debug.pointee.leaks = 0
  debug.pointee.leakedBytes = 0
  forgetReportFile()
  let thread = keg_debug_thread()
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
    if here.address != thread.pointee.quarantine {
      debug.pointee.threads.remove(here)
      debug.pointee.counts.allocations &+= here.pointee.counts.allocations
      debug.pointee.counts.frees &+= here.pointee.counts.frees
    }
  }
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
