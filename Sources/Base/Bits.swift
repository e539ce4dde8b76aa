// Bits.swift: address and size arithmetic.
//
// Addresses and byte counts are `UInt` everywhere in the core: an Optional
// pointer costs a branch, and a checked operation a trap that -Ounchecked
// deletes anyway. Arithmetic wraps; callers check sizes before they arrive here.

extension UInt {
  /// The smallest multiple of `alignment` that is not below `self`.
  /// - Precondition: `alignment` is a power of two; the result fits.
  @inline(__always)
  package func roundedUp(to alignment: UInt) -> UInt {
    (self &+ alignment &- 1) & ~(alignment &- 1)
  }

  /// The largest multiple of `alignment` that is not above `self`.
  @inline(__always)
  package func roundedDown(to alignment: UInt) -> UInt {
    self & ~(alignment &- 1)
  }

  @inline(__always)
  package func isMultiple(ofPowerOfTwo alignment: UInt) -> Bool {
    self & (alignment &- 1) == 0
  }

  @inline(__always)
  package var isPowerOfTwo: Bool { self != 0 && self & (self &- 1) == 0 }

  /// The exponent of the largest power of two not above `self`.
  /// - Precondition: `self` is not 0.
  @inline(__always)
  package var log2Floor: UInt { UInt(bitPattern: 63 &- self.leadingZeroBitCount) }

  /// The exponent of the smallest power of two not below `self`.
  /// - Precondition: `self` is not 0.
  @inline(__always)
  package var log2Ceiling: UInt {
    self <= 1 ? 0 : UInt(bitPattern: 64 &- (self &- 1).leadingZeroBitCount)
  }

  /// The smallest power of two not below `self`; 1 for 0.
  @inline(__always)
  package var nextPowerOfTwo: UInt { 1 &<< self.log2Ceiling }

  /// The pointer with this address.
  /// - Precondition: `self` is not 0.
  @inline(__always)
  package func pointer<T: ~Copyable>(to type: T.Type) -> UnsafeMutablePointer<T> {
    // Never nil: the callers' addresses come from mappings we made.
    UnsafeMutablePointer<T>(bitPattern: self).unsafelyUnwrapped
  }

  /// The word stored at this address.
  @inline(__always)
  package var word: UInt {
    get { pointer(to: UInt.self).pointee }
    nonmutating set { pointer(to: UInt.self).pointee = newValue }
  }
}

extension UnsafeMutablePointer where Pointee: ~Copyable {
  /// The address as a number.
  @inline(__always)
  package var address: UInt { UInt(bitPattern: self) }
}
