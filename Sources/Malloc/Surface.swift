// Surface.swift: calloc and the aligned calls; the other names are in shim/Exports.

import Base
import Keg
import Platform
import SizeClass
import Vmem
import Zone

/// calloc(3). Fresh pages are known zero and are not written.
@c public func keg_calloc(_ count: UInt, _ size: UInt) -> UnsafeMutableRawPointer? {
  let (bytes, overflow) = count.multipliedReportingOverflow(by: size)
  if _slowPath(overflow) { return outOfMemory() }
  if _fastPath(bytes <= SizeClass.largest) {
    guard let item = keg_malloc(bytes) else { return nil }
    item.initializeMemory(as: UInt8.self, repeating: 0, count: Int(bitPattern: bytes))
    return item
  }
  let block = allocateLarge(bytes, zeroed: true)
  return block == 0 ? outOfMemory() : UnsafeMutableRawPointer(bitPattern: block)
}

/// memalign(3): at least `size` bytes at a multiple of `alignment`.
/// - Parameter alignment: a power of two, which the caller has checked.
@c public func keg_memalign(_ alignment: UInt, _ size: UInt) -> UnsafeMutableRawPointer? {
  if alignment <= 16, alignment <= 8 || size > 8 { return keg_malloc(size) }
  if let index = SizeClass.index(of: size, alignment: alignment) {
    let item = pop(
      (keg_get_thread_bins() &+ keg_fast_bin_of_size(
        SizeClass.tableIndex(of: SizeClass.size(of: index)))).pointer(to: Bin.self))
    if _fastPath(item != 0) { return UnsafeMutableRawPointer(bitPattern: item) }
    let slow = allocate(class: index)
    return slow == 0 ? outOfMemory() : UnsafeMutableRawPointer(bitPattern: slow)
  }
  let block = allocateLarge(max(size, 1), alignment: alignment)
  return block == 0 ? outOfMemory() : UnsafeMutableRawPointer(bitPattern: block)
}

/// The alignment a caller gave: whether it is a power of two.
@inline(__always)
private func isValid(alignment: UInt) -> Bool { alignment.isPowerOfTwo }

private var invalidArgument: Int32 { 22 /* EINVAL */ }

@inline(never)
private func badAlignment() -> UnsafeMutableRawPointer? {
  keg_set_errno(invalidArgument)
  return nil
}

/// posix_memalign(3): returns the error and leaves `result` and errno alone (G20).
@c public func keg_posix_memalign(
  _ result: UnsafeMutablePointer<UnsafeMutableRawPointer?>, _ alignment: UInt, _ size: UInt
) -> Int32 {
  if !isValid(alignment: alignment) || alignment < 8 { return invalidArgument }
  let saved = keg_get_errno()
  guard let block = keg_memalign(alignment, size) else {
    keg_set_errno(saved)
    return 12 /* ENOMEM */
  }
  result.pointee = block
  return 0
}

/// aligned_alloc(3) and memalign(3).
@c public func keg_aligned_alloc(_ alignment: UInt, _ size: UInt) -> UnsafeMutableRawPointer? {
  isValid(alignment: alignment) ? keg_memalign(alignment, size) : badAlignment()
}

/// Bytes of an OS page, known before boot too.
private var pageSize: UInt { isRunning ? process.pointee.pageSize : keg_auxiliary(6 /* AT_PAGESZ */) }

/// valloc(3).
@c public func keg_valloc(_ size: UInt) -> UnsafeMutableRawPointer? {
  keg_memalign(pageSize, size)
}

/// pvalloc(3): whole OS pages.
@c public func keg_pvalloc(_ size: UInt) -> UnsafeMutableRawPointer? {
  if size > greatestRequest { return outOfMemory() }
  return keg_memalign(pageSize, max(size, 1).roundedUp(to: pageSize))
}

/// reallocarray(3).
@c public func keg_reallocarray(
  _ pointer: UnsafeMutableRawPointer?, _ count: UInt, _ size: UInt
) -> UnsafeMutableRawPointer? {
  let (bytes, overflow) = count.multipliedReportingOverflow(by: size)
  return overflow ? outOfMemory() : keg_realloc(pointer, bytes)
}
