// ArenaAPI+Report.swift: questions about arenas: sizes, segments, whereabouts.
//
// They may be asked of the allocator's own arena too, which `keg_arena_find("heap")`
// names. A walk copies the segments in batches and calls the program with no lock
// held, so that its function may use the arena, and malloc.
//
// After vmem_size and vmem_whatis of NetBSD, vmem_walk of illumos.

import Base
import Keg
import Malloc
import Platform
import Synchronization
import Vmem

/// struct keg_arena_segment.
struct Segment {
  var start: UInt
  var size: UInt
  var offset: UInt
  var kind: UInt32
  var reserved: UInt32 = 0

  init(_ place: Whereabouts) {
    start = place.start
    size = place.size
    offset = place.offset
    kind = SegmentKind.of(place)
  }
}

/// enum keg_arena_kind.
private enum SegmentKind {
  static func of(_ place: Whereabouts) -> UInt32 {
    switch place.kind {
    case .staticSpan: return 1
    case .importedSpan: return 2
    case .free: return 4
    case .busy: return place.isCached ? 16 : 8
    case .withdrawn: return 32
    }
  }
}

/// enum keg_arena_what.
private enum SizeQuestion {
  static var allocated: UInt32 { 1 }
  static var free: UInt32 { 2 }
  static var largestFree: UInt32 { 4 }
}

@c public func keg_arena_size(_ handle: UnsafeMutableRawPointer?, _ what: UInt32) -> UInt {
  guard let record = liveRecord(handle) else { return 0 }
  var answer: UInt = 0
  _ = inSection {
    let arena = record.pointee.arena
    if what == SizeQuestion.largestFree {
      answer = arena.largestFree
      return
    }
    let sizes = arena.sizes
    if what & SizeQuestion.allocated != 0 { answer = sizes.inUse &- sizes.cached }
    if what & SizeQuestion.free != 0 {
      answer = answer &+ sizes.total &- sizes.inUse &+ sizes.cached
    }
  }
  return answer
}

@c public func keg_arena_stats(
  _ handle: UnsafeMutableRawPointer?, _ answer: UnsafeMutablePointer<UInt>?, _ answerBytes: UInt
) -> Int32 {
  guard let answer, let record = liveRecord(handle) else { return ErrorNumber.invalid }
  var fields = InlineArray<16, UInt>(repeating: 0)
  let result = inSection {
    let arena = record.pointee.arena
    let sizes = arena.sizes
    fields[0] = sizes.total
    fields[1] = sizes.inUse &- sizes.cached
    fields[2] = sizes.total &- sizes.inUse
    fields[3] = sizes.cached
    fields[4] = arena.largestFree
    fields[5] = arena.pointee.quantum
    fields[6] = UInt(bitPattern: sizes.spanCount)
    fields[7] = arena.tagCount
    fields[8] = fields[7] &* BoundaryTag.byteCount
    fields[9] = arena.bucketCount
    fields[10] = record.pointee.allocations.load(ordering: .relaxed)
    fields[11] = arena.cacheHits
    fields[12] = record.pointee.frees.load(ordering: .relaxed)
    fields[13] = record.pointee.failures.load(ordering: .relaxed)
    fields[14] = record.pointee.imports.load(ordering: .relaxed)
    fields[15] = record.pointee.releases.load(ordering: .relaxed)
  }
  if result != .done { return errorNumber(result, 0) }
  // A program compiled with an older header has a shorter struct.
  var index = 0
  while index < 16, UInt(bitPattern: index) &* 8 &+ 8 <= answerBytes {
    answer[index] = fields[index]
    index &+= 1
  }
  return 0
}

@c public func keg_arena_whatis(
  _ handle: UnsafeMutableRawPointer?, _ integer: UInt, _ answer: UnsafeMutableRawPointer?
) -> Int32 {
  guard let answer = answer?.assumingMemoryBound(to: Segment.self), let record = liveRecord(handle)
  else { return ErrorNumber.invalid }
  var error = ErrorNumber.noEntry
  let result = inSection {
    guard let place = record.pointee.arena.whatIs(integer) else { return }
    answer.initialize(to: Segment(place))
    error = 0
  }
  return errorNumber(result, error)
}

@c public func keg_arena_walk(
  _ handle: UnsafeMutableRawPointer?, _ kinds: UInt32,
  _ visit: (@convention(c) (UnsafeMutableRawPointer?, UnsafeRawPointer) -> Int32)?,
  _ argument: UnsafeMutableRawPointer?
) -> Int32 {
  guard let visit, let record = liveRecord(handle) else { return ErrorNumber.invalid }
  var cursor = WalkCursor()
  // As words: 32 values of six would be initialised one after the other, in 1 KiB of code.
  var words = InlineArray<192, UInt>(repeating: 0)
  return withUnsafeMutablePointer(to: &words[0]) { words in
    let batch = words.address.pointer(to: Whereabouts.self)
    while true {
      var count = 0
      let result = inSection { count = record.pointee.arena.copy(32, after: &cursor, to: batch) }
      if result != .done { return errorNumber(result, 0) }
      if count == 0 { return 0 }
      var index = 0
      while index < count {
        var segment = Segment(batch[index])
        if segment.kind & kinds != 0 {
          let answer = withUnsafePointer(to: &segment) { visit(argument, UnsafeRawPointer($0)) }
          if answer != 0 { return answer }
        }
        index &+= 1
      }
    }
  }
}

@c public func keg_arena_name(_ handle: UnsafeMutableRawPointer?) -> UnsafePointer<CChar>? {
  guard let record = liveRecord(handle) else { return nil }
  return UnsafePointer(record.name)
}

@c public func keg_arena_find(_ name: UnsafePointer<CChar>?) -> UnsafeMutableRawPointer? {
  guard let name else { return nil }
  var found: UnsafeMutablePointer<ArenaRecord>? = nil
  _ = inSection {
    guard let registry = makeRegistry() else { return }
    registryLock.pointee.lock()
    registry.pointee.arenas.forEach { record in
      if found == nil, record.hasName(name) { found = record }
    }
    registryLock.pointee.unlock()
  }
  return UnsafeMutableRawPointer(found)
}

extension UnsafeMutablePointer where Pointee == ArenaRecord {
  fileprivate func hasName(_ text: UnsafePointer<CChar>) -> Bool {
    var index = 0
    while index < 31, name[index] != 0, name[index] == text[index] { index &+= 1 }
    return index == 31 || name[index] == text[index]
  }
}
