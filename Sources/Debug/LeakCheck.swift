// LeakCheck.swift: one leak check, from the first lock to the last line.
//
//   take every lock (as for fork) ─▶ stop the threads ─▶ items ─▶ roots ─▶ scan ─▶
//   kinds ─▶ groups by stack ─▶ let the threads go ─▶ drop the locks ─▶ report
//
// With the locks held nobody is half way through a change of the heap, so the items
// can be walked; and whoever is stopped in the C library or the loader holds nothing
// that is needed until the threads go on: system calls are made by the instruction,
// memory comes from the kernel, nothing is looked up.

import Base
import DebugPlatform
import Keg
import Leaks
import Malloc
import Pages
import Platform
import Synchronization

/// What a check is for.
struct LeakQuestion {
  /// Only items allocated since the last mark.
  var sinceMark = false
  /// The process ends: frames below exit's caller are dead.
  var atExit = false
  /// By _exit, which has put its caller's registers here; 0: by exit or quick_exit.
  var leavesFrom: UInt = 0
  /// On the helper thread: it has no stack of the program's.
  var onHelper = false
}

struct LeakTotals {
  var count: InlineArray<7, UInt> = InlineArray(repeating: 0)
  var bytes: InlineArray<7, UInt> = InlineArray(repeating: 0)

  mutating func add(_ kind: LeakKind, _ bytes: UInt) {
    count[Int(kind.rawValue)] &+= 1
    self.bytes[Int(kind.rawValue)] &+= bytes
  }

  func count(_ kind: LeakKind) -> UInt { count[Int(kind.rawValue)] }
  func bytes(_ kind: LeakKind) -> UInt { bytes[Int(kind.rawValue)] }

  var leaks: UInt { count(.definite) &+ count(.indirect) &+ count(.cycle) }
  var leakedBytes: UInt { bytes(.definite) &+ bytes(.indirect) &+ bytes(.cycle) }
}

/// What a check found; its groups lie in scratch memory.
struct LeakResult {
  var totals = LeakTotals()
  var groups = LeakGroups()
  /// Threads that could not be stopped.
  var defiant: UInt = 0
  var firstDefiant: Int32 = 0
  var words: UInt = 0
}

private let leakLock = Lock(rank: .none)

/// Checks for leaks and reports them. Called outside every lock, with malloc calls of
/// this thread served from the emergency pool.
/// - Parameter frame: the calling thread's stack from here on is the program's.
/// - Returns: what was found; nil: there was no memory for a check.
func checkLeaks(_ question: LeakQuestion, frame: UInt, target: LeakTarget) -> LeakTotals? {
  leakLock.lock()
  var scratch = LeakScratch(source: PageSource.kernel())
  var blocks = LeakBlocks(source: PageSource.kernel())
  var result = LeakResult()
  if !question.onHelper { keg_leak_drop_deleted_keys() }
  keg_leak_block_signals()
  prepareFork()
  Core.lockAll()
  let isDone = stopWorld { threads, bytes in
    keg_leak_catch_faults()
    let isDone = examine(question, frame, threads, bytes, &scratch, &blocks, &result)
    keg_leak_release_faults()
    return isDone
  }
  Core.unlockAll()
  parentOfFork()
  keg_leak_unblock_signals()
  if isDone { reportLeaks(result, question, target) } else { reportNoMemory(target) }
  blocks.releaseAll()
  scratch.releaseAll()
  leakLock.unlock()
  return isDone ? result.totals : nil
}

/// In the child of a fork by another thread than the checker.
func childOfForkOfLeaks() {
  leakLock.reset()
  keg_leak_forget_helper()
}

private struct ThreadTable {
  var table: UnsafeMutablePointer<keg_leak_thread>
  var count: Int
}

