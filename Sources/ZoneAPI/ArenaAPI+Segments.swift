// ArenaAPI+Segments.swift: allocating from the program's arenas, and giving back.
//
// After vmem_alloc, vmem_xalloc, vmem_free and vmem_xfree of vmem(9). A free that
// does not match an allocation ends the process, as free(3) does: an identifier
// handed out twice is as bad as memory handed out twice.

import Base
import Malloc
import Platform
import Synchronization
import Vmem

private enum AllocationFlag {
  static var bestFit: UInt32 { 1 }
  static var noImport: UInt32 { 2 }
  static var all: UInt32 { 3 }
}

extension UnsafeMutablePointer where Pointee == ArenaRecord {
  /// Stores the start of an allocation and counts it.
  @inline(__always)
  fileprivate func answer(_ start: UInt, _ result: UnsafeMutablePointer<UInt>) -> Int32 {
    if start == Arena.none {
      _ = pointee.failures.wrappingAdd(1, ordering: .relaxed)
      return ErrorNumber.noMemory
    }
    _ = pointee.allocations.wrappingAdd(1, ordering: .relaxed)
    result.pointee = start
    return 0
  }
}

@c public func keg_arena_alloc(
  _ handle: UnsafeMutableRawPointer?, _ size: UInt, _ flags: UInt32,
  _ result: UnsafeMutablePointer<UInt>?
) -> Int32 {
  guard let result, size != 0, flags & ~AllocationFlag.all == 0 else { return ErrorNumber.invalid }
  return withArena(handle) { record in
    let arena = record.pointee.arena
    let mayImport = flags & AllocationFlag.noImport == 0
    if flags & AllocationFlag.bestFit != 0 {
      let tag = arena.allocate(
        size, alignment: arena.pointee.quantum, fit: .best, mayImport: mayImport)
      return record.answer(tag.map { arena.register($0) } ?? Arena.none, result)
    }
    var isDirty = false
    return record.answer(
      arena.allocateAddress(size, isDirty: &isDirty, mayImport: mayImport), result)
  }
}

@c public func keg_arena_xalloc(
  _ handle: UnsafeMutableRawPointer?, _ size: UInt, _ alignment: UInt, _ phase: UInt,
  _ nocross: UInt, _ minimum: UInt, _ maximum: UInt, _ flags: UInt32,
  _ result: UnsafeMutablePointer<UInt>?
) -> Int32 {
  guard let result, flags & ~AllocationFlag.all == 0 else { return ErrorNumber.invalid }
  return withArena(handle) { record in
    let arena = record.pointee.arena
    guard
      arena.isValid(
        size, alignment: alignment, phase: phase, nocross: nocross, minimum: minimum,
        maximum: maximum)
    else { return ErrorNumber.invalid }
    let tag = arena.allocate(
      size, alignment: alignment, phase: phase, nocross: nocross, minimum: minimum,
      maximum: maximum, fit: flags & AllocationFlag.bestFit != 0 ? .best : .instant,
      mayImport: flags & AllocationFlag.noImport == 0)
    return record.answer(tag.map { arena.register($0) } ?? Arena.none, result)
  }
}

@c public func keg_arena_free(_ handle: UnsafeMutableRawPointer?, _ start: UInt, _ size: UInt)
  -> Int32
{
  if size == 0 { return ErrorNumber.invalid }
  return withArena(handle) { record in
    record.pointee.arena.free(address: start, size: size, dirty: false, stamp: 0)
    _ = record.pointee.frees.wrappingAdd(1, ordering: .relaxed)
    return 0
  }
}

@c public func keg_arena_xfree(_ handle: UnsafeMutableRawPointer?, _ start: UInt, _ size: UInt)
  -> Int32
{
  if size == 0 { return ErrorNumber.invalid }
  return withArena(handle) { record in
    record.pointee.arena.freePastCaches(address: start, size: size, dirty: false, stamp: 0)
    _ = record.pointee.frees.wrappingAdd(1, ordering: .relaxed)
    return 0
  }
}
