// Fixture.swift: metadata for the tests, with memory that can be made to run out.

import Base
import Pages
import TestSupport
import Vmem

/// A region of 64 MiB, aligned to its size. Its first page holds one word that
/// is not 0 when commits are to fail: a C function can find that from the
/// address alone, so tests run in parallel.
private let regionBytes: UInt = 64 << 20

private func failingSource() -> PageSource {
  var source = PageSource.shared()
  source.commit = { address, size in
    if address.roundedDown(to: 64 << 20).word != 0 { return false }
    return PageSource.kernel().commit(address, size)
  }
  return source
}

/// Metadata, a pool of tags, and arenas over them.
final class Fixture {
  let base: UInt
  let metadata: UnsafeMutablePointer<Metadata>
  let tags: UnsafeMutablePointer<Pool>

  init() {
    let kernel = PageSource.shared()
    let reserved = kernel.reserve(2 * regionBytes)
    base = reserved.roundedUp(to: regionBytes)
    if reserved == 0 || !kernel.commit(base, 4096) { die("test: no memory") }
    if base != reserved { _ = kernel.release(reserved, base - reserved) }
    metadata = .allocate(capacity: 1)
    metadata.initialize(
      to: Metadata(start: base + 4096, end: base + regionBytes, source: failingSource()))
    tags = .allocate(capacity: 1)
    tags.initialize(
      to: Pool(name: "tags", itemBytes: BoundaryTag.byteCount, metadata: metadata))
  }

  deinit {
    metadata.deallocate()
    tags.deallocate()
    _ = PageSource.shared().release(base, regionBytes)
  }

  /// A fixture for a test that does not outlive its process.
  static func immortal() -> Fixture {
    let fixture = Fixture()
    _ = Unmanaged.passRetained(fixture)
    return fixture
  }

  /// From now on no commit succeeds, and what was committed is used up.
  func failMetadata() {
    base.word = 1
    while tags.pointee.take() != 0 {}
    metadata.pointee.lock.lock()
    while metadata.pointee.cut(16, alignment: 16) != 0 {}
    metadata.pointee.lock.unlock()
  }

  /// From now on commits succeed again.
  func restoreMetadata() { base.word = 0 }

  func arena(
    quantum: UInt = 1, hashed: Bool = false, height: UInt = 0, cachedQuanta: UInt = 0,
    mergesSpans: Bool = false, importSpan: Arena.Import? = nil,
    releaseSpan: Arena.Release? = nil, source: UnsafeMutableRawPointer? = nil
  ) -> TestArena {
    let arena = UnsafeMutablePointer<Arena>.allocate(capacity: 1)
    arena.initialize(
      to: Arena(
        name: "test", quantum: quantum, tags: tags, hashMemory: hashed ? metadata : nil,
        height: height, cachedQuanta: cachedQuanta, mergesSpans: mergesSpans,
        importSpan: importSpan, releaseSpan: releaseSpan, source: source))
    return TestArena(pointer: arena)
  }
}

/// One segment as the tests compare it.
struct Piece: Equatable, CustomStringConvertible {
  let kind: BoundaryTag.Kind
  let start: UInt
  let size: UInt
  var description: String { "\(kind) \(start)+\(size)" }
}

/// The segments of an arena, without its spans.
func segments(_ arena: TestArena) -> [Piece] {
  var pieces: [Piece] = []
  arena.walk { tag in
    if !tag.pointee.isSpan {
      pieces.append(Piece(kind: tag.pointee.kind, start: tag.pointee.start, size: tag.pointee.size))
    }
  }
  return pieces
}

/// A source that hands out consecutive spans and counts.
struct CountingSource {
  var next: UInt
  var end: UInt
  /// Every span is at least this long.
  var grain: UInt
  /// Left free between two spans.
  var gap: UInt = 0
  var isDirty = false
  var imports = 0
  var releases = 0
  var releasedStart: UInt = 0
  var releasedSize: UInt = 0
  var releasedDirty = false
  var releasedStamp: UInt64 = 0

