// RecordMemory.swift: arrays of records, one for each slab that holds checked items.
//
// Arrays are cut from metadata and come back when their slab goes, to a free list of
// their size: by 64 bytes up to 16 KiB, by pages above.
//
//   slab goes ─▶ DebugState.returnedRecords ─▶ free list ─▶ slab is made
//                no lock: the core may hold its own, which a fork takes after ours
//
// Lock: DebugState.recordLock; metadata's is taken under it.

import Base
import DebugPlatform
import Keg
import Malloc
import Pages
import Platform
import Synchronization

struct RecordMemory: ~Copyable {
  /// Free arrays, linked through their first word.
  private var small: InlineArray<257, UInt> = InlineArray(repeating: 0)
  private var large: InlineArray<1025, UInt> = InlineArray(repeating: 0)

  private static var smallLimit: UInt { 16384 }

  init() {}

  /// Bytes for a number of records, rounded up so that arrays can be reused.
  private static func byteCount(_ count: UInt) -> UInt {
    let bytes = count &* Record.byteCount
    return bytes <= smallLimit ? bytes.roundedUp(to: 64) : bytes.roundedUp(to: 4096)
  }

  mutating func take(_ count: UInt) -> UInt {
    let bytes = Self.byteCount(count)
    if bytes <= Self.smallLimit {
      let i = Int(bitPattern: bytes / 64)
      if small[i] != 0 {
        let array = small[i]
        small[i] = array.word
        clear(array, bytes)
        return array
      }
    } else if bytes / 4096 <= 1024 {
      let i = Int(bitPattern: bytes / 4096)
      if large[i] != 0 {
        let array = large[i]
        large[i] = array.word
        clear(array, bytes)
        return array
      }
    }
    let metadata = Core.heap.pointee.metadata
    return metadata.pointee.lock.withLock { metadata.pointee.cut(bytes, alignment: 64) }
  }

  mutating func give(_ array: UInt, _ count: UInt) {
    let bytes = Self.byteCount(count)
    if bytes <= Self.smallLimit {
      let i = Int(bitPattern: bytes / 64)
      array.word = small[i]
      small[i] = array
    } else if bytes / 4096 <= 1024 {
      let i = Int(bitPattern: bytes / 4096)
      array.word = large[i]
      large[i] = array
    }
  }

  private func clear(_ address: UInt, _ bytes: UInt) {
    UnsafeMutableRawPointer(bitPattern: address).unsafelyUnwrapped  // an array of ours
      .initializeMemory(as: UInt8.self, repeating: 0, count: Int(bitPattern: bytes))
  }
}

extension UnsafeMutablePointer where Pointee == Slab {
  /// Gives the slab its records, unless it has them. False: no memory.
  @inline(never)
  func makeRecords() -> Bool {
    debug.pointee.recordLock.lock()
    defer { debug.pointee.recordLock.unlock() }
    if pointee.records != 0 { return true }
    takeReturnedRecords()
    let array = debug.pointee.recordMemory.take(pointee.keg.pointee.layout.itemCount)
    if array == 0 { return false }
    keg_compiler_barrier()
    pointee.records = array
    return true
  }
}

/// Puts arrays that came back into the free lists. Called with the lock held.
private func takeReturnedRecords() {
  if debug.pointee.returnedRecords.load(ordering: .relaxed) == 0 { return }
  debug.pointee.returnedRecords.takeLinked { debug.pointee.recordMemory.give($0, ($0 &+ 8).word) }
}

private func returnRecords(_ array: UInt, _ count: UInt) {
  (array &+ 8).word = count
  debug.pointee.returnedRecords.pushLinked(array)
}

/// The core gives a slab back: its items are checked a last time, unless this is the
/// tick of a thread that a fork does not wait for: a report needs locks which that has.
func forgetRecords(_ slab: UnsafeMutablePointer<Slab>) {
  let isTick = keg_debug_thread().pointee.state < KEG_DEBUG_INSIDE
  if !isTick || !keg_debug_is_forking() { checkLast(slab) }
  let records = slab.pointee.records
  slab.pointee.records = 0
  returnRecords(records, slab.pointee.keg.pointee.layout.itemCount)
}

private func checkLast(_ slab: UnsafeMutablePointer<Slab>) {
  let count = slab.pointee.keg.pointee.layout.itemCount
  let stride = slab.pointee.keg.pointee.layout.stride
  var i: UInt = 0
  while i < count {
    let record = slab.record(i)
    if record.state == .free || record.state == .freed {
      checkFree(
        Item(
          record: record, slot: slab.pointee.base &+ i &* stride, capacity: stride, slab: slab))
    }
    i &+= 1
  }
  if isClean(slab) { checkUntouched(slab) }
}
