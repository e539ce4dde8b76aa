// DebugRealloc.swift: realloc(3). It always moves, so that who keeps using the old
// pointer is caught, and so that every size has its red zone at its own end.

import Base
import DebugPlatform
import Keg
import Malloc
import Platform
import Synchronization

/// realloc(3). As glibc, `realloc(p, 0)` frees and returns NULL.
@c public func keg_debug_realloc(_ pointer: UnsafeMutableRawPointer?, _ size: UInt)
  -> UnsafeMutableRawPointer?
{
  guard let pointer else { return allocate(size, alignment: 16, .malloc) }
  let address = UInt(bitPattern: pointer)
  if size == 0 {
    deallocate(address, Claim(call: .realloc))
    return nil
  }
  switch place(of: address) {
  case .item(let item):
    guard case .straight = enterDebug() else { return moveNested(item, address, size) }
    let new = reallocateItem(item, address, size)
    leaveDebug()
    return new == 0 ? Core.fail() : UnsafeMutableRawPointer(bitPattern: new)
  case .unchecked: return keg_realloc(pointer, size)
  case .emergency:
    // A handler's. The core would move it to a slot that has a record, and say nothing there.
    guard let new = allocate(size, alignment: 16, .malloc) else { return Core.fail() }
    copy(from: address, to: UInt(bitPattern: new), min(keg_usable_size(pointer), size))
    deallocate(address, Claim(call: .realloc))
    return new
  case .outside where Core.option(.deepBind) == DeepBindMode.keep && Core.isForeignBlock(address):
    return keg_realloc(pointer, size)
  default:
    guard case .straight = enterDebug() else { return Core.fail() }
    reportBadPointer(address, nil, true)
    leaveDebug()
    return Core.fail()
  }
}

private func reallocateItem(_ item: Item, _ address: UInt, _ size: UInt) -> UInt {
  let record = item.record
  if item.user != address || record.change(from: .live, to: .busy) != .live {
    reportBadPointer(address, item, true)
    return 0
  }
  if !FreeKind.realloc.fits(record.kind) { reportMismatch(item, Claim(call: .realloc)) }
  checkZones(item, .freeing)
  let new = allocateItem(size, 16, .malloc, false)
  if new == 0 {
    // As if nothing had been asked: the block stays as it is.
    record.set(.live, hasTrash: false)
    return 0
  }
  copy(from: address, to: new, min(record.size, size))
  // One call, one stack.
  if case .item(let newItem) = place(of: new) {
    retire(item, PendingStack(id: newItem.record.pointee.allocationStack))
  } else {
    retire(item)
  }
  return new
}

private func copy(from: UInt, to: UInt, _ count: UInt) {
  // Neither is 0: both are blocks in use.
  UnsafeMutableRawPointer(bitPattern: to).unsafelyUnwrapped.copyMemory(
    from: UnsafeRawPointer(bitPattern: from).unsafelyUnwrapped, byteCount: Int(bitPattern: count))
}

/// For who comes in nested: a plain copy; the old block is put off.
private func moveNested(_ item: Item, _ address: UInt, _ size: UInt) -> UnsafeMutableRawPointer? {
  guard item.user == address, item.record.state == .live,
    let new = allocate(size, alignment: 16, .malloc)
  else { return Core.fail() }
  copy(from: address, to: UInt(bitPattern: new), min(item.record.size, size))
  deallocate(address, Claim(call: .realloc))
  return new
}