  static func make(_ value: CountingSource) -> UnsafeMutablePointer<CountingSource> {
    let source = UnsafeMutablePointer<CountingSource>.allocate(capacity: 1)
    source.initialize(to: value)
    return source
  }

  static var importSpan: Arena.Import {
    { source, size, actualSize, isDirty in
      let source = source!.assumingMemoryBound(to: CountingSource.self)
      let size = max(size, source.pointee.grain)
      guard size <= source.pointee.end - source.pointee.next else { return UInt.max }
      let start = source.pointee.next
      source.pointee.next += size + source.pointee.gap
      source.pointee.imports += 1
      actualSize.pointee = size
      isDirty.pointee = source.pointee.isDirty
      return start
    }
  }

  static var releaseSpan: Arena.Release {
    { source, start, size, isDirty, stamp in
      let source = source!.assumingMemoryBound(to: CountingSource.self)
      source.pointee.releases += 1
      source.pointee.releasedStart = start
      source.pointee.releasedSize = size
      source.pointee.releasedDirty = isDirty
      source.pointee.releasedStamp = stamp
    }
  }
}

/// SplitMix64 (Steele, Lea & Flood 2014): a seeded generator for random walks.
struct SeededGenerator: RandomNumberGenerator {
  var state: UInt64
  init(seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}

/// An arena as the test macros can take it: they copy what they call.
struct TestArena: @unchecked Sendable {
  let pointer: UnsafeMutablePointer<Arena>
  var raw: UnsafeMutableRawPointer { UnsafeMutableRawPointer(pointer) }

  func addSpan(_ start: UInt, _ size: UInt) -> Bool { pointer.addSpan(start, size) }
  func allocate(_ size: UInt) -> TagPointer? { pointer.allocate(size) }
  func allocate(
    _ size: UInt, alignment: UInt, phase: UInt = 0, nocross: UInt = 0, minimum: UInt = 0,
    maximum: UInt = .max, fit: Fit = .instant
  ) -> TagPointer? {
    pointer.allocate(
      size, alignment: alignment, phase: phase, nocross: nocross, minimum: minimum,
      maximum: maximum, fit: fit)
  }
  func free(_ tag: TagPointer, dirty: Bool, stamp: UInt64) {
    pointer.free(tag, dirty: dirty, stamp: stamp)
  }
  func allocateAddress(_ size: UInt) -> UInt { pointer.allocateAddress(size) }
  func free(address: UInt, size: UInt, dirty: Bool, stamp: UInt64) {
    pointer.free(address: address, size: size, dirty: dirty, stamp: stamp)
  }
  func find(address: UInt) -> TagPointer? { pointer.find(address: address) }
  func grow(_ tag: TagPointer, to size: UInt) -> Growth { pointer.grow(tag, to: size) }
  func shrink(_ tag: TagPointer, to size: UInt, dirty: Bool, stamp: UInt64) -> Bool {
    pointer.shrink(tag, to: size, dirty: dirty, stamp: stamp)
  }
  func withdrawDirty(notAfter time: UInt64, atMost limit: UInt) -> TagPointer? {
    pointer.withdrawDirty(notAfter: time, atMost: limit)
  }
  func returnPurged(_ tag: TagPointer, clean: Bool, stamp: UInt64) {
    pointer.returnPurged(tag, clean: clean, stamp: stamp)
  }
  func rehash() -> Bool { pointer.rehash() }
  func reap() -> Bool { pointer.reap() }
  func reserveTags(_ count: Int) -> Bool { pointer.reserveTags(count) }
  func walk(_ body: (TagPointer) -> Void) { pointer.walk(body) }
  func whatIs(_ address: UInt) -> Whereabouts? { pointer.whatIs(address) }
  func checkInvariants() { pointer.checkInvariants() }
  var sizes: ArenaSizes { pointer.sizes }
  var dirtyBytes: UInt { pointer.dirtyBytes }
  var tagCount: UInt { pointer.tagCount }
  var tagBytes: UInt { pointer.tagBytes }
  var bucketCount: UInt { pointer.bucketCount }
}
