// DebugSurface.swift: the C functions that programs call; names are aliases of these
// (see the Makefile). Whatever call allocates or frees says so in the record.

import Base
import DebugPlatform
import Keg
import Malloc
import Platform
import Synchronization

/// Whether this allocation is one of those that are not checked: option `sample`.
@inline(__always)
private func isSkipped() -> Bool {
  let thread = keg_debug_thread()
  thread.pointee.countdown &-= 1
  return _slowPath(thread.pointee.countdown > 0)
}

/// malloc(3). All but every `sample`th allocation are the core's.
@c public func keg_debug_malloc(_ size: UInt) -> UnsafeMutableRawPointer? {
  if isSkipped() { return keg_malloc(size) }
  return allocate(size, alignment: 16, .malloc)
}

/// operator new and new[], ordinary and nothrow: nil when there is no memory.
@c public func keg_debug_new(_ size: UInt) -> UnsafeMutableRawPointer? {
  if isSkipped() { return keg_malloc(size) }
  return allocate(size, alignment: 16, .new)
}

@c public func keg_debug_new_array(_ size: UInt) -> UnsafeMutableRawPointer? {
  if isSkipped() { return keg_malloc(size) }
  return allocate(size, alignment: 16, .newArray)
}

@c public func keg_debug_aligned_new(_ alignment: UInt, _ size: UInt) -> UnsafeMutableRawPointer? {
  allocate(size, alignment: max(alignment, 16), .alignedNew)
}

@c public func keg_debug_aligned_new_array(_ alignment: UInt, _ size: UInt)
  -> UnsafeMutableRawPointer?
{
  allocate(size, alignment: max(alignment, 16), .alignedNewArray)
}

/// calloc(3).
@c public func keg_debug_calloc(_ count: UInt, _ size: UInt) -> UnsafeMutableRawPointer? {
  let (bytes, overflow) = count.multipliedReportingOverflow(by: size)
  if overflow { return Core.fail() }
  if isSkipped() { return keg_calloc(count, size) }
  return allocate(bytes, alignment: 16, .malloc, zeroed: true)
}

private func allocateAligned(_ alignment: UInt, _ size: UInt) -> UnsafeMutableRawPointer? {
  if isSkipped() { return keg_memalign(alignment, size) }
  return allocate(size, alignment: max(alignment, 16), .memalign)
}

/// posix_memalign(3): returns the error and leaves `result` and errno alone.
@c public func keg_debug_posix_memalign(
  _ result: UnsafeMutablePointer<UnsafeMutableRawPointer?>, _ alignment: UInt, _ size: UInt
) -> Int32 {
  if !alignment.isPowerOfTwo || alignment < 8 { return 22 /* EINVAL */ }
  let saved = keg_get_errno()
  guard let block = allocateAligned(alignment, size) else {
    keg_set_errno(saved)
    return 12 /* ENOMEM */
  }
  result.pointee = block
  return 0
}

/// aligned_alloc(3) and memalign(3).
@c public func keg_debug_aligned_alloc(_ alignment: UInt, _ size: UInt) -> UnsafeMutableRawPointer? {
  if !alignment.isPowerOfTwo {
    keg_set_errno(22 /* EINVAL */)
    return nil
  }
  return allocateAligned(alignment, size)
}

/// valloc(3).
@c public func keg_debug_valloc(_ size: UInt) -> UnsafeMutableRawPointer? {
  allocateAligned(4096, size)
}

/// pvalloc(3): whole OS pages.
@c public func keg_debug_pvalloc(_ size: UInt) -> UnsafeMutableRawPointer? {
  if size > Core.greatest { return Core.fail() }
  return allocateAligned(4096, max(size, 1).roundedUp(to: 4096))
}

// MARK: - Freeing

@c public func keg_debug_free(_ pointer: UnsafeMutableRawPointer?) {
  // Checked items of a sample lie in slabs that the core's fast path does not know.
  if _slowPath(keg_debug_is_sampling()), Core.giveSlotFast(UInt(bitPattern: pointer)) { return }
  deallocate(UInt(bitPattern: pointer), Claim(call: .free))
}

