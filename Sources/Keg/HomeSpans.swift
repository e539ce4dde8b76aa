// HomeSpans.swift: the spans of slabs that were freed last, by thread.
//
//   home 0 ── |1 chunk|2|3|4| ⇄ span ⇄ span        the first sixteen threads have one
//   home 1 ── |1 chunk|2|3|4|                      each, later ones share
//   …
//
// Of memory that a thread has just freed, its processor has the lines: a slab that
// another thread makes of it starts with a miss for every line. So the spans of small
// slabs wait here for the thread that freed them, those of a whole working set if need
// be. Before a thread takes over a slab in use, or the heap touches new memory, it takes
// any of them: a home costs nobody memory. The older half goes to the arena at each tick.
//
// A process of one thread has no homes.
//
// Lock: each home has one of rank `heap`, taken one at a time, none under it.

import Base
import Pages
import Platform
import Synchronization
import Vmem

package struct HomeSpans: ~Copyable {
  package let lock = Lock(rank: .heap)
  /// By size in chunks; the newest first.
  fileprivate var spans = InlineArray<4, List<BoundaryTag>>(repeating: List())

  static var count: UInt { 16 }
  static var bytes: UInt { UInt(MemoryLayout<HomeSpans>.stride).roundedUp(to: 128) }
  /// Of `Heap.homes`: how many are in use; the rest is their address.
  static var countMask: UInt { 63 }
  /// Larger spans are not kept, in bytes.
  static var largest: UInt { 4 &<< Chunk.shift }

  fileprivate init() {}
}

extension UnsafeMutablePointer where Pointee == HomeSpans {
  /// - Parameters:
  ///   - index: the size in chunks, less 1.
  ///   - newest: whether the span freed last is wanted; else the first.
  @inline(never)
  fileprivate func take(_ index: Int, newest: Bool) -> TagPointer? {
    pointee.lock.lock()
    let span = newest ? pointee.spans[index].head : pointee.spans[index].tail
    if let span { pointee.spans[index].remove(span) }
    pointee.lock.unlock()
    return span
  }
}

/// A size in chunks, less 1.
@inline(__always)
private func index(of size: UInt) -> Int { Int(bitPattern: size &>> Chunk.shift &- 1) }

extension UnsafeMutablePointer where Pointee == Heap {
  /// Home `index`, or nil: so many are not in use.
  @inline(never)
  package func home(_ index: UInt) -> UnsafeMutablePointer<HomeSpans>? {
    let homes = pointee.homes.load(ordering: .acquiring)
    if index >= homes & HomeSpans.countMask { return nil }
    return (homes & ~HomeSpans.countMask &+ index &* HomeSpans.bytes).pointer(to: HomeSpans.self)
  }

  /// Which home is the calling thread's; none is that of a thread without a number.
  @inline(__always)
  private var homeHere: UInt {
    let number = keg_thread_number()
    return number == 0 ? .max : (number &- 1) & (HomeSpans.count &- 1)
  }

  /// A span for a slab.
  @_optimize(size)
  func takeSlabSpan(_ size: UInt, alignment: UInt, from source: SpanSource) -> TagPointer? {
    var span: TagPointer? = nil
    if source != .recent, size <= HomeSpans.largest {
      span = home(homeHere)?.take(index(of: size), newest: true)
    }
    if let span = span ?? takeRecent(size) ?? (source == .freed ? takeAnyHome(size) : nil) {
      if span.pointee.start & (alignment &- 1) == 0 { return span }
      freeSpan(span)
    }
    return source == .any ? allocateSpan(size, alignment: alignment) : nil
  }

  /// Frees the span of a slab: kept for the next slab of its size where there is room.
  func freeSlabSpan(_ span: TagPointer) {
    span.pointee.isDirty = true
    if !giveHome(span), !giveRecent(span) { freeSpan(span) }
  }

  /// Keeps the span of a slab for this thread. The second thread of a process makes the
  /// homes.
  /// - Returns: false when there is none.
  private func giveHome(_ span: TagPointer) -> Bool {
    let size = span.pointee.size
    if size > HomeSpans.largest { return false }
    let number = homeHere
    guard let home = home(number) ?? openHome(number) else { return false }
    home.pointee.lock.lock()
    home.pointee.spans[index(of: size)].prepend(span)
    home.pointee.lock.unlock()
    return true
  }

  /// Makes homes up to this one usable. The first thread alone, 0, needs none.
  @_optimize(size)
  @inline(never)
  private func openHome(_ number: UInt) -> UnsafeMutablePointer<HomeSpans>? {
    if number &+ 1 < 2 { return nil }
    pointee.lock.lock()
    var homes = pointee.homes.load(ordering: .relaxed)
    if homes == 0 {
      let bytes = Int(HomeSpans.count &* HomeSpans.bytes)
      homes = UInt(bitPattern: pointee.metadata.room(for: UInt8.self, count: bytes))
    }
    while homes != 0, homes & HomeSpans.countMask <= number {
      let place = homes & ~HomeSpans.countMask &+ (homes & HomeSpans.countMask) &* HomeSpans.bytes
      place.pointer(to: HomeSpans.self).initialize(to: HomeSpans())
      homes &+= 1
    }
    pointee.homes.store(homes, ordering: .releasing)
    pointee.lock.unlock()
    return home(number)
  }

  /// A span of this size of any home: the one that was freed first.
  @_optimize(size)
  @inline(never)
  func takeAnyHome(_ size: UInt) -> TagPointer? {
    if size > HomeSpans.largest { return nil }
    var number: UInt = 0
    while let home = home(number) {
      if let span = home.take(index(of: size), newest: false) { return span }
      number &+= 1
    }
    return nil
  }

  /// Hands spans of the homes to the arena.
  /// - Parameter onlyHalf: the older half of each home's.
  /// - Returns: whether there was any.
  @_optimize(size)
  func flushHomes(onlyHalf: Bool) -> Bool {
    var found = false
    var number: UInt = 0
    while let home = home(number / 4) {
      let index = Int(bitPattern: number & 3)
      home.pointee.lock.lock()
      let count = home.pointee.spans[index].count
      home.pointee.lock.unlock()
      var left = onlyHalf ? (count &+ 1) / 2 : count
      while left > 0, let span = home.take(index, newest: false) {
        freeSpan(span)
        found = true
        left &-= 1
      }
      number &+= 1
    }
    return found
  }

  /// Bytes of all homes' spans, a moment old.
  @_optimize(size)
  @inline(never)
  func countHomeBytes() -> UInt {
    var chunks: UInt = 0
    var number: UInt = 0
    while let home = home(number / 4) {
      let size = number & 3 &+ 1
      home.pointee.lock.lock()
      chunks &+= UInt(bitPattern: home.pointee.spans[Int(bitPattern: size &- 1)].count) &* size
      home.pointee.lock.unlock()
      number &+= 1
    }
    return chunks &<< Chunk.shift
  }
}
