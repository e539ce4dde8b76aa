// DebugFork.swift: fork(2) with other threads inside the debug layer.
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
  prepareForkOfStacks()
  debug.pointee.threadLock.lock()
  debug.pointee.quarantineLock.lock()
  debug.pointee.reportLock.lock()
  debug.pointee.recordLock.lock()
}

func parentOfFork() {
  debug.pointee.recordLock.unlock()
  debug.pointee.reportLock.unlock()
  debug.pointee.quarantineLock.unlock()
  debug.pointee.threadLock.unlock()
  parentOfForkOfStacks()
}

/// The child reports under its own name, and knows no threads but its one.
func childOfFork() {
  debug.pointee.recordLock.reset()
  debug.pointee.reportLock.reset()
  debug.pointee.quarantineLock.reset()
  debug.pointee.threadLock.reset()
  childOfForkOfStacks()
  debug.pointee.pid = processID()
  debug.pointee.isFinished = false
  debug.pointee.findings.clear()
  debug.pointee.leaks = 0
  debug.pointee.leakedBytes = 0
  forgetReportFile()
  let thread = keg_debug_thread()
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
