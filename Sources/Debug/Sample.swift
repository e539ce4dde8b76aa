// Sample.swift: slots for the few allocations that are checked in production (D04).
//
//   malloc ─▶ countdown ─▶ not yet: the core's fast path, three instructions later
//                     └──▶ now: a slot of a keg of our own
//   free ─▶ the core's fast path; a chunk of ours has no bin there and leaves it
//
// UMA's divisor picks items by their place in memory, so that allocation and free
// agree. Kegs of our own do the same: what lies in them is checked, nothing else is.

import Base
import DebugPlatform
import Keg
import Malloc
import Pages
import Platform
import SizeClass

/// Kegs by size class, made when they are first needed.
struct SampleKegs: ~Copyable {
  private var kegs: InlineArray<82, UInt> = InlineArray(repeating: 0)

  init() {}

  /// Called with the sample lock held. nil: no memory.
  mutating func keg(_ index: UInt) -> UnsafeMutablePointer<Keg>? {
    let i = Int(bitPattern: index)
    if kegs[i] != 0 { return kegs[i].pointer(to: Keg.self) }
    let metadata = Core.heap.pointee.metadata
    guard let keg = metadata.room(for: Keg.self), let name = metadata.room(for: CChar.self, count: 64)
    else { return nil }
    let size = SizeClass.size(of: index)
    writeName(size, name)
    keg.initialize(
      to: Keg(
        name: UnsafePointer(name), itemSize: size, alignment: min(size, 16), bin: 0,
        heap: Core.heap, hasMargin: size <= greatestShared))
    kegs[i] = keg.address
    return keg
  }

  func forEach(_ body: (UnsafeMutablePointer<Keg>) -> Void) {
    var i = 0
    while i < 82 {
      if kegs[i] != 0 { body(kegs[i].pointer(to: Keg.self)) }
      i &+= 1
    }
  }

  private func writeName(_ size: UInt, _ name: UnsafeMutablePointer<CChar>) {
    let prefix: StaticString = "sample-"
    var used = 0
    while used < prefix.utf8CodeUnitCount {
      name[used] = CChar(bitPattern: prefix.utf8Start[used])
      used &+= 1
    }
    var power: UInt = 10000
    while power > 1, size / power == 0 { power /= 10 }
    while power > 0 {
      name[used] = CChar(truncatingIfNeeded: 48 &+ size / power % 10)
      used &+= 1
      power /= 10
    }
    name[used] = 0
  }
}

/// A slot for a checked item, or 0.
@inline(never)
func takeSampleSlot(_ bytes: UInt, _ alignment: UInt) -> UInt {
  if max(bytes, alignment) > SizeClass.largest { return 0 }
  // The first class that holds it and whose items have the alignment.
  var index = SizeClass.index(of: max(bytes, alignment))
  while !SizeClass.size(of: index).isMultiple(ofPowerOfTwo: alignment) {
    index &+= 1
    if index > SizeClass.count { return 0 }
  }
  let keg = debug.pointee.sampleLock.withLock { debug.pointee.sampleKegs.keg(index) }
  guard let keg else { return 0 }
  var slot: UInt = 0
  let count = withUnsafeMutablePointer(to: &slot) { keg.take(1, into: $0) }
  return count == 1 ? slot : 0
}

/// Around fork: the locks of the kegs.
func forEachSampleLock(_ body: (borrowing Lock) -> Void) {
  body(debug.pointee.sampleLock)
  debug.pointee.sampleKegs.forEach { body($0.pointee.lock) }
}
