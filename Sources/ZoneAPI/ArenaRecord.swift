// ArenaRecord.swift: what the API keeps beside an arena of the program.
//
// The handle that the program holds is the address of a record. Records are never
// unmapped, so a handle of a destroyed arena is noticed; one that points elsewhere is
// not. Nothing here looks at what the arena's integers may stand for.
//
//   handle ──▶ record ──▶ arena ──importSpan──▶ arena of `source`
//                                         └───▶ the program's function
//
// Lock: `next`, `previous`, `pins`, `children` and `source` are the registry's;
// the counters are atomic; the rest is written before the handle is given out.

import Base
import Keg
import Malloc
import Synchronization
import Vmem

/// keg_arena_import_fn: stores the start of a new span; 0 or an error number.
typealias ImportFunction =
  @convention(c) (
    _ argument: UnsafeMutableRawPointer?, _ size: UInt, _ start: UnsafeMutablePointer<UInt>
  ) -> Int32

/// keg_arena_release_fn: takes a whole span back.
typealias ReleaseFunction =
  @convention(c) (_ argument: UnsafeMutableRawPointer?, _ start: UInt, _ size: UInt) -> Void

struct ArenaRecord: Linked, ~Copyable {
  var next: UnsafeMutablePointer<ArenaRecord>?
  var previous: UnsafeMutablePointer<ArenaRecord>?
  /// `alive` from create to destroy.
  private var mark: UInt
  let arena: UnsafeMutablePointer<Arena>
  /// The allocator's own arena: the program may look, and change nothing.
  let isOurs: Bool
  /// Who iterates over all arenas and stands here now; keeps the record in its list.
  var pins: Int
  /// Is being destroyed: nobody is to stand here. Registry lock.
  var isClosing = false
  /// Arenas that import from this one.
  var children: Int
  var source: UnsafeMutablePointer<ArenaRecord>?
  var importFunction: ImportFunction?
  var releaseFunction: ReleaseFunction?
  var argument: UnsafeMutableRawPointer?
  // Written by any thread, read for statistics: relaxed.
  let allocations = Atomic<UInt>(0)
  let frees = Atomic<UInt>(0)
  let failures = Atomic<UInt>(0)
  let imports = Atomic<UInt>(0)
  let releases = Atomic<UInt>(0)
  var nameBytes: InlineArray<32, CChar>

  private static var alive: UInt { 0x6B65_675F_6172_656E }

  init(arena: UnsafeMutablePointer<Arena>, isOurs: Bool) {
    next = nil
    previous = nil
    mark = ArenaRecord.alive
    self.arena = arena
    self.isOurs = isOurs
    pins = 0
    children = 0
    source = nil
    importFunction = nil
    releaseFunction = nil
    argument = nil
    nameBytes = InlineArray(repeating: 0)
  }

  var isAlive: Bool { mark == ArenaRecord.alive }
  mutating func die() { mark = 0 }
}

extension UnsafeMutablePointer where Pointee == ArenaRecord {
  /// NUL-terminated, at most 31 bytes.
  var name: UnsafeMutablePointer<CChar> {
    UnsafeMutableRawPointer(withUnsafeMutablePointer(to: &pointee.nameBytes) { $0 })
      .assumingMemoryBound(to: CChar.self)
  }

  /// Copies a name; what is longer is cut off.
  func setName(_ text: UnsafePointer<CChar>) {
    var index = 0
    while index < 31, text[index] != 0 {
      name[index] = text[index]
      index &+= 1
    }
    name[index] = 0
  }

  func setName(literal text: StaticString) {
    text.withUTF8Buffer { bytes in
      if let start = bytes.baseAddress {
        setName(UnsafeRawPointer(start).assumingMemoryBound(to: CChar.self))
      }
    }
  }

}

// MARK: - Where spans come from

extension ArenaRecord {
  /// Imports through the program's function, outside the allocator.
  static var importThroughFunction: Arena.Import {
    { source, size, _, _ in
      let record = UInt(bitPattern: source).pointer(to: ArenaRecord.self)
      guard let importFunction = record.pointee.importFunction else { return UInt.max }
      let argument = record.pointee.argument
      var start = UInt.max
      var error: Int32 = 0
      outsideSection { error = importFunction(argument, size, &start) }
      if error != 0 { return UInt.max }
      _ = record.pointee.imports.wrappingAdd(1, ordering: .relaxed)
      return start
    }
  }

  static var releaseThroughFunction: Arena.Release {
    { source, start, size, _, _ in
      let record = UInt(bitPattern: source).pointer(to: ArenaRecord.self)
      guard let releaseFunction = record.pointee.releaseFunction else { return }
      let argument = record.pointee.argument
      _ = record.pointee.releases.wrappingAdd(1, ordering: .relaxed)
      outsideSection { releaseFunction(argument, start, size) }
    }
  }

  static var importFromSource: Arena.Import {
    { source, size, actualSize, isDirty in
      let record = UInt(bitPattern: source).pointer(to: ArenaRecord.self)
      guard let parent = record.pointee.source else { return UInt.max }
      let start = importSpan(
        from: parent.pointee.arena, size, record.pointee.arena.pointee.quantum, actualSize, isDirty)
      if start == Arena.none { return start }
      _ = record.pointee.imports.wrappingAdd(1, ordering: .relaxed)
      _ = parent.pointee.allocations.wrappingAdd(1, ordering: .relaxed)
      return start
    }
  }

  static var releaseToSource: Arena.Release {
    { source, start, size, isDirty, stamp in
      let record = UInt(bitPattern: source).pointer(to: ArenaRecord.self)
      guard let parent = record.pointee.source else { return }
      _ = record.pointee.releases.wrappingAdd(1, ordering: .relaxed)
      _ = parent.pointee.frees.wrappingAdd(1, ordering: .relaxed)
      Arena.releaseToArena(UnsafeMutableRawPointer(parent.pointee.arena), start, size, isDirty, stamp)
    }
  }
}

/// Imports from an arena whose quantum may be smaller than the importer's.
private func importSpan(
  from source: UnsafeMutablePointer<Arena>, _ size: UInt, _ quantum: UInt,
  _ actualSize: UnsafeMutablePointer<UInt>, _ isDirty: UnsafeMutablePointer<Bool>
) -> UInt {
  if quantum <= source.pointee.quantum {
    return Arena.importFromArena(UnsafeMutableRawPointer(source), size, actualSize, isDirty)
  }
  guard let tag = source.allocate(size, alignment: quantum) else { return Arena.none }
  actualSize.pointee = tag.pointee.size
  return source.register(tag)
}
