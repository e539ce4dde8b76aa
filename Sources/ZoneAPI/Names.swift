// Names.swift: zones by name.
//
// Names are copied, and made unique as UMA makes them: `x`, `x_1`, `x_2`. The zones of
// malloc are `malloc-8` … `malloc-65536`; they get a handle when they are first asked for.
//
// Lock: the registry's.

import Base
import Keg
import Malloc
import Pages
import Platform
import SizeClass
import Zone

/// The most bytes of a name that the program gives.
private var longestName: Int { 31 }

/// Writes `name`, with a suffix if another zone has it. Called with the registry lock held.
func writeName(_ name: UnsafePointer<CChar>, _ handle: UInt, _ zones: ZoneTablePointer) {
  let place = Handle.name(at: handle)
  var length = 0
  while length < longestName, name[length] != 0 {
    place[length] = name[length]
    length &+= 1
  }
  place[length] = 0
  var suffix: UInt = 0
  while isTaken(UnsafePointer(place), zones) {
    suffix &+= 1
    var end = length
    place[end] = CChar(0x5F)
    end &+= 1
    var power: UInt = 1000
    while power > 1, suffix / power == 0 { power /= 10 }
    while power > 0 {
      place[end] = CChar(truncatingIfNeeded: 48 &+ suffix / power % 10)
      end &+= 1
      power /= 10
    }
    place[end] = 0
  }
}

private func isTaken(_ name: UnsafePointer<CChar>, _ zones: ZoneTablePointer) -> Bool {
  var number: UInt = 1
  while number < zones.top {
    if let other = zones.handle(number), equal(other.name, name, orAsLeaf: false) { return true }
    number &+= 1
  }
  return mallocClass(named: name) != nil
}

/// Whether two names are the same; as parts of a keg_ctl name `.`, `/`, `\`, `-` and
/// space are written `_`.
func equal(_ a: UnsafePointer<CChar>, _ b: UnsafePointer<CChar>, orAsLeaf: Bool) -> Bool {
  var i = 0
  while true {
    if a[i] != b[i], !orAsLeaf || leafCharacter(a[i]) != leafCharacter(b[i]) { return false }
    if a[i] == 0 { return true }
    i &+= 1
  }
}

private func leafCharacter(_ c: CChar) -> CChar {
  switch UInt8(bitPattern: c) {
  case 0x2E, 0x2F, 0x5C, 0x2D, 0x20: CChar(0x5F)
  default: c
  }
}

/// The size class whose zone has this name.
private func mallocClass(named name: UnsafePointer<CChar>) -> UInt? {
  var i = 0
  var isPrefix = true
  ("malloc-" as StaticString).withUTF8Buffer {
    while i < $0.count, isPrefix {
      let c = UInt8(bitPattern: leafCharacter(name[i]))
      isPrefix = c == UInt8(bitPattern: leafCharacter(CChar(bitPattern: $0[i])))
      i &+= 1
    }
  }
  if !isPrefix || name[i] == 0 { return nil }
  var size: UInt = 0
  while name[i] != 0 {
    let digit = UInt8(bitPattern: name[i]) &- 48
    if digit > 9 || size > SizeClass.largest { return nil }
    size = size &* 10 &+ UInt(digit)
    i &+= 1
  }
  if size == 0 || size > SizeClass.largest { return nil }
  let index = SizeClass.index(of: size)
  return SizeClass.size(of: index) == size ? index : nil
}

/// The zone of that name; nil: none.
func findZone(_ name: UnsafePointer<CChar>, orAsLeaf: Bool) -> HandlePointer? {
  var found: HandlePointer? = nil
  _ = inSection {
    guard let registry = makeRegistry() else { return }
    let zones = registry.zones
    registryLock.pointee.lock()
    var number: UInt = 1
    while number < zones.top, found == nil {
      if let other = zones.handle(number), equal(other.name, name, orAsLeaf: orAsLeaf) {
        found = other
      }
      number &+= 1
    }
    registryLock.pointee.unlock()
    if found == nil, let index = mallocClass(named: name) { found = mallocHandle(index, zones) }
  }
  return found
}

/// The handle of a zone of malloc, made if need be. In a section.
private func mallocHandle(_ index: UInt, _ zones: ZoneTablePointer) -> HandlePointer? {
  // Takes the registry lock itself.
  guard let zone = mallocZone(index) else { return nil }
  let slot = zones.ofMalloc(index)
  if slot.pointee != 0 { return slot.pointee.pointer(to: Handle.self) }
  let memory = zones.takeHandle()
  if memory == 0 { return nil }
  registryLock.pointee.lock()
  defer { registryLock.pointee.unlock() }
  // Of two threads one makes it; the other's memory stays unused.
  if slot.pointee != 0 { return slot.pointee.pointer(to: Handle.self) }
  let made = memory.pointer(to: Handle.self)
  made.initialize(to: Handle(zone: zone))
  made.pointee.flags = .ofMalloc
  made.pointee.state = .live
  made.pointee.entries = zone.pointee.startEntries
  slot.pointee = memory
  return made
}

@c public func keg_zone_find(_ name: UnsafePointer<CChar>?) -> UnsafeMutableRawPointer? {
  guard let name else { return failed(22 /* EINVAL */) }
  guard let found = findZone(name, orAsLeaf: false) else { return failed(2 /* ENOENT */) }
  return UnsafeMutableRawPointer(found)
}

@c public func keg_zone_name(_ zone: UnsafeMutableRawPointer) -> UnsafePointer<CChar> {
  handle(zone).check()
  return handle(zone).name
}

@c public func keg_zone_size(_ zone: UnsafeMutableRawPointer) -> UInt {
  handle(zone).check()
  return handle(zone).pointee.zone.pointee.itemSize
}
