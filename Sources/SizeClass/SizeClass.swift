// SizeClass.swift: sizes to classes and back; arithmetic only.
//
// 8, then multiples of 16 up to 128, then eight classes to each doubling:
//
//   8 16 32 48 64 80 96 112 128 | 144 160 … 256 | 288 320 … 512 | … | … 65536
//    group 0: 9 classes           groups of 8: step = 2^k / 8
//
// So a request above 128 bytes wastes at most 1/8 of its class (the worst is one
// byte more than a class). Slabs start on a boundary of their items' alignment and
// hold nothing but items, so an item is aligned to the largest power of two that
// divides its class: powers of two to themselves, multiples of a cache line to
// 64 bytes, everything from 16 up to 16 (NetBSD kmem, K03).
//
// Class 0 is nobody's: it stands for "not an item" in the page map, and its bin
// is always empty and always full. Real classes are 1 … count.

import Base

package enum SizeClass {
  /// Real classes.
  package static var count: UInt { 81 }
  /// The largest size that has a class, in bytes.
  package static var largest: UInt { 65536 }
  /// Sizes up to this one are found in the first part of the size table.
  package static var smallLimit: UInt { 1024 }

  /// The class of a request.
  /// - Parameter size: 0 … `largest` bytes.
  /// - Returns: 1 … `count`.
  @inline(__always)
  package static func index(of size: UInt) -> UInt {
    if size <= 8 { return 1 }
    if size <= 128 { return 1 &+ ((size &+ 15) &>> 4) }
    // size - 1 lies in [2^k, 2^(k+1)), k ≥ 7; its top four bits pick the class.
    let k = (size &- 1).log2Floor
    return 9 &+ (k &- 7) &* 8 &+ ((size &- 1) &>> (k &- 3)) &- 7
  }

  /// The item size of class `index`, in bytes.
  /// - Parameter index: 1 … `count`.
  package static func size(of index: UInt) -> UInt {
    if index == 1 { return 8 }
    if index <= 9 { return (index &- 1) &* 16 }
    let k = 7 &+ (index &- 10) / 8
    return (9 &+ (index &- 10) % 8) &<< (k &- 3)
  }

  /// Where `size` looks in the size table of the fast path.
  /// One entry for every 8 bytes to 1 KiB, then one for every 128.
  @inline(__always)
  package static func tableIndex(of size: UInt) -> UInt {
    size <= smallLimit
      ? (size &+ 7) &>> 3
      : (size &+ 127 &+ (120 &<< 7)) &>> 7
  }

  /// The greatest size that looks at `entry` of the size table.
  package static func greatestSize(atTableIndex entry: UInt) -> UInt {
    entry <= 128 ? entry &* 8 : (entry &- 120) &* 128
  }

  /// How many entries the size table has.
  package static var tableCount: UInt { tableIndex(of: largest) &+ 1 }

  /// The size to ask for instead of `size`, so that the item is aligned: the next
  /// multiple of the alignment. Its class is a multiple too, for both it and the step
  /// between classes are powers of two times something, and slabs start on a chunk.
  /// - Parameters:
  ///   - size: at most `largest`.
  ///   - alignment: a power of two, at most the chunk size.
  @inline(__always)
  package static func size(_ size: UInt, alignedTo alignment: UInt) -> UInt {
    max(size, 1).roundedUp(to: alignment)
  }
}