/// Runs `body` while all other threads stand still.
private func stopWorld(_ body: (ThreadTable, UInt) -> Bool) -> Bool {
  var capacity = 64
  while true {
    var bytes = 0
    guard let table = keg_leak_room(capacity, &bytes) else { return false }
    let found = keg_leak_stop(table, capacity, keg_background_thread())
    if found > capacity {
      capacity = found &* 2
      continue
    }
    let isDone = body(ThreadTable(table: table, count: max(found, 0)), UInt(bitPattern: bytes))
    if found >= 0 { keg_leak_resume() }
    return isDone
  }
}

/// Room for a group for each item, to a bound: the table is written from end to end.
private func groupCapacity(_ items: Int) -> Int {
  var capacity = 1 << 8
  while capacity < items &* 2, capacity < 1 << 17 { capacity &*= 2 }
  return capacity
}

/// The check proper. Nothing in here takes a lock or calls the C library.
private func examine(
  _ question: LeakQuestion, _ frame: UInt, _ table: ThreadTable, _ tableBytes: UInt,
  _ scratch: inout LeakScratch, _ blocks: inout LeakBlocks, _ result: inout LeakResult
) -> Bool {
  // Everything that the walk over the roots needs, before the mappings are read.
  let threadMemory = scratch.take(
    UInt(bitPattern: (table.count &+ 1) &* MemoryLayout<LeakThread>.stride))
  guard threadMemory != 0, var items = LeakItems(scratch: &scratch) else { return false }
  guard collectItems(&items, &scratch, &blocks),
    var scan = LeakScan(
      items: items, read: { keg_leak_copy($0, $1, $2) }, scratch: &scratch),
    let pieces = LeakPieces(capacity: 1 << 18, scratch: &scratch),
    let tables = LeakPieces(capacity: 1 << 14, scratch: &scratch),
    var cuts = LeakPieces(capacity: 1 << 14, scratch: &scratch),
    var groups = LeakGroups(capacity: groupCapacity(scan.items.count), scratch: &scratch),
    var frames = LeakFrames(scratch: &scratch)
  else { return false }

  let threads = threadMemory.pointer(to: LeakThread.self)
  var threadCount = 0
  var i = 0
  while i < table.count {
    let thread = table.table[i]
    if thread.state == KEG_LEAK_STOPPED {
      // What a thread on a stack of its own has there is an item's.
      let isOnHeap = scan.items.find(thread.stack_pointer) >= 0
      var top = thread.stack_pointer &- 128
      if !isOnHeap, frameThatWaits(table.table + i, &frames) != 0 {
        frames.walk(cursor(of: table.table + i))
        top = frames.top
      }
      threads[threadCount] = LeakThread(
        tid: thread.tid, stackPointer: top,
        threadPointer: thread.thread_pointer)
      threadCount &+= 1
      if thread.idle_stack != 0 {
        cuts.append(thread.idle_stack, thread.idle_stack &+ thread.idle_bytes, .lost)
      }
    } else {
      let hasEnded = thread.state == KEG_LEAK_ENDED
      threads[threadCount] = LeakThread(
        tid: thread.tid, stackPointer: 0, threadPointer: 0, hasEnded: hasEnded)
      // The thread block of one that has ended says so itself.
      if !hasEnded || thread.tid == Int32(bitPattern: processID()) { threadCount &+= 1 }
      if !hasEnded {
        result.defiant &+= 1
        if result.firstDefiant == 0 { result.firstDefiant = thread.tid }
      }
    }
    i &+= 1
  }
  let own = ownThread(question, frame, scan, &frames)
  var ownIdleStack: UInt = 0
  if !question.onHelper {
    var bytes: UInt = 0
    ownIdleStack = keg_leak_idle_stack(&bytes)
    if ownIdleStack != 0 { cuts.append(ownIdleStack, ownIdleStack &+ bytes, .lost) }
    threads[threadCount] = own.thread
    threadCount &+= 1
  }

  addOwnMemory(&cuts, tableBytes, table.table.address, scratch, blocks)
  cuts.sort()
  var roots = LeakRoots(
    layout: leakLayout(), threads: threads, threadCount: threadCount, cuts: cuts,
    read: { keg_leak_copy($0, $1, $2) }, pieces: pieces, tables: tables)
  forEachMapping { roots.take($0) }

  // A thread may run on a stack that it allocated.
  i = 0
  while i < threadCount {
    let index = scan.items.find(threads[i].stackPointer)
    if index >= 0 { scanHeapStack(index, threads[i], &scan) }
    i &+= 1
  }
  scanRoots(roots, .reachable, &scan)
  scanKernelWords(&scan)
  forEachUncheckedRange { start, end, isCertain in
    if isCertain { scan.reach(from: start, to: end, .reachable) }
  }
  i = 0
  while i < roots.tables.count {
    if let dtv = scan.reachShallow(word: roots.tables[i].start.word, .system) {
      var word = dtv.start
      while word &+ 8 <= dtv.start &+ dtv.size {
        _ = scan.reachShallow(word: word.word, .system)
        word = word &+ 8
      }
    }
    i &+= 1
  }
  scanRoots(roots, .system, &scan)
  if !question.onHelper {
    var n = 0
    while n < 6 {
      scan.reach(word: own.registers[n], .stack)
      n &+= 1
    }
    n = 0
    while n < own.frameCount {
      frames.reach(n, thread: own.thread.tid, isWaiting: false, &scan)
      n &+= 1
    }
  }
  i = 0
  while i < table.count {
    if table.table[i].state == KEG_LEAK_STOPPED { scanWaiting(table.table + i, &frames, &scan) }
    i &+= 1
  }
  scanRoots(roots, .stack, &scan)
  // Of a stack for signals that lies in an item the kernel alone may know.
  _ = scan.reachShallow(word: ownIdleStack, .reachable)
  i = 0
  while i < table.count {
    if table.table[i].state == KEG_LEAK_STOPPED {
      _ = scan.reachShallow(word: table.table[i].idle_stack, .reachable)
    }
    i &+= 1
  }
  forEachUncheckedRange { start, end, isCertain in
    if !isCertain { scan.reach(from: start, to: end, .stack) }
  }
  scan.classify(scratch: &scratch)
  collect(scan, question, &groups, &result.totals)
  result.groups = groups
  result.words = scan.words
  return true
}

