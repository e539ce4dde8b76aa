// LeakMaps.swift: the lines of /proc/self/maps, parsed byte by byte as they are read.
//
//   7f0a1c000000-7f0a1c021000 rw-p 00000000 00:00 0        [heap]
//   start        end          perm offset   device inode   name
//
// Pure: text goes in, one mapping after the other comes out.

import Base

/// What lies behind a mapping, as far as the leak check cares.
package enum MappingName: UInt8 {
  /// Nothing: anonymous memory, shared or not.
  case none = 0
  /// The stack of the main thread.
  case stack
  /// The C library, the loader, the C++ library: what they hold is no business of ours.
  case system
  /// A device, whose memory may do things when it is read; or a kernel page.
  case untouchable
  /// Anything else.
  case other
}

package struct Mapping {
  package var start: UInt = 0
  package var end: UInt = 0
  package var isReadable = false
  package var isWritable = false
  package var isShared = false
  package var inode: UInt = 0
  package var name: MappingName = .none

  package init() {}
}

package struct MapsParser {
  private enum Field { case start, end, permissions, offset, device, inode, name }
  private var field = Field.start
  private var mapping = Mapping()
  private var permission = 0
  private var pathLength = 0
  /// What follows the last slash of the name, so far; and the first bytes of all of it.
  private var base: InlineArray<16, UInt8> = InlineArray(repeating: 0)
  private var baseLength = 0
  private var head: InlineArray<16, UInt8> = InlineArray(repeating: 0)

  package init() {}

  /// Takes the next byte; calls `body` at the end of each line.
  @inline(__always)
  package mutating func take(_ byte: UInt8, _ body: (Mapping) -> Void) {
    if byte == UInt8(ascii: "\n") {
      mapping.name = classify()
      body(mapping)
      self = MapsParser()
      return
    }
    switch field {
    case .start:
      if byte == UInt8(ascii: "-") { field = .end } else { mapping.start = mapping.start &<< 4 | digit(byte) }
    case .end:
      if byte == UInt8(ascii: " ") { field = .permissions } else { mapping.end = mapping.end &<< 4 | digit(byte) }
    case .permissions:
      if byte == UInt8(ascii: " ") { field = .offset }
      if permission == 0 { mapping.isReadable = byte == UInt8(ascii: "r") }
      if permission == 1 { mapping.isWritable = byte == UInt8(ascii: "w") }
      if permission == 3 { mapping.isShared = byte == UInt8(ascii: "s") }
      permission &+= 1
    case .offset:
      if byte == UInt8(ascii: " ") { field = .device }
    case .device:
      if byte == UInt8(ascii: " ") { field = .inode }
    case .inode:
      if byte == UInt8(ascii: " ") { field = .name } else { mapping.inode = mapping.inode &* 10 &+ digit(byte) }
    case .name:
      if byte == UInt8(ascii: " "), pathLength == 0 { return }
      takeName(byte)
    }
  }

  private mutating func takeName(_ byte: UInt8) {
    if pathLength < 16 { head[pathLength] = byte }
    pathLength &+= 1
    if byte == UInt8(ascii: "/") {
      baseLength = 0
    } else {
      if baseLength < 16 { base[baseLength] = byte }
      baseLength &+= 1
    }
  }

  @inline(__always)
  private func digit(_ byte: UInt8) -> UInt { UInt(byte <= 57 ? byte &- 48 : byte &- 87) }

  private func classify() -> MappingName {
    if pathLength == 0 { return .none }
    if headIs("[stack]") { return .stack }
    if headIs("[v") { return .untouchable }
    if headIs("[anon:") || headIs("[heap]") || headIs("/dev/zero") || headIs("/dev/shm/")
      || headIs("/memfd:")
    {
      return .none
    }
    if headIs("/dev/") { return .untouchable }
    return isSystemLibrary ? .system : .other
  }

  private func headIs(_ text: StaticString) -> Bool {
    pathLength >= text.utf8CodeUnitCount && starts(head, text)
  }

  private var isSystemLibrary: Bool {
    withBase("libc.so") || withBase("libc-2.") || withBase("ld-linux") || withBase("ld-2.")
      || withBase("libstdc++.so") || withBase("libgcc_s.so") || withBase("libunwind")
      || withBase("libpthread") || withBase("libdl.so") || withBase("libdl-2.")
  }

  private func withBase(_ text: StaticString) -> Bool {
    baseLength >= text.utf8CodeUnitCount && starts(base, text)
  }

  @inline(__always)
  private func starts(_ bytes: borrowing InlineArray<16, UInt8>, _ text: StaticString) -> Bool {
    var i = 0
    while i < text.utf8CodeUnitCount {
      if bytes[i] != text.utf8Start[i] { return false }
      i &+= 1
    }
    return true
  }
}

/// The class of a module by its path, for where there is no /proc.
package func mappingName(path: UnsafePointer<CChar>) -> MappingName {
  var parser = MapsParser()
  var name = MappingName.none
  ("0-0 rw-p 0 0:0 1 " as StaticString).withUTF8Buffer {
    for byte in $0 { parser.take(byte) { name = $0.name } }
  }
  var i = 0
  while path[i] != 0, i < 4096 {
    parser.take(UInt8(bitPattern: path[i])) { name = $0.name }
    i &+= 1
  }
  parser.take(10) { name = $0.name }
  return name == .none ? .other : name
}
