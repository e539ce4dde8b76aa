// Boot.swift: from the first call to a running allocator (U40).
//
//   cold ──first slow path──▶ booting (boot lock) ──▶ running ──▶ hooks installed
//
// Boot makes system calls only by the instruction itself and calls nothing of
// the C library that could allocate, lock or be interposed (G03, G04). The two
// hooks that do need the C library, the end of a thread and fork, are installed
// right after the allocator is usable, so that they may allocate (G09).

import Base
import Keg
import Pages
import Platform
import SizeClass
import Synchronization
import Vmem
import Zone

/// Boots the allocator unless that has been done.
/// - Returns: false when there is no address space or memory for it.
func boot() -> Bool {
  if isRunning { return true }
  bootLock.lock()
  if isRunning {
    bootLock.unlock()
    return true
  }
  process.initialize(to: Process())
  readOptions()
  let isUp = MemoryLayout<Process>.size <= Int(KEG_PROCESS_BYTES) && makeHeap()
  if isUp {
    let options = process.pointee.options
    process.pointee.heap?.limitBytes = options[.debugLimit] &<< 20
    process.pointee.failures.mean.store(
      UInt32(truncatingIfNeeded: options[.debugMeanFailures]), ordering: .relaxed)
    keg_set_steps({ stepOutside() }, { stepInside($0) })
    keg_set_running()
  }
  bootLock.unlock()
  if isUp {
    if process.pointee.options[.statistics] == StatisticsMode.exit {
      process.pointee.reportDescriptor = keepStandardError()
    }
    installHooks()
    keg_mark_process { forkOrphaned() }
    applyHugePages()
  }
  return isUp
}

/// A copy of standard error for the report at exit: many programs close theirs
/// before they end (gnulib's close_stdout).
private func keepStandardError() -> Int32 {
  let copy = keg_syscall6(72 /* fcntl */, 2, 1030 /* F_DUPFD_CLOEXEC */, 200, 0, 0, 0)
  return copy < 0 ? 2 : Int32(truncatingIfNeeded: copy)
}

private func installHooks() {
  var hooks = keg_hooks(
    fork_prepare: { forkPrepare() }, fork_parent: { forkParent() },
    fork_child: { forkChild() }, thread_exits: { threadExits($0) })
  keg_install_hooks(&hooks)
}

private func readOptions() {
  process.pointee.options.setDefaults()
  // A kernel without a vDSO is most likely an emulator, which may keep a record of every
  // page that is mapped, accessible or not: of 4 TiB, qemu 7 filled gigabytes for minutes.
  if keg_auxiliary(33 /* AT_SYSINFO_EHDR */) == 0 { process.pointee.options[.reserve] = 16 }
  let pageSize = keg_auxiliary(6 /* AT_PAGESZ */)
  if pageSize != 0 { process.pointee.pageSize = pageSize }
  if let text = keg_program_options() { process.pointee.options.parse(text, origin: "kegmalloc_conf") }
  // AT_SECURE: whoever started a set-user-ID program must not steer it.
  if keg_auxiliary(23) == 0, let text = keg_environment_options() {
    process.pointee.options.parse(text, origin: "KEGMALLOC_CONF")
  }
}

/// How much address space to ask for: the option, at most an eighth of RLIMIT_AS.
private func reservationSize() -> UInt {
  var wanted = (process.pointee.options[.reserve] &<< 30).nextPowerOfTwo
  var limits: (UInt, UInt) = (.max, .max)
  let result = withUnsafeMutablePointer(to: &limits) {
    keg_syscall6(
      Int(KEG_SYS_prlimit64), 0, 9 /* RLIMIT_AS */, 0, Int(bitPattern: $0), 0, 0)
  }
  if result == 0, limits.0 != .max {
    wanted = min(wanted, (1 as UInt) &<< max(limits.0 / 8, 1 &<< 22).log2Floor)
  }
  return wanted
}

@_optimize(size)
private func makeHeap() -> Bool {
  guard
    let heap = Heap.create(
      wanted: reservationSize(), pageSize: process.pointee.pageSize, source: PageSource.kernel())
  else { return false }
  let metadata = heap.pointee.metadata
  guard let threads = metadata.room(for: Pool.self),
    let zones = metadata.room(for: Pool.self),
    let buckets = metadata.room(for: BucketPools.self),
    let bucketPools = metadata.room(for: Pool.self, count: BucketSize.count)
  else { return false }
  threads.initialize(
    to: Pool(name: "threads", itemBytes: ThreadCache.byteCount, alignment: 64, metadata: metadata))
  zones.initialize(
    to: Pool(
      name: "zones", itemBytes: UInt(MemoryLayout<ClassZone>.stride) &+ 16, alignment: 64,
      metadata: metadata))
  buckets.initialize(to: BucketPools(memory: bucketPools, metadata: metadata))
  process.pointee.threadCaches = threads
  process.pointee.classZones = zones
  process.pointee.bucketPools = buckets
  process.pointee.heap = heap
  makeEmergencyPool(heap)
  fillSizeTable()
  keg_fast_set_page_map(heap.pointee.pageMap.tables)
  heap.pointee.relieve = { relieve(heapBytes: $0) }
  heap.pointee.published = {
    keg_fast_set_chunk_count($0)
    setDepotBudget()
  }
  setDepotBudget()
  keg_fast_set_chunk_count(heap.pointee.reservation.chunkCount)
  return true
}

/// All depots together: a sixteenth of the heap, a quarter of a MiB at least.
private func setDepotBudget() {
  guard let heap = process.pointee.heap, let pools = process.pointee.bucketPools else { return }
  pools.pointee.depotBudget = Int(bitPattern: max(heap.pointee.committedBytes / 16, 1 &<< 18))
}

private func fillSizeTable() {
  var entry: UInt = 0
  while entry < SizeClass.tableCount {
    let index = SizeClass.index(of: SizeClass.greatestSize(atTableIndex: entry))
    keg_fast_set_bin_of_size(entry, UInt16(truncatingIfNeeded: index &<< Bin.strideShift))
    entry &+= 1
  }
}

private func applyHugePages() {
  guard let heap = process.pointee.heap else { return }
  let mode = process.pointee.options[.thp]
  if mode == THPMode.system { return }
  heap.pointee.reservation.adviseHugePages(mode == THPMode.always)
}
