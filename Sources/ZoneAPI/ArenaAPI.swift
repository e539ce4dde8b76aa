// ArenaAPI.swift: arenas for programs: making them, and where their spans come from.
//
// The contract is in kegmalloc.h; here is how it is kept. A call validates what it
// was given, then works on the arena in a section. The functions that return int
// return an error number and leave errno alone; those that return a pointer set it.
//
//   program ──keg_arena_*──▶ handle → record ──section──▶ Arena (Vmem)
//
// After vmem(9) of NetBSD (vmem_create, vmem_add, vmem_destroy) and of FreeBSD
// (vmem_set_import, vmem_set_limit).

import Base
import Keg
import Malloc
import Pages
import Platform
import Vmem

/// Error numbers of Linux on x86-64.
enum ErrorNumber {
  static var notPermitted: Int32 { 1 /* EPERM */ }
  static var noEntry: Int32 { 2 /* ENOENT */ }
  static var interrupted: Int32 { 4 /* EINTR */ }
  static var noMemory: Int32 { 12 /* ENOMEM */ }
  static var busy: Int32 { 16 /* EBUSY */ }
  static var exists: Int32 { 17 /* EEXIST */ }
  static var invalid: Int32 { 22 /* EINVAL */ }
}

/// The error of a section that did not run, or what the body found.
func errorNumber(_ result: SectionResult, _ found: Int32) -> Int32 {
  switch result {
  case .done: return found
  case .inHandler: return ErrorNumber.interrupted
  case .noMemory: return ErrorNumber.noMemory
  }
}

/// A record and its arena, one piece of metadata.
private struct Place: ~Copyable {
  var record: ArenaRecord
  var arena: Arena
}

/// The record behind a handle; nil for NULL and for a destroyed arena.
@inline(__always)
func liveRecord(_ handle: UnsafeMutableRawPointer?) -> UnsafeMutablePointer<ArenaRecord>? {
  guard let record = handle?.assumingMemoryBound(to: ArenaRecord.self), record.pointee.isAlive
  else { return nil }
  return record
}

/// Runs `body` in a section with the record of an arena that the program may change.
/// - Returns: what `body` returns, or the error that forbids to run it.
@inline(__always)
func withArena(
  _ handle: UnsafeMutableRawPointer?, _ body: (UnsafeMutablePointer<ArenaRecord>) -> Int32
) -> Int32 {
  guard let record = liveRecord(handle) else { return ErrorNumber.invalid }
  if record.pointee.isOurs { return ErrorNumber.notPermitted }
  var found: Int32 = 0
  let result = inSection { found = body(record) }
  return errorNumber(result, found)
}

/// Whether a span may be: multiples of the quantum that end below the last integer.
private func isSpan(_ start: UInt, _ size: UInt, quantum: UInt) -> Bool {
  (start | size).isMultiple(ofPowerOfTwo: quantum) && start &+ size >= start
    && (size == 0 || start &+ size != 0)
}

// MARK: - Create and destroy

@c public func keg_arena_create(
  _ name: UnsafePointer<CChar>?, _ base: UInt, _ size: UInt, _ quantum: UInt, _ cachedBytes: UInt
) -> UnsafeMutableRawPointer? {
  guard let name, quantum.isPowerOfTwo, isSpan(base, size, quantum: quantum) else {
    keg_set_errno(ErrorNumber.invalid)
    return nil
  }
  var made: UnsafeMutablePointer<ArenaRecord>? = nil
  let result = inSection { made = makeArena(name, base, size, quantum, cachedBytes) }
  guard let made else {
    keg_set_errno(errorNumber(result, ErrorNumber.noMemory))
    return nil
  }
  return UnsafeMutableRawPointer(made)
}

private func makeArena(
  _ name: UnsafePointer<CChar>, _ base: UInt, _ size: UInt, _ quantum: UInt, _ cachedBytes: UInt
) -> UnsafeMutablePointer<ArenaRecord>? {
  guard let registry = makeRegistry() else { return nil }
  let heap = sharedHeap
  registryLock.pointee.lock()
  let former = registry.pointee.freeArenas.head
  if let former { registry.pointee.freeArenas.remove(former) }
  registryLock.pointee.unlock()

  var tables = FormerTables()
  let record: UnsafeMutablePointer<ArenaRecord>
  let arena: UnsafeMutablePointer<Arena>
  if let former {
    record = former
    arena = former.pointee.arena
    tables = arena.formerTables
  } else {
    guard let place = heap.pointee.metadata.room(for: Place.self) else { return nil }
    record = withUnsafeMutablePointer(to: &place.pointee.record) { $0 }
    arena = withUnsafeMutablePointer(to: &place.pointee.arena) { $0 }
  }
  arena.initialize(
    to: Arena(
      name: "program", quantum: quantum, tags: heap.pointee.tags, hashMemory: heap.pointee.metadata,
      cachedQuanta: cachedBytes &>> quantum.log2Floor, former: tables))
  record.initialize(to: ArenaRecord(arena: arena, isOurs: false))
  record.setName(name)
  if size != 0, !arena.addSpan(base, size) {
    retire(record)
    return nil
  }
  registryLock.pointee.lock()
  registry.pointee.arenas.append(record)
  registryLock.pointee.unlock()
  return record
}

/// Keeps the record of an empty arena that is on no list for the next one.
private func retire(_ record: UnsafeMutablePointer<ArenaRecord>) {
  record.pointee.die()
  registryLock.pointee.lock()
  registry?.pointee.freeArenas.prepend(record)
  registryLock.pointee.unlock()
}

