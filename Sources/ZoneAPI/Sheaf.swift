// Sheaf.swift: items in advance for those who may not fail (S09, S10).
//
//   | zone | capacity | left | item 0 | item 1 | … | item capacity − 1 |
//                        └ take: fetch-and-subtract 1, then the item below
//
// The items are constructed when the sheaf is filled, so taking one runs nothing of the
// program's, takes no lock, makes no system call and cannot fail while `left` is above
// 0. A handler that interrupts a take of its thread gets the next item: each subtraction
// gives an index to one caller. Below 0 it only says how often nothing was left.
//
// A sheaf belongs to one thread and its handlers. While it is refilled or returned a
// handler finds it empty.

import Base
import Malloc
import Platform
import Synchronization

private struct Sheaf: ~Copyable {
  let zone: HandlePointer
  let capacity: Int
  /// Relaxed: only one thread and its handlers use the sheaf.
  let left = Atomic<Int>(0)

  static var headerBytes: UInt { 32 }
}

private typealias SheafPointer = UnsafeMutablePointer<Sheaf>

extension UnsafeMutablePointer where Pointee == Sheaf {
  fileprivate var items: UnsafeMutablePointer<UInt> {
    (address &+ Sheaf.headerBytes).pointer(to: UInt.self)
  }

  /// Fills up to `wanted` items.
  /// - Returns: false, with errno set, when there are fewer.
  fileprivate func fill(_ wanted: Int, _ flags: Int32) -> Bool {
    // Handlers find the sheaf empty until the new count is there.
    var count = max(pointee.left.exchange(0, ordering: .relaxed), 0)
    let items = items
    if count < wanted {
      count &+= Int(
        bitPattern: keg_zone_alloc_bulk(
          UnsafeMutableRawPointer(pointee.zone), items + count,
          UInt(bitPattern: wanted &- count), flags))
    }
    keg_compiler_barrier()
    pointee.left.store(count, ordering: .relaxed)
    return count >= wanted
  }
}

private func sheaf(_ pointer: UnsafeMutableRawPointer) -> SheafPointer {
  UInt(bitPattern: pointer).pointer(to: Sheaf.self)
}

@c public func keg_sheaf_alloc(
  _ zone: UnsafeMutableRawPointer, _ n: UInt, _ flags: Int32
) -> UnsafeMutableRawPointer? {
  handle(zone).check()
  guard n > 0, n <= 1 &<< 32 else { return failed(22 /* EINVAL */) }
  let memory = allocateForProgram(Sheaf.headerBytes &+ n &* 8)
  if memory == 0 { return failed(12) }
  let made = memory.pointer(to: Sheaf.self)
  made.initialize(to: Sheaf(zone: handle(zone), capacity: Int(bitPattern: n)))
  if made.fill(Int(bitPattern: n), flags) { return UnsafeMutableRawPointer(made) }
  let error = keg_get_errno()
  keg_sheaf_return(UnsafeMutableRawPointer(made))
  return failed(error)
}

@c public func keg_sheaf_take(_ pointer: UnsafeMutableRawPointer) -> UnsafeMutableRawPointer? {
  let sheaf = sheaf(pointer)
  let left = sheaf.pointee.left.wrappingSubtract(1, ordering: .relaxed).oldValue
  if _slowPath(left <= 0) { return nil }
  return UnsafeMutableRawPointer(bitPattern: sheaf.items[left &- 1])
}

@c public func keg_sheaf_refill(
  _ pointer: UnsafeMutableRawPointer, _ n: UInt, _ flags: Int32
) -> Int32 {
  guard n <= UInt(bitPattern: sheaf(pointer).pointee.capacity) else { return 22 /* EINVAL */ }
  return sheaf(pointer).fill(Int(bitPattern: n), flags) ? 0 : keg_get_errno()
}

@c public func keg_sheaf_size(_ pointer: UnsafeMutableRawPointer) -> UInt {
  UInt(bitPattern: max(sheaf(pointer).pointee.left.load(ordering: .relaxed), 0))
}

@c public func keg_sheaf_return(_ pointer: UnsafeMutableRawPointer?) {
  guard let pointer else { return }
  let sheaf = sheaf(pointer)
  let count = max(sheaf.pointee.left.exchange(0, ordering: .relaxed), 0)
  keg_zone_free_bulk(
    UnsafeMutableRawPointer(sheaf.pointee.zone), sheaf.items, UInt(bitPattern: count))
  freeForProgram(sheaf.address)
}
