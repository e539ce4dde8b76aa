// NamesELF.swift: the two tables of symbols a module may have.
//
//   .symtab   all functions, static ones too; in the file only, gone when stripped
//   .dynsym   what the module offers to others; always in memory
//
// Layouts are those of the System V ABI, ELF-64: a symbol is 24 bytes, name (4),
// type (1), other (1), section (2), value (8), size (8).

import Base
import DebugPlatform
import Platform

/// The best symbol for an address: the last one that begins before it and holds it,
/// else the last one without a size before it, as assembly leaves them.
struct SymbolSearch {
  let offset: UInt
  private var holder = Symbol()
  private var label = Symbol()

  init(_ offset: UInt) { self.offset = offset }

  /// Considers the symbol that lies at `address`.
  @inline(__always)
  mutating func consider(_ address: UInt) {
    let entry = UnsafeRawPointer(bitPattern: address).unsafelyUnwrapped  // mapped by the caller
    let value = entry.loadUnaligned(fromByteOffset: 8, as: UInt.self)
    if value > offset || value == 0 { return }
    let kind = entry.loadUnaligned(fromByteOffset: 4, as: UInt8.self) & 15
    // Functions, also those chosen at load time; and labels without a type.
    guard kind == 2 || kind == 10 || kind == 0,
      entry.loadUnaligned(fromByteOffset: 6, as: UInt16.self) != 0
    else { return }
    let name = UInt(entry.loadUnaligned(as: UInt32.self))
    let size = entry.loadUnaligned(fromByteOffset: 16, as: UInt.self)
    let symbol = Symbol(value: value, size: size, name: name)
    if offset &- value < size {
      if value > holder.value { holder = symbol }
    } else if size == 0, value > label.value {
      label = symbol
    }
  }

  /// - Returns: nil when nothing was near: a label a megabyte away says nothing.
  var result: Symbol? {
    if holder.name != 0 { return holder }
    return label.name != 0 && offset &- label.value < 1 << 20 ? label : nil
  }
}

/// The dynamic symbols of a loaded module.
struct DynamicSymbols {
  private var symbols: UInt = 0
  private(set) var strings: UInt = 0
  private var hash: UInt = 0
  private var gnuHash: UInt = 0

  init(_ module: keg_module) {
    guard module.dynamic != 0 else { return }
    var entry = module.dynamic
    while entry.word != 0 {
      var value = (entry &+ 8).word
      // The loader has added the base, but where it may not write: in the vDSO.
      if value < module.base { value = value &+ module.base }
      switch entry.word {
      case 4: hash = value
      case 5: strings = value
      case 6: symbols = value
      case 0x6FFF_FEF5: gnuHash = value
      default: break
      }
      entry = entry &+ 16
    }
  }

  func find(_ offset: UInt) -> Symbol? {
    guard symbols != 0, strings != 0 else { return nil }
    var search = SymbolSearch(offset)
    let count = self.count
    var i: UInt = 1
    while i < count {
      search.consider(symbols &+ i &* 24)
      i &+= 1
    }
    return search.result
  }

  /// How many symbols there are, which only the hash tables know.
  private var count: UInt {
    if hash != 0 { return UInt(word32(hash &+ 4)) }
    guard gnuHash != 0 else { return 0 }
    let bucketCount = UInt(word32(gnuHash))
    let first = UInt(word32(gnuHash &+ 4))
    let buckets = gnuHash &+ 16 &+ UInt(word32(gnuHash &+ 8)) &* 8
    var last: UInt = 0
    var i: UInt = 0
    while i < bucketCount {
      last = max(last, UInt(word32(buckets &+ i &* 4)))
      i &+= 1
    }
    if last < first { return first }
    // The last chain ends at an odd word.
    while word32(buckets &+ bucketCount &* 4 &+ (last &- first) &* 4) & 1 == 0 { last &+= 1 }
    return last &+ 1
  }

  private func word32(_ address: UInt) -> UInt32 { address.pointer(to: UInt32.self).pointee }
}

