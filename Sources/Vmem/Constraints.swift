// Constraints.swift: where a constrained request may lie (A04).
//
//   minimum                     multiple of nocross               maximum
//      |........[phase............)....|...[phase.............)......|
//               ▲                      ▲
//       start ≡ phase (mod alignment)  the segment does not contain this border
//
// Pure arithmetic on unsigned integers; takes nothing from below, has no lock.

import Base

/// How an arena looks for a segment.
package enum Fit: UInt8 {
  /// Any segment of a list whose every member fits; if there is none, as `best`.
  case instant
  /// The first sufficient segment of the lowest list that has one.
  case best
}

struct Constraints {
  /// A power of two; a multiple of the quantum.
  let alignment: UInt
  /// Below `alignment`.
  let phase: UInt
  /// A power of two, or 0 when every border may be crossed.
  let nocross: UInt
  /// The lowest start.
  let minimum: UInt
  /// The highest integer that the segment may contain.
  let maximum: UInt

  /// Whether only alignment and phase are asked for: then any range of
  /// `size + slack` has room.
  var isOnlyAlignment: Bool { nocross == 0 && minimum == 0 && maximum == .max }

  /// What alignment can cost a segment that starts at a multiple of `quantum`.
  func slack(quantum: UInt) -> UInt { alignment &- quantum }

  /// Whether the parameters make sense together for segments of `size` bytes.
  func isValid(size: UInt, quantum: UInt) -> Bool {
    alignment.isPowerOfTwo && alignment >= quantum
      && phase < alignment && phase.isMultiple(ofPowerOfTwo: quantum)
      && (nocross == 0 || (nocross.isPowerOfTwo && nocross >= size))
      && minimum <= maximum
  }

  /// The lowest start of `size` bytes within `[from, to)`, or `Arena.none`.
  func place(_ size: UInt, from: UInt, to: UInt) -> UInt {
    var start = aligned(max(from, minimum))
    if start == Arena.none { return start }
    if nocross != 0, (start ^ (start &+ size &- 1)) & ~(nocross &- 1) != 0 {
      // Starts in this block only get worse, and the first one in the next
      // block has the least offset that any block offers.
      let border = start.roundedDown(to: nocross) &+ nocross
      if border < start { return Arena.none }
      start = aligned(border)
      if start == Arena.none { return start }
      if (start ^ (start &+ size &- 1)) & ~(nocross &- 1) != 0 { return Arena.none }
    }
    let last = start &+ size &- 1
    if last < start || last >= to || last > maximum { return Arena.none }
    return start
  }

  /// The lowest integer from `start` on that is `phase` past a multiple of
  /// `alignment`, or `Arena.none` when there is none.
  private func aligned(_ start: UInt) -> UInt {
    // 2^64 is a multiple of the alignment, so a difference that wraps is right.
    let result = (start &- phase).roundedUp(to: alignment) &+ phase
    return result < start ? Arena.none : result
  }
}
