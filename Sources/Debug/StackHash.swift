// StackHash.swift: a hash of a stack that can be computed from either end.
//
// A stack is the polynomial a₀ + a₁K + a₂K² + … of its addresses modulo 2⁶⁴, the
// innermost first. With Sᵢ the polynomial of frames i and further out,
//
//   Sᵢ = aᵢ + K·Sᵢ₊₁      and frames 0 ..< n alone are  S₀ − Kⁿ·Sₙ
//
// so that a stack that differs from the last one in its innermost frames costs only
// those, whatever the depth that is kept.

enum StackHash {
  static var factor: UInt { 0x9E37_79B9_7F4A_7C15 }

  @inline(__always)
  static func adding(_ address: UInt, to rest: UInt) -> UInt { address &+ factor &* rest }

  /// factor to the power of `exponent`.
  static func power(_ exponent: Int) -> UInt {
    var power: UInt = 1
    var left = exponent
    while left > 0 {
      power = power &* factor
      left &-= 1
    }
    return power
  }

  /// Spreads a polynomial over all bits; never 0.
  @inline(__always)
  static func finish(_ sum: UInt) -> UInt64 {
    var hash = UInt64(sum)
    hash = (hash ^ hash >> 32) &* 0xD6E8_FEB8_6659_FD93
    hash ^= hash >> 32
    return hash == 0 ? 1 : hash
  }

  /// The hash of `count` frames, innermost first.
  static func of(_ frames: UnsafePointer<UInt>, count: Int) -> UInt64 {
    var sum: UInt = 0
    var i = count
    while i > 0 {
      i &-= 1
      sum = adding(frames[i], to: sum)
    }
    return finish(sum)
  }
}
