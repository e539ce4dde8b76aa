// Realloc.swift: realloc(3), and what it asks of a block.

import Base
import Keg
import Pages
import Platform
import SizeClass
import Vmem

/// What lies at an address that a program passed to us.
enum Block {
  /// An item of a size class.
  case item(size: UInt)
  case large(TagPointer)
  case emergency(size: UInt)
  /// Memory of the C library's own heap.
  case foreign
}

/// Looks up a block that is in use. Dies when there is none at `address`.
/// - Parameter what: what to say of a wrong address.
func block(at address: UInt, _ what: StaticString) -> Block {
  guard let heap = process.pointee.heap, let map = heap.pageMap(for: address) else {
    if let size = emergencySize(address) { return .emergency(size: size) }
    if isForeign(address) { return .foreign }
    die(what, at: address, zone: nil)
  }
  switch map.owner(at: map.index(of: address)) {
  case .slab(let slab):
    let keg = slab.pointee.keg
    if case .interior = keg.state(of: address, in: slab) {
      die(what, at: address, zone: keg.pointee.name)
    }
    return .item(size: keg.pointee.layout.stride)
  case .span(let span) where span.pointee.start == address:
    return .large(span)
  case .emergency:
    if let size = emergencySize(address) { return .emergency(size: size) }
    die(what, at: address, zone: nil)
  default:
    die(what, at: address, zone: nil)
  }
}

/// malloc_usable_size(3).
@c public func keg_usable_size(_ pointer: UnsafeMutableRawPointer?) -> UInt {
  let address = UInt(bitPattern: pointer)
  if address == 0 { return 0 }
  switch block(at: address, "malloc_usable_size of an invalid pointer") {
  case .item(let size): return size
  case .large(let span): return span.pointee.payload
  case .emergency(let size): return size
  case .foreign: return keg_foreign_usable_size(pointer)
  }
}

/// realloc(3). As glibc, `realloc(p, 0)` frees and returns NULL.
@c public func keg_realloc(_ pointer: UnsafeMutableRawPointer?, _ size: UInt)
  -> UnsafeMutableRawPointer?
{
  guard let pointer else { return keg_malloc(size) }
  if size == 0 {
    keg_free(pointer)
    return nil
  }
  let address = UInt(bitPattern: pointer)
  let old: UInt
  switch block(at: address, "realloc of an invalid pointer") {
  case .item(let capacity):
    // In place while the block fits and at most half of it would be wasted.
    if size <= capacity, size > capacity / 2 || capacity <= 64 { return pointer }
    old = capacity
  case .large(let span):
    if size > SizeClass.largest, !wantsHeadroom(span, size), resizeLarge(span, to: size) {
      return pointer
    }
    return moveLarge(pointer, span, to: size)
  case .emergency(let capacity):
    if size <= capacity { return pointer }
    old = capacity
  case .foreign:
    return keg_foreign_realloc(pointer, Int(bitPattern: size))
  }
  guard let new = keg_malloc(size) else { return nil }
  new.copyMemory(from: pointer, byteCount: Int(bitPattern: min(old, size)))
  keg_free(pointer)
  return new
}

/// Whether a block should move to where it has headroom, although it might grow where
/// it is: once, while it is copied quickly.
private func wantsHeadroom(_ span: TagPointer, _ size: UInt) -> Bool {
  size >= UnsafeMutablePointer<Heap>.leastGrowing && size > span.pointee.size
    && span.pointee.touched == 0 && span.pointee.size < 1 &<< 22
}

/// Moves a large block that could not be resized where it is.
private func moveLarge(_ pointer: UnsafeMutableRawPointer, _ span: TagPointer, to size: UInt)
  -> UnsafeMutableRawPointer?
{
  let old = span.pointee.payload
  guard let new = size > old ? allocateLarger(size) : keg_malloc(size) else { return nil }
  let count = min(old, size)
  if count < largeCopy {
    new.copyMemory(from: pointer, byteCount: Int(bitPattern: count))
    keg_free(pointer)
  } else {
    freeLarge(UInt(bitPattern: pointer), span, dirty: !movePages(pointer, span, count, to: new))
  }
  return new
}

/// From here on a copy in pieces, each given back to the kernel when it is copied, so
/// that a block does not take twice its memory while it moves. In bytes.
private var largeCopy: UInt { 1 &<< 25 }
private var copyPiece: UInt { 1 &<< 20 }

/// Copies the first `count` bytes of a block and purges its span.
/// - Returns: whether all of it is known zero now.
private func movePages(
  _ pointer: UnsafeMutableRawPointer, _ span: TagPointer, _ count: UInt,
  to new: UnsafeMutableRawPointer
) -> Bool {
  let source = process.pointee.heap.unsafelyUnwrapped.pointee.reservation.source  // it has blocks
  var isClean = true
  var at: UInt = 0
  while at < count {
    let piece = min(copyPiece, count &- at)
    (new + Int(bitPattern: at)).copyMemory(
      from: pointer + Int(bitPattern: at), byteCount: Int(bitPattern: piece))
    if piece == copyPiece {
      isClean = source.purge(UInt(bitPattern: pointer) &+ at, piece) && isClean
      at &+= piece
    } else {
      break
    }
  }
  let end = span.pointee.touched == 0 ? span.pointee.size : span.pointee.touched
  return (at >= end || source.purge(span.pointee.start &+ at, end &- at)) && isClean
}

/// A block that was just grown will grow again. It gets headroom, or at least half of
/// its size more: address space that costs nothing until it is touched. Where it does
/// cost something, an eighth.
private func allocateLarger(_ size: UInt) -> UnsafeMutableRawPointer? {
  if size <= SizeClass.largest { return keg_malloc(size) }
  var new = allocateGrowing(size)
  if new != 0 { return UnsafeMutableRawPointer(bitPattern: new) }
  let isFree = process.pointee.heap?.headroomIsFree ?? false
  if size <= greatestRequest / 2 { new = allocateLarge(size &+ size / (isFree ? 2 : 8)) }
  if new == 0 { new = allocateLarge(size) }
  if new == 0 { return outOfMemory() }
  // A handler's block may be a mapping of its own, which no page map knows.
  if let heap = process.pointee.heap, let map = heap.pageMap(for: new),
    case .span(let span) = map.owner(at: map.index(of: new))
  {
    span.pointee.payload = size.roundedUp(to: process.pointee.pageSize)
  }
  return UnsafeMutableRawPointer(bitPattern: new)
}
