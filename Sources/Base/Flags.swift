// Flags.swift: a set of up to 64 flags.
//
// What OptionSet would be, without the conformances that need an allocator.

package protocol Flags {
  var rawValue: UInt64 { get }
  init(rawValue: UInt64)
}

extension Flags {
  @inline(__always)
  package static var none: Self { Self(rawValue: 0) }

  /// Whether every flag of `other` is in the set.
  @inline(__always)
  package func contains(_ other: Self) -> Bool {
    rawValue & other.rawValue == other.rawValue
  }

  @inline(__always)
  package func union(_ other: Self) -> Self {
    Self(rawValue: rawValue | other.rawValue)
  }
}
