// Clear.swift: zeros for calloc in a large block whose memory was used before.
//
//   piece of 1 MiB   |x·······|·····x··|········|xxxxxxxx|     looked at: 8 pages of each
//                     purge    purge    purge    fill
//
// A table that is nearly empty touches few of its pages. To fill it with zeros would
// make all of them resident, for a program that will not touch them either; so what
// is nearly all zero goes back to the kernel. To ask the kernel which pages are there
// takes a call that strict seccomp filters forbid; to look at a page that is not there
// maps the kernel's page of zeros, which is no memory of ours.
//
// A wrong guess, zeros that a program has written itself, costs a page fault for each
// page that it uses again.

import Base
import Keg
import Pages

/// Bytes that are kept or given back together.
private var clearedPiece: UInt { 1 &<< 20 }
/// Pages of a piece that are looked at, and how many of them may be in use.
private var pagesLookedAt: UInt { 8 }
private var mostPagesInUse: UInt { 2 }

/// Makes `size` bytes at `start`, a multiple of a chunk, zero.
@inline(never)
func clear(_ start: UInt, _ size: UInt, _ heap: UnsafeMutablePointer<Heap>) {
  let source = heap.pointee.reservation.source
  let end = start &+ size
  var at = start
  while at < end {
    // A run of pieces that are alike.
    let isSparse = isNearlyZero(at, end)
    var next = at
    repeat { next = min(next &+ clearedPiece, end) } while next < end && isNearlyZero(next, end) == isSparse
    if !isSparse || !source.purge(at, next &- at) {
      UnsafeMutableRawPointer(bitPattern: at).unsafelyUnwrapped  // a block's
        .initializeMemory(as: UInt8.self, repeating: 0, count: Int(bitPattern: next &- at))
    }
    at = next
  }
}

/// Whether nearly all pages of the piece at `start` seem to be zero; false for a piece
/// that `end` cuts short.
private func isNearlyZero(_ start: UInt, _ end: UInt) -> Bool {
  if end &- start < clearedPiece { return false }
  var inUse: UInt = 0
  var at = start
  while at < start &+ clearedPiece {
    if !isZero(at) { inUse &+= 1 }
    if inUse > mostPagesInUse { return false }
    at = at &+ clearedPiece / pagesLookedAt
  }
  return true
}

/// Whether the 4 KiB at `page` are zero.
private func isZero(_ page: UInt) -> Bool {
  var at = page
  while at < page &+ 4096 {
    if at.word | (at &+ 8).word | (at &+ 16).word | (at &+ 24).word != 0 { return false }
    at = at &+ 32
  }
  return true
}
