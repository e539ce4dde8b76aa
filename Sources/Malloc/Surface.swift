// Surface.swift: calloc and the aligned calls; the other names are in shim/Exports.

import Base
import Keg
import Platform
import SizeClass
import Vmem
import Zone

/// calloc(3). Fresh pages of large blocks are known zero and are not written.
///
/// Small items are zeroed here, a few words at a time: a call of memset would be most
/// of the work. Whatever needs a call is left by one, so nothing is saved before.
@c public func keg_calloc(_ count: UInt, _ size: UInt) -> UnsafeMutableRawPointer? {
  let (bytes, overflow) = count.multipliedReportingOverflow(by: size)
  if _fastPath(!overflow) {
    if _fastPath(bytes <= 128) {
      let bin = fastBin(forSize: bytes)
      let top = bin.pointee.top
      if _fastPath(top != bin.pointee.low) {
        bin.pointee.top = top &- 8
        keg_compiler_barrier()
        let item = UnsafeMutableRawPointer(bitPattern: (top &- 8).word)
        clear(UInt(bitPattern: item), bytes)
        return item
      }
    }
  }
  return callocSlow(count, size)
}

/// Zeroes an item of `bytes` bytes, at most 128. Items above 8 bytes are multiples of
/// 16: two, four or eight stores from both ends, which may overlap.
@inline(__always)
private func clear(_ item: UInt, _ bytes: UInt) {
  if bytes <= 8 {
    item.word = 0
    return
  }
  let last = item &+ (bytes &- 1) & ~15
  clearPair(item)
  clearPair(last)
  if bytes > 32 {
    clearPair(item &+ 16)
    clearPair(last &- 16)
  }
  if bytes > 64 {
    clearPair(item &+ 32)
    clearPair(item &+ 48)
    clearPair(last &- 32)
    clearPair(last &- 48)
  }
}

@inline(__always)
private func clearPair(_ address: UInt) {
  address.pointer(to: SIMD2<UInt64>.self).pointee = SIMD2(repeating: 0)
}

@inline(never)
private func callocSlow(_ count: UInt, _ size: UInt) -> UnsafeMutableRawPointer? {
  let (bytes, overflow) = count.multipliedReportingOverflow(by: size)
  if overflow { return outOfMemory() }
  if bytes > SizeClass.largest {
    let block = allocateLarge(bytes, zeroed: true)
    return block == 0 ? outOfMemory() : UnsafeMutableRawPointer(bitPattern: block)
  }
  guard let item = fastMalloc(bytes, mallocMedium) else { return nil }
  item.initializeMemory(as: UInt8.self, repeating: 0, count: Int(bitPattern: bytes))
  return item
}

/// memalign(3): at least `size` bytes at a multiple of `alignment`.
/// - Parameter alignment: a power of two, which the caller has checked.
@c public func keg_memalign(_ alignment: UInt, _ size: UInt) -> UnsafeMutableRawPointer? {
  if _slowPath(size > SizeClass.largest || alignment > SizeClass.largest) {
    return memalignLarge(alignment, size)
  }
  return fastMalloc(SizeClass.size(size, alignedTo: alignment), mallocMedium)
}

@inline(never)
private func memalignLarge(_ alignment: UInt, _ size: UInt) -> UnsafeMutableRawPointer? {
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
  if _slowPath(size > SizeClass.smallLimit || alignment > SizeClass.smallLimit) {
    return posixMemalignSlow(result, alignment, size)
  }
  let item = pop(
    (keg_get_thread_bins() &+ keg_fast_bin_of_size(
      SizeClass.size(size, alignedTo: alignment) &>> 3)).pointer(to: Bin.self))
  if _slowPath(item == 0) { return posixMemalignSlow(result, alignment, size) }
  result.pointee = UnsafeMutableRawPointer(bitPattern: item)
  return 0
}

@inline(never)
private func posixMemalignSlow(
  _ result: UnsafeMutablePointer<UnsafeMutableRawPointer?>, _ alignment: UInt, _ size: UInt
) -> Int32 {
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
