// Registry.swift: what the program has made: its arenas.
//
// The registry lies in metadata, reached through Malloc's `LayerAbove`, and is made
// at the first call of the API, so that a program that makes none of these calls
// pays nothing. It answers for them to fork, the tick and keg_reclaim.
//
// Lock: Malloc's registry lock (rank zoneList), for making it and for its lists.

import Base
import Keg
import Malloc
import Pages
import Platform

struct Registry: ~Copyable {
  var placeholder: UInt = 0
}

/// The registry; nil until `makeRegistry`.
var registry: UnsafeMutablePointer<Registry>? {
  UnsafeMutablePointer(bitPattern: layerAbove.pointee.state)
}

/// The registry, made if need be. Called in a section, without the registry lock.
/// - Returns: nil when there is no memory.
func makeRegistry() -> UnsafeMutablePointer<Registry>? {
  registryLock.pointee.lock()
  defer { registryLock.pointee.unlock() }
  if let registry { return registry }
  guard let made = sharedHeap.pointee.metadata.room(for: Registry.self) else { return nil }
  made.initialize(to: Registry())
  layerAbove.pointee.state = made.address
  layerAbove.pointee.forEachLock = { forEachLock(LockStage(rawValue: $0), LockAction(rawValue: $1)) }
  return made
}

private func forEachLock(_ stage: LockStage?, _ action: LockAction?) {
}
