// Registry.swift: what the program has made: its zones and arenas.
//
// The registry lies in metadata, reached through Malloc's `LayerAbove`, and is made
// at the first call of the API, so that a program that makes none of these calls
// pays nothing. It answers for them to fork, the tick and keg_reclaim.
//
//   LayerAbove.state ──▶ Registry ──▶ arenas ──▶ heap ⇄ ids ⇄ ports …
//                                └──▶ freeArenas, kept with their hash tables
//
// Lock: Malloc's registry lock (rank zoneList), for making it and for its lists.

import Base
import Keg
import Malloc
import Pages
import Platform
import Synchronization
import Vmem

struct Registry: ~Copyable {
  /// In the order of their making; the heap's own arena is the first.
  var arenas: List<ArenaRecord>
  /// Records of destroyed arenas.
  var freeArenas: List<ArenaRecord>
  /// When the hash tables of the arenas were last fitted, in nanoseconds.
  var lastRehash: UInt64
  var zones: ZoneTable

  init() {
    arenas = List()
    freeArenas = List()
    lastRehash = 0
    zones = ZoneTable()
  }
}

/// The registry; nil until `makeRegistry`.
var registry: UnsafeMutablePointer<Registry>? {
  UnsafeMutablePointer(bitPattern: layerAbove.pointee.state.load(ordering: .acquiring))
}

/// The registry, made if need be. Called in a section, without the registry lock.
/// - Returns: nil when there is no memory.
func makeRegistry() -> UnsafeMutablePointer<Registry>? {
  registryLock.pointee.lock()
  defer { registryLock.pointee.unlock() }
  if let registry { return registry }
  let metadata = sharedHeap.pointee.metadata
  guard let made = metadata.room(for: Registry.self), let heap = metadata.room(for: ArenaRecord.self)
  else { return nil }
  made.initialize(to: Registry())
  guard made.zones.open(metadata) else { return nil }
  heap.initialize(to: ArenaRecord(arena: sharedHeap.pointee.arena, isOurs: true))
  heap.setName(literal: "heap")
  made.pointee.arenas.append(heap)
  connectZones()
  layerAbove.pointee.forEachLock = { forEachLock(LockStage(rawValue: $0), LockAction(rawValue: $1)) }
  layerAbove.pointee.tick = { tick($0) }
  layerAbove.pointee.reclaim = { reclaim($0) }
  layerAbove.pointee.state.store(made.address, ordering: .releasing)
  return made
}

/// Fork: nothing is made or destroyed meanwhile, since the registry's lock is held.
private func forEachLock(_ stage: LockStage?, _ action: LockAction?) {
  guard let registry, let stage, let action else { return }
  registry.zones.forEachLock(stage, action)
  guard stage == .arenas else { return }
  registry.pointee.arenas.forEach { record in
    if record.pointee.isOurs { return }
    switch action {
    case .take: record.pointee.arena.lockForFork()
    case .drop: record.pointee.arena.unlockAfterFork()
    case .reset:
      record.pointee.arena.resetAfterFork()
      record.pointee.pins = 0
      record.pointee.isClosing = false
    }
  }
}

/// The zones' working sets; fits the hash tables to what is in them, every 10 s (A07).
private func tick(_ now: UInt64) {
  tickZones()
  guard let registry, now &- registry.pointee.lastRehash >= 10_000_000_000 else { return }
  guard registryLock.pointee.tryLock() else { return }
  registry.pointee.lastRehash = now
  registry.pointee.arenas.forEach { if !$0.pointee.isOurs { _ = $0.pointee.arena.rehash() } }
  registryLock.pointee.unlock()
}

/// Gives back what zones cache; drains the quantum caches at the levels that drain zones' buckets (A14).
private func reclaim(_ level: Int32) {
  reclaimZones(level)
  if level < 2 { return }
  forEachArena { record in
    if !record.pointee.isOurs { _ = inSection { _ = record.pointee.arena.reap() } }
  }
}

/// Calls `body`, outside the allocator, with every arena; those that are made or
/// destroyed meanwhile may or may not be among them.
func forEachArena(_ body: (UnsafeMutablePointer<ArenaRecord>) -> Void) {
  var here: UnsafeMutablePointer<ArenaRecord>? = nil
  while true {
    let former = here
    _ = inSection {
      guard let registry else { return }
      registryLock.pointee.lock()
      here = former != nil ? former.unsafelyUnwrapped.pointee.next : registry.pointee.arenas.head
      while let closing = here, closing.pointee.isClosing { here = closing.pointee.next }
      // A pinned record stays on the list: its place is not lost.
      former?.pointee.pins &-= 1
      here?.pointee.pins &+= 1
      registryLock.pointee.unlock()
    }
    guard let here, here != former else { return }
    body(here)
  }
}

extension UnsafeMutablePointer where Pointee == Registry {
  var zones: UnsafeMutablePointer<ZoneTable> {
    withUnsafeMutablePointer(to: &pointee.zones) { $0 }
  }
}