/// The file a module was loaded from, open for a moment.
struct ELFFile {
  private var descriptor = -1
  private var symbols: UInt = 0
  private var symbolBytes: UInt = 0
  /// File offset of the symbols' names.
  private(set) var strings: UInt = 0

  var isOpen: Bool { descriptor >= 0 && symbols != 0 }

  /// - Parameter start: where its first bytes are mapped; a file that begins otherwise
  ///   is not the one that was loaded.
  init(_ path: UnsafePointer<CChar>?, loadedAt start: UInt) {
    guard let path, path[0] == CChar(0x2F) else { return }
    let result = keg_syscall6(
      257 /* openat */, -100 /* AT_FDCWD */, Int(bitPattern: path), 0x80000 /* O_CLOEXEC */, 0, 0, 0)
    guard result >= 0 else { return }
    descriptor = result
    var header = InlineArray<8, UInt>(repeating: 0)
    guard read(0, &header), keg_is_readable(start), isLoaded(header, start) else { return }
    findTables(sections: header[5], count: header[7] >> 32 & 0xFFFF)  // e_shoff, e_shnum
  }

  func close() {
    if descriptor >= 0 { _ = keg_syscall6(3 /* close */, descriptor, 0, 0, 0, 0, 0) }
  }

  private func isLoaded(_ header: InlineArray<8, UInt>, _ start: UInt) -> Bool {
    var i = 0
    while i < 8 {
      if header[i] != (start &+ UInt(bitPattern: i) &* 8).word { return false }
      i &+= 1
    }
    return header[0] & 0xFFFF_FFFF == 0x464C_457F
  }

  /// Reads whole words at a file offset. False: the file is shorter.
  private func read<let count: Int>(_ offset: UInt, _ words: inout InlineArray<count, UInt>) -> Bool {
    var span = words.mutableSpan
    return span.withUnsafeMutableBufferPointer { buffer in
      let size = count &* 8
      return pread(Int(bitPattern: buffer.baseAddress), size, offset) == size
    }
  }

  private func pread(_ destination: Int, _ size: Int, _ offset: UInt) -> Int {
    keg_syscall6(17 /* pread64 */, descriptor, destination, size, Int(bitPattern: offset), 0, 0)
  }

  private mutating func findTables(sections: UInt, count: UInt) {
    var section = InlineArray<8, UInt>(repeating: 0)
    var i: UInt = 0
    while i < count {
      guard read(sections &+ i &* 64, &section) else { return }
      let type = section[0] >> 32
      if type == 2 /* SHT_SYMTAB */ || type == 11 /* SHT_DYNSYM */ && symbols == 0 {
        let link = section[5] & 0xFFFF_FFFF
        let (offset, size) = (section[3], section[4])
        guard link < count, read(sections &+ link &* 64, &section) else { return }
        symbols = offset
        symbolBytes = size
        strings = section[3]
        if type == 2 { return }
      }
      i &+= 1
    }
  }

  func findSymbol(_ offset: UInt) -> Symbol? {
    var search = SymbolSearch(offset)
    var piece = InlineArray<384, UInt>(repeating: 0)  // 128 symbols
    var span = piece.mutableSpan
    span.withUnsafeMutableBufferPointer { buffer in
      let start = UInt(bitPattern: buffer.baseAddress)
      var done: UInt = 0
      while done < symbolBytes {
        let size = min(symbolBytes &- done, 3072)
        guard pread(Int(bitPattern: start), Int(bitPattern: size), symbols &+ done) == Int(size)
        else { return }
        var i: UInt = 0
        while i &+ 24 <= size {
          search.consider(start &+ i)
          i &+= 24
        }
        done = done &+ size
      }
    }
    return search.result
  }

  func readName(_ offset: UInt, _ name: inout NameBuffer) -> Bool {
    var span = name.mutableSpan
    let count = span.withUnsafeMutableBufferPointer {
      pread(Int(bitPattern: $0.baseAddress), 511, offset)
    }
    guard count > 0 else { return false }
    name[count] = 0
    return name[0] != 0
  }
}