/// What the kernel keeps for the program and hands back with an event.
private func scanKernelWords(_ scan: inout LeakScan) {
  withUnsafeMutablePointer(to: &scan) {
    keg_leak_each_kernel_word(
      { context, word in
        UInt(bitPattern: context).pointer(to: LeakScan.self).pointee.reach(word: word, .reachable)
      }, UnsafeMutableRawPointer($0))
  }
}

/// What a stopped thread holds in registers and, if it waits, in the C library's frames.
private func scanWaiting(
  _ thread: UnsafeMutablePointer<keg_leak_thread>, _ frames: inout LeakFrames, _ scan: inout LeakScan
) {
  let registers = thread.address &+ registersOffset
  let isOnHeap = scan.items.find(thread.pointee.stack_pointer) >= 0
  let waiting = isOnHeap ? 0 : frameThatWaits(thread, &frames)
  // No call preserves the vectors, which lie behind the other registers.
  scan.reach(from: registers, to: registers &+ (waiting != 0 ? 16 : 48) &* 8, .stack)
  if waiting == 0 { return }
  frames.walk(cursor(of: thread))
  var i = 0
  while i < frames.count {
    frames.reach(i, thread: thread.pointee.tid, isWaiting: frames[i].low < waiting, &scan)
    i &+= 1
  }
}

private struct OwnThread {
  var thread: LeakThread
  /// Of LeakFrames: those that lie below the thread's stack pointer.
  var frameCount = 0
  var registers: InlineArray<6, UInt> = InlineArray(repeating: 0)
}