@c public func keg_debug_free_sized(_ pointer: UnsafeMutableRawPointer?, _ size: UInt) {
  deallocate(UInt(bitPattern: pointer), Claim(call: .freeSized, size: size))
}

@c public func keg_debug_free_aligned_sized(
  _ pointer: UnsafeMutableRawPointer?, _ alignment: UInt, _ size: UInt
) {
  deallocate(
    UInt(bitPattern: pointer), Claim(call: .freeAlignedSized, size: size, alignment: alignment))
}

@c public func keg_debug_delete(_ pointer: UnsafeMutableRawPointer?) {
  deallocate(UInt(bitPattern: pointer), Claim(call: .delete))
}

@c public func keg_debug_delete_array(_ pointer: UnsafeMutableRawPointer?) {
  if keg_program_delete(pointer, true) { return }
  deallocate(UInt(bitPattern: pointer), Claim(call: .deleteArray))
}

@c public func keg_debug_delete_sized(_ pointer: UnsafeMutableRawPointer?, _ size: UInt) {
  if keg_program_delete(pointer, false) { return }
  deallocate(UInt(bitPattern: pointer), Claim(call: .delete, size: size))
}

@c public func keg_debug_delete_array_sized(_ pointer: UnsafeMutableRawPointer?, _ size: UInt) {
  if keg_program_delete(pointer, true) { return }
  deallocate(UInt(bitPattern: pointer), Claim(call: .deleteArray, size: size))
}

@c public func keg_debug_delete_aligned(_ pointer: UnsafeMutableRawPointer?, _ alignment: UInt) {
  deallocate(UInt(bitPattern: pointer), Claim(call: .delete, alignment: alignment))
}

@c public func keg_debug_delete_array_aligned(
  _ pointer: UnsafeMutableRawPointer?, _ alignment: UInt
) {
  if keg_program_delete_aligned(pointer, alignment, true) { return }
  deallocate(UInt(bitPattern: pointer), Claim(call: .deleteArray, alignment: alignment))
}

@c public func keg_debug_delete_sized_aligned(
  _ pointer: UnsafeMutableRawPointer?, _ size: UInt, _ alignment: UInt
) {
  if keg_program_delete_aligned(pointer, alignment, false) { return }
  deallocate(UInt(bitPattern: pointer), Claim(call: .delete, size: size, alignment: alignment))
}

@c public func keg_debug_delete_array_sized_aligned(
  _ pointer: UnsafeMutableRawPointer?, _ size: UInt, _ alignment: UInt
) {
  if keg_program_delete_aligned(pointer, alignment, true) { return }
  deallocate(UInt(bitPattern: pointer), Claim(call: .deleteArray, size: size, alignment: alignment))
}

// MARK: - Others

/// malloc_usable_size(3): exactly what was asked for, so that who uses more is caught.
@c public func keg_debug_usable_size(_ pointer: UnsafeMutableRawPointer?) -> UInt {
  let address = UInt(bitPattern: pointer)
  if address == 0 { return 0 }
  switch place(of: address) {
  case .item(let item) where item.user == address && item.record.state == .live:
    return item.record.size
  case .item(let item):
    guard case .straight = enterDebug() else { return 0 }
    reportBadPointer(address, item, false)
    leaveDebug()
    return 0
  case .unchecked, .emergency:
    return keg_usable_size(pointer)
  case .outside where Core.option(.deepBind) == DeepBindMode.keep && Core.isForeignBlock(address):
    return keg_usable_size(pointer)
  default:
    guard case .straight = enterDebug() else { return 0 }
    reportBadPointer(address, nil, false)
    leaveDebug()
    return 0
  }
}

/// reallocarray(3).
@c public func keg_debug_reallocarray(
  _ pointer: UnsafeMutableRawPointer?, _ count: UInt, _ size: UInt
) -> UnsafeMutableRawPointer? {
  let (bytes, overflow) = count.multipliedReportingOverflow(by: size)
  return overflow ? Core.fail() : keg_debug_realloc(pointer, bytes)
}
