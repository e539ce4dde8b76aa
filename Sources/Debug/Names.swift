// Names.swift: what an address in machine code is called, found in this process.
//
//   address ─▶ the loader: module, base ─┬▶ the module's file: .symtab, if the file is
//                                        │  there and the one that was loaded
//             or what dlclose took         └▶ else .dynsym, as the loader mapped it
//
// No allocation, no stdio, no lock that can hang, no child process, no /proc: it works
// in a signal handler of a dying program. The file is read in pieces by pread and
// closed again. Lines and inlined functions are the business of `kegmalloc debug`.
//
// Symbols lie unsorted, and a look-up reads them all; so the last ones are kept.

import Base
import DebugPlatform
import Platform

/// What is known of an address in machine code.
struct FrameDescription {
  /// The path of the module and the address in it as it was linked.
  var module: UnsafePointer<CChar>? = nil
  var moduleOffset: UInt = 0
  /// As it is linked: C++ and Swift names are mangled.
  var function: UnsafePointer<CChar>? = nil
  var functionOffset: UInt = 0
}

/// A name's bytes, NUL at the end.
typealias NameBuffer = InlineArray<512, UInt8>

/// Calls `body` with what is known of `pc`. Strings are valid inside `body` only.
/// - Parameter pc: an address as stacks have it, inside the instruction.
func describeFrame(_ pc: UInt, _ body: (FrameDescription) -> Void) {
  var module = keg_module()
  guard keg_find_module(pc, &module) || keg_find_unloaded(pc, &module) else {
    return body(FrameDescription())
  }
  var description = FrameDescription()
  description.module = path(of: module)
  description.moduleOffset = pc &- module.base
  var name = NameBuffer(repeating: 0)
  if let symbol = findSymbol(description.moduleOffset, module, description.module, &name) {
    description.functionOffset = description.moduleOffset &- symbol.value
    name.span.withUnsafeBufferPointer { bytes in
      description.function = UnsafeRawPointer(bytes.baseAddress)?.assumingMemoryBound(to: CChar.self)
      body(description)
    }
  } else {
    body(description)
  }
}

/// The path a module was loaded from; the loader has none for the executable.
private func path(of module: keg_module) -> UnsafePointer<CChar> {
  if let path = module.path, path[0] != 0 { return path }
  return keg_executable_path()
}

/// A symbol as found: where its name lies in its table of strings.
struct Symbol {
  var value: UInt = 0
  var size: UInt = 0
  /// Offset into the strings.
  var name: UInt = 0
}

/// One that was found before. Used under `Stacks.nameLock`.
struct KnownSymbol {
  var base: UInt = 0
  var offset: UInt = 0
  var symbol = Symbol()
  /// File offset of the strings, 0: they are the module's own, in memory.
  var strings: UInt = 0
}

private func findSymbol(
  _ offset: UInt, _ module: keg_module, _ path: UnsafePointer<CChar>?, _ name: inout NameBuffer
) -> Symbol? {
  let isLocked = stacksAreUp && stacks.pointee.nameLock.tryLock()
  defer { if isLocked { stacks.pointee.nameLock.unlock() } }
  let place = isLocked ? knownSymbol(module.base &+ offset) : nil
  if let place, place.pointee.base == module.base, place.pointee.offset == offset,
    place.pointee.symbol.value != 0
  {
    if read(place.pointee.symbol, place.pointee.strings, module, path, &name) {
      return place.pointee.symbol
    }
  }
  var known = KnownSymbol(base: module.base, offset: offset)
  let file = ELFFile(path, loadedAt: module.start)
  if file.isOpen, let found = file.findSymbol(offset) {
    known.symbol = found
    known.strings = file.strings
  }
  file.close()
  if known.symbol.name == 0, let found = DynamicSymbols(module).find(offset) {
    known.symbol = found
  }
  guard known.symbol.name != 0,
    read(known.symbol, known.strings, module, path, &name)
  else { return nil }
  if let place { place.pointee = known }
  return known.symbol
}

private func knownSymbol(_ pc: UInt) -> UnsafeMutablePointer<KnownSymbol>? {
  guard let table = stacks.pointee.knownSymbols else { return nil }
  return table + Int(bitPattern: (pc ^ pc >> 9) & UInt(bitPattern: knownSymbolCount &- 1))
}

/// Reads a symbol's name from the file or from memory. False: there is none.
private func read(
  _ symbol: Symbol, _ strings: UInt, _ module: keg_module, _ path: UnsafePointer<CChar>?,
  _ name: inout NameBuffer
) -> Bool {
  if strings != 0 {
    let file = ELFFile(path, loadedAt: module.start)
    defer { file.close() }
    return file.isOpen && file.readName(strings &+ symbol.name, &name)
  }
  let start = DynamicSymbols(module).strings &+ symbol.name
  var i = 0
  while i < 511 {
    let byte = (start &+ UInt(bitPattern: i)).pointer(to: UInt8.self).pointee
    name[i] = byte
    if byte == 0 { return i > 0 }
    i &+= 1
  }
  name[511] = 0
  return true
}

var knownSymbolCount: Int { 1024 }