@c public func keg_arena_destroy(_ handle: UnsafeMutableRawPointer?, _ flags: UInt32) -> Int32 {
  if flags & ~1 != 0 { return ErrorNumber.invalid }
  return withArena(handle) { record in
    while true {
      guard let isIdle = record.close() else { return ErrorNumber.busy }
      if isIdle { break }
      keg_cpu_relax()
    }
    let isGone = record.pointee.arena.dismantle(force: flags & 1 != 0)
    record.endClosing(unlist: isGone)
    if !isGone { return ErrorNumber.busy }
    retire(record)
    return 0
  }
}

extension UnsafeMutablePointer where Pointee == ArenaRecord {
  /// From now on nobody who iterates over all arenas comes here: what is in their hands is
  /// in use. False: somebody is here. Nil: other arenas import from it.
  fileprivate func close() -> Bool? {
    registryLock.pointee.lock()
    defer { registryLock.pointee.unlock() }
    if pointee.children > 0 { return nil }
    pointee.isClosing = pointee.pins == 0
    return pointee.isClosing
  }

  fileprivate func endClosing(unlist: Bool) {
    registryLock.pointee.lock()
    pointee.isClosing = false
    if unlist {
      pointee.source?.pointee.children &-= 1
      registry?.pointee.arenas.remove(self)
    }
    registryLock.pointee.unlock()
  }
}

// MARK: - Spans

@c public func keg_arena_add(_ handle: UnsafeMutableRawPointer?, _ start: UInt, _ size: UInt)
  -> Int32
{
  withArena(handle) { record in
    let arena = record.pointee.arena
    guard size != 0, isSpan(start, size, quantum: arena.pointee.quantum) else {
      return ErrorNumber.invalid
    }
    if !arena.reserveTags(2) { return ErrorNumber.noMemory }
    return arena.addSpan(start, size) ? 0 : ErrorNumber.exists
  }
}

@c public func keg_arena_set_source(
  _ handle: UnsafeMutableRawPointer?, _ sourceHandle: UnsafeMutableRawPointer?,
  _ importQuantum: UInt
) -> Int32 {
  guard let source = liveRecord(sourceHandle) else { return ErrorNumber.invalid }
  if source.pointee.isOurs { return ErrorNumber.notPermitted }
  return withArena(handle) { record in
    registryLock.pointee.lock()
    defer { registryLock.pointee.unlock() }
    var above: UnsafeMutablePointer<ArenaRecord>? = source
    while let here = above {
      if here == record { return ErrorNumber.invalid }
      above = here.pointee.source
    }
    let error = setSource(
      of: record, ArenaRecord.importFromSource, ArenaRecord.releaseToSource, importQuantum)
    if error == 0 {
      record.pointee.source = source
      source.pointee.children &+= 1
    }
    return error
  }
}

@c public func keg_arena_set_import(
  _ handle: UnsafeMutableRawPointer?,
  _ importFunction: (
    @convention(c) (UnsafeMutableRawPointer?, UInt, UnsafeMutablePointer<UInt>) -> Int32
  )?,
  _ releaseFunction: (@convention(c) (UnsafeMutableRawPointer?, UInt, UInt) -> Void)?,
  _ argument: UnsafeMutableRawPointer?, _ importQuantum: UInt
) -> Int32 {
  guard let importFunction else { return ErrorNumber.invalid }
  return withArena(handle) { record in
    registryLock.pointee.lock()
    defer { registryLock.pointee.unlock() }
    let release = releaseFunction == nil ? nil : ArenaRecord.releaseThroughFunction
    let error = setSource(of: record, ArenaRecord.importThroughFunction, release, importQuantum)
    if error == 0 {
      record.pointee.importFunction = importFunction
      record.pointee.releaseFunction = releaseFunction
      record.pointee.argument = argument
    }
    return error
  }
}

/// Called with the registry lock held.
private func setSource(
  of record: UnsafeMutablePointer<ArenaRecord>, _ importSpan: @escaping Arena.Import,
  _ releaseSpan: Arena.Release?, _ importQuantum: UInt
) -> Int32 {
  let arena = record.pointee.arena
  let quantum = max(importQuantum, arena.pointee.quantum)
  if !quantum.isPowerOfTwo { return ErrorNumber.invalid }
  if record.pointee.source != nil || record.pointee.importFunction != nil {
    return ErrorNumber.busy
  }
  arena.pointee.lock.lock()
  arena.pointee.setSource(
    importSpan: importSpan, releaseSpan: releaseSpan, source: UnsafeMutableRawPointer(record),
    importQuantum: quantum)
  arena.pointee.lock.unlock()
  return 0
}

@c public func keg_arena_set_limit(_ handle: UnsafeMutableRawPointer?, _ bytes: UInt) -> Int32 {
  withArena(handle) { record in
    record.pointee.arena.setLimit(bytes)
    return 0
  }
}

@c public func keg_arena_reserve(_ handle: UnsafeMutableRawPointer?, _ operations: UInt) -> Int32 {
  if operations > 1 &<< 24 { return ErrorNumber.noMemory }
  return withArena(handle) { record in
    // An allocation cuts a segment into three at most.
    record.pointee.arena.reserveTags(Int(bitPattern: 2 &* operations)) ? 0 : ErrorNumber.noMemory
  }
}

@c public func keg_arena_reap(_ handle: UnsafeMutableRawPointer?) -> Int32 {
  withArena(handle) { record in
    _ = record.pointee.arena.reap()
    return 0
  }
}
