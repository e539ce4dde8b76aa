// Control.swift: keg_ctl, and the limit of the process.
//
//   zone.<name>.<leaf>     limit     mtbf
//
// The leaf is found from the end, for a zone's name may have dots of its own.

import Base
import Keg
import Malloc
import Platform
import Zone

func lookInside(_ body: () -> Void) { _ = inSection(body) }

@c public func keg_set_limit(_ bytes: UInt) -> UInt {
  var old: UInt = 0
  _ = inSection {
    old = sharedHeap.limitBytes
    sharedHeap.limitBytes = bytes
  }
  return old
}

@c public func keg_ctl(
  _ name: UnsafePointer<CChar>?, _ old: UnsafeMutableRawPointer?,
  _ oldSize: UnsafeMutablePointer<UInt>?, _ value: UnsafeRawPointer?, _ valueSize: UInt
) -> Int32 {
  guard let name else { return 22 /* EINVAL */ }
  if old != nil && oldSize == nil { return 22 }
  var new: UInt64? = nil
  if let value {
    if valueSize != 8 { return 22 }
    new = value.loadUnaligned(as: UInt64.self)
  }
  if matches(name, "limit") { return controlLimit(old, oldSize, new) }
  if matches(name, "mtbf") { return controlFailures(old, oldSize, new) }
  guard let (handle, leaf) = resolve(name) else { return 2 /* ENOENT */ }
  if new != nil, !leaf.isWritable { return 1 /* EPERM */ }
  if leaf.isText {
    var copier = Copier(to: old, room: oldSize?.pointee ?? 0)
    copier.write(handle, leaf)
    oldSize?.pointee = copier.needed
    return old != nil && copier.needed > copier.room ? 22 : 0
  }
  let error = store(handle.value(of: leaf), old, oldSize)
  if error != 0 { return error }
  guard let new else { return 0 }
  return handle.set(leaf, new)
}

private func store(
  _ value: UInt64, _ old: UnsafeMutableRawPointer?, _ oldSize: UnsafeMutablePointer<UInt>?
) -> Int32 {
  let room = oldSize?.pointee ?? 0
  oldSize?.pointee = 8
  guard let old else { return 0 }
  if room < 8 { return 22 }
  old.storeBytes(of: value, as: UInt64.self)
  return 0
}

private func controlLimit(
  _ old: UnsafeMutableRawPointer?, _ oldSize: UnsafeMutablePointer<UInt>?, _ new: UInt64?
) -> Int32 {
  var now: UInt = 0
  _ = inSection { now = sharedHeap.limitBytes }
  let error = store(UInt64(now), old, oldSize)
  if error == 0, let new { _ = keg_set_limit(UInt(new)) }
  return error
}

private func controlFailures(
  _ old: UnsafeMutableRawPointer?, _ oldSize: UnsafeMutablePointer<UInt>?, _ new: UInt64?
) -> Int32 {
  let error = store(UInt64(processMeanFailures), old, oldSize)
  guard error == 0, let new else { return error }
  return new > UInt64(UInt32.max) ? 22 : keg_set_mtbf(nil, UInt32(new))
}

extension Leaf {
  fileprivate var isWritable: Bool {
    self == .limitMax || self == .bucketMax || self == .meanFailures
  }
}

extension UnsafeMutablePointer where Pointee == Handle {
  fileprivate func set(_ leaf: Leaf, _ value: UInt64) -> Int32 {
    let zone = UnsafeMutableRawPointer(self)
    switch leaf {
    case .limitMax: _ = keg_zone_set_max(zone, UInt(value))
    case .bucketMax: keg_zone_set_maxcache(zone, UInt(value))
    case .meanFailures: return value > UInt64(UInt32.max) ? 22 : keg_set_mtbf(zone, UInt32(value))
    default: return 1
    }
    return 0
  }
}

// MARK: - Names

private func length(_ name: UnsafePointer<CChar>) -> Int {
  var count = 0
  while name[count] != 0 { count &+= 1 }
  return count
}

private func matches(_ name: UnsafePointer<CChar>, _ key: StaticString) -> Bool {
  length(name) == key.utf8CodeUnitCount && ends(name, length(name), with: key)
}

private func ends(_ name: UnsafePointer<CChar>, _ count: Int, with key: StaticString) -> Bool {
  let bytes = key.utf8CodeUnitCount
  if bytes > count { return false }
  var i = 0
  while i < bytes {
    if UInt8(bitPattern: name[count &- bytes &+ i]) != key.utf8Start[i] { return false }
    i &+= 1
  }
  return true
}

/// The zone and the leaf of `zone.<name>.<leaf>`; the longest leaf that fits wins.
private func resolve(_ name: UnsafePointer<CChar>) -> (HandlePointer, Leaf)? {
  let count = length(name)
  if count < 7 || !ends(name, 5, with: "zone.") { return nil }
  var best: Leaf? = nil
  var bytes = 0
  var i = 0
  while i < Leaf.count {
    let leaf = Leaf(rawValue: i).unsafelyUnwrapped  // consecutive raw values
    let length = leaf.key.utf8CodeUnitCount
    if length > bytes, count > length &+ 6, ends(name, count, with: leaf.key),
      name[count &- length &- 1] == CChar(0x2E)
    {
      best = leaf
      bytes = length
    }
    i &+= 1
  }
  guard let best else { return nil }
  let last = count &- bytes &- 1
  if last &- 5 >= Int(Handle.nameBytes) { return nil }
  var zone = InlineArray<40, CChar>(repeating: 0)
  i = 5
  while i < last {
    zone[i &- 5] = name[i]
    i &+= 1
  }
  let found = zone.span.withUnsafeBufferPointer { buffer in
    // Exactly so first: `a-b` and `a_b` may both exist.
    buffer.baseAddress.flatMapZone {
      findZone($0, orAsLeaf: false) ?? findZone($0, orAsLeaf: true)
    }
  }
  guard let found else { return nil }
  return (found, best)
}

extension Optional where Wrapped == UnsafePointer<CChar> {
  @inline(__always)
  fileprivate func flatMapZone(_ body: (UnsafePointer<CChar>) -> HandlePointer?) -> HandlePointer? {
    if let self { return body(self) }
    return nil
  }
}

/// Copies text into the caller's memory, as far as there is room.
private struct Copier {
  let memory: UnsafeMutableRawPointer?
  let room: UInt
  /// With the NUL.
  private(set) var needed: UInt = 0

  init(to memory: UnsafeMutableRawPointer?, room: UInt) {
    self.memory = memory
    self.room = room
  }

  mutating func write(_ handle: HandlePointer, _ leaf: Leaf) {
    withUnsafeMutablePointer(to: &self) { copier in
      var text = Text(
        to: { context, bytes, count in
          let copier = UInt(bitPattern: context).pointer(to: Copier.self)
          var i = 0
          while i < count {
            copier.pointee.add(UInt8(bitPattern: bytes?[i] ?? 0))
            i &+= 1
          }
        }, context: UnsafeMutableRawPointer(copier))
      handle.write(leaf, to: &text)
      text.flush()
      copier.pointee.add(0)
    }
  }

  private mutating func add(_ byte: UInt8) {
    if needed < room { memory?.storeBytes(of: byte, toByteOffset: Int(bitPattern: needed), as: UInt8.self) }
    needed &+= 1
  }
}