/// The calling thread: from `frame` on, or when the process ends from the frame of
/// exit's caller on. After main has returned nothing of its stack is alive.
private func ownThread(
  _ question: LeakQuestion, _ frame: UInt, _ scan: borrowing LeakScan, _ frames: inout LeakFrames
) -> OwnThread {
  let pointer = keg_thread_pointer()
  var own = OwnThread(
    thread: LeakThread(
      tid: Int32(bitPattern: threadID()), stackPointer: frame, threadPointer: pointer))
  if !question.atExit { return own }
  var hasReturned = false
  // Five registers, rbp and the return address.
  let caller =
    question.leavesFrom != 0
    ? question.leavesFrom &+ 56
    : withUnsafeMutablePointer(to: &own.registers) {
      exitCaller(frame, $0.address.pointer(to: UInt.self), &hasReturned)
    }
  if caller == 0 { return own }
  if question.leavesFrom == 0 { own.thread.stackPointer = caller }
  if hasReturned {
    if caller < keg_first_stack_end() { own.thread.stackPointer = keg_first_stack_end() }
    own.registers = InlineArray(repeating: 0)
  } else if scan.items.find(caller) < 0, let cursor = cursorAtExit(caller) {
    own.registers = preserved(cursor.registers)
    frames.walk(cursor)
    own.frameCount = frames.count
    if frames.count > 0 { own.thread.stackPointer = frames.top }
  }
  return own
}

/// The calling thread's stack from the caller of exit(3) on; 0: it is not in exit.
private func exitCaller(
  _ frame: UInt, _ registers: UnsafeMutablePointer<UInt>, _ hasReturned: inout Bool
) -> UInt {
  let isMain = threadID() == processID()
  let end = isMain ? keg_first_stack_end() : keg_thread_pointer()
  // On a stack of another kind it ends where it likes: not far up is enough.
  let reach = end > frame && end &- frame < 1 &<< 26 ? end : frame &+ 2048
  return keg_leak_exit_caller(frame, reach, registers, &hasReturned)
}

func isInExit(_ frame: UInt) -> Bool {
  var registers = InlineArray<6, UInt>(repeating: 0)
  var hasReturned = false
  return withUnsafeMutablePointer(to: &registers) {
    exitCaller(frame, $0.address.pointer(to: UInt.self), &hasReturned)
  } != 0
}

private func leakLayout() -> LeakLayout {
  LeakLayout(
    stackEnd: keg_first_stack_end(), staticTLS: keg_leak_static_tls(),
    tidOffset: keg_leak_tid_offset(), resultOffset: keg_leak_result_offset(),
    isForked: keg_leak_is_forked())
}

/// A thread's stack is an item: it lives from the stack pointer on.
private func scanHeapStack(_ index: Int, _ thread: LeakThread, _ scan: inout LeakScan) {
  let item = scan.items.items[index]
  let end = item.start &+ item.size
  scan.set(index, .reachable)
  let hasBlock = thread.threadPointer > thread.stackPointer && thread.threadPointer < end
  let tls = hasBlock ? max(thread.stackPointer, end &- min(keg_leak_static_tls(), item.size)) : end
  scan.reach(from: tls, to: end, .reachable)
  scan.reach(from: thread.stackPointer, to: tls, .stack)
}

/// Scans the pieces of one kind; of large ones only what is resident, of files what was
/// written to.
private func scanRoots(_ roots: LeakRoots, _ kind: LeakKind, _ scan: inout LeakScan) {
  var i = 0
  while i < roots.pieces.count {
    let piece = roots.pieces[i]
    i &+= 1
    if piece.kind != kind { continue }
    if piece.end &- piece.start < 1 &<< 20, !piece.isFile {
      scan.reach(from: piece.start, to: piece.end, kind)
      continue
    }
    withUnsafeMutablePointer(to: &scan) { scan in
      var job = ResidentJob(scan: scan.address, kind: kind)
      withUnsafeMutablePointer(to: &job) {
        keg_leak_each_resident(
          piece.start, piece.end, piece.isFile,
          { context, start, end in
            let job = UInt(bitPattern: context).pointer(to: ResidentJob.self)
            job.pointee.scan.pointer(to: LeakScan.self).pointee
              .reach(from: start, to: end, job.pointee.kind)
          }, UnsafeMutableRawPointer($0))
      }
    }
  }
}

private struct ResidentJob {
  let scan: UInt
  let kind: LeakKind
}
