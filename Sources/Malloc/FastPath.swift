// FastPath.swift: malloc and free as nearly every call runs them.
//
// No lock, no atomic, no call. 15 instructions for malloc of at most 1 KiB, 16
// for free; Tests/CodegenTests holds them as golden text. Everything that is not
// "the bin has an item" or "the bin has room" leaves by one call.
//
// Pop stores the new `top` before it reads the slot, push writes the slot before
// it stores the new `top`: each commits with one store, so a signal handler in
// between sees a bin that is right, and leaves it so if it frees what it
// allocates (docs/signals.md). The barrier emits nothing; it keeps that order.

import Base
import Pages
import Platform
import SizeClass
import Zone

/// The bin that serves requests of `size` bytes.
/// - Precondition: `size` is at most `SizeClass.largest`.
@inline(__always)
func fastBin(forSize size: UInt) -> UnsafeMutablePointer<Bin> {
  (keg_get_thread_bins() &+ keg_fast_bin_of_size(SizeClass.tableIndex(of: size)))
    .pointer(to: Bin.self)
}

/// Pops an item, or returns 0 when the bin is empty.
@inline(__always)
func pop(_ bin: UnsafeMutablePointer<Bin>) -> UInt {
  let top = bin.pointee.top
  if _slowPath(top == bin.pointee.low) { return 0 }
  bin.pointee.top = top &- 8
  keg_compiler_barrier()
  return (top &- 8).word
}

/// Pushes an item, or returns false when the bin is full.
@inline(__always)
package func push(_ item: UInt, _ bin: UnsafeMutablePointer<Bin>) -> Bool {
  let top = bin.pointee.top
  if _slowPath(top == bin.pointee.high) { return false }
  top.word = item
  keg_compiler_barrier()
  bin.pointee.top = top &+ 8
  return true
}

/// An item for at most 1 KiB, or what `slow` returns.
@inline(__always)
func fastMalloc(
  _ size: UInt, _ slow: (UInt) -> UnsafeMutableRawPointer?
) -> UnsafeMutableRawPointer? {
  if _fastPath(size <= SizeClass.smallLimit) {
    let bin = fastBin(forSize: size)
    let top = bin.pointee.top
    if _fastPath(top != bin.pointee.low) {
      bin.pointee.top = top &- 8
      keg_compiler_barrier()
      return UnsafeMutableRawPointer(bitPattern: (top &- 8).word)
    }
  }
  return slow(size)
}

/// malloc(3).
@c public func keg_malloc(_ size: UInt) -> UnsafeMutableRawPointer? {
  fastMalloc(size, mallocMedium)
}

/// operator new(std::size_t).
@c public func keg_new(_ size: UInt) -> UnsafeMutableRawPointer? {
  fastMalloc(size) {
    // Emits nothing: without it the compiler makes one function of this and malloc, which
    // both jump to.
    keg_compiler_barrier()
    return slowNew($0)
  }
}

@inline(never)
private func slowNew(_ size: UInt) -> UnsafeMutableRawPointer? {
  mallocMedium(size) ?? keg_new_failed(size)
}

/// Requests above 1 KiB that have a class, and everything else.
@inline(never)
func mallocMedium(_ size: UInt) -> UnsafeMutableRawPointer? {
  if _fastPath(size <= SizeClass.largest) {
    let item = pop(fastBin(forSize: size))
    if _fastPath(item != 0) { return UnsafeMutableRawPointer(bitPattern: item) }
  }
  return slowMalloc(size)
}

/// free(3).
@c public func keg_free(_ pointer: UnsafeMutableRawPointer?) {
  let address = UInt(bitPattern: pointer)
  let map = keg_fast_page_map()
  let index = (address &- map) &>> Chunk.shift
  if _fastPath(index < keg_fast_chunk_count()) {
    let offset = UInt((map &+ index &* 2).pointer(to: UInt16.self).pointee)
    let bin = (keg_get_thread_bins() &+ offset).pointer(to: Bin.self)
    if _fastPath(push(address, bin)) { return }
  }
  slowFree(address)
}
