// StackStore.swift: a record's stack goes into the depot, without what is there already.
//
//   stored:   a  b  c  d  e  f  g  h          innermost first; more than the depth, if the
//                      └──────────────┐       record has more
//   new:      x  y  e' ─ which is e: "x, y, then that stack without its first four"
//
// Frames of the record remember a stack of the depot that they are part of. A frame that
// stays in the record stays with all that are further out, so what that stack has from
// it on is what the new one needs: if it is enough for the depth.

import Base

extension UnsafeMutablePointer where Pointee == StackRecord {
  private var innermost: UnsafeMutablePointer<StackFrame> { frames + (pointee.count &- 1) }

  /// Stores the record's stack, which the depot does not have.
  /// - Returns: its id; 0: no memory.
  @inline(never)
  func store(_ hash: UInt64, depth: Int, in depot: borrowing StackDepot) -> StackID {
    var buffer = InlineArray<128, UInt>(repeating: 0)
    let wanted = min(depth, pointee.count)
    var inner = 0
    while inner < wanted, (innermost - inner).pointee.owner == 0 { inner &+= 1 }
    var rest = StackRest()
    var restFrames = UInt16(0)
    if inner < wanted {
      let outer = innermost - inner
      restFrames = outer.pointee.ownerFrames
      if Int(restFrames) >= wanted &- inner {
        rest = StackRest(id: outer.pointee.owner, skip: Int(outer.pointee.ownerSkip))
      }
    }
    if rest.id == 0 {
      inner = min(depth &* 2, pointee.count)
      restFrames = pointee.isWhole && inner == pointee.count ? StackFrame.allFrames : 0
    }
    var span = buffer.mutableSpan
    let id = span.withUnsafeMutableBufferPointer {
      let buffer = $0.baseAddress.unsafelyUnwrapped  // 128 words
      _ = copyFrames(inner, to: buffer)
      return depot.store(hash, UnsafePointer(buffer), count: inner, rest: rest)
    }
    if id == 0 { return 0 }
    var i = 0
    while i < inner {
      let all = restFrames == StackFrame.allFrames
      (innermost - i).pointee.owner = id
      (innermost - i).pointee.ownerSkip = UInt16(truncatingIfNeeded: i)
      (innermost - i).pointee.ownerFrames =
        all ? restFrames : UInt16(truncatingIfNeeded: min(Int(restFrames) &+ inner &- i, 60_000))
      i &+= 1
    }
    return id
  }

  /// Notes that the record's stack is in the depot.
  @inline(__always)
  func own(_ id: StackID, depth: Int) {
    let frame = innermost
    if frame.pointee.owner != 0 { return }
    frame.pointee.owner = id
    frame.pointee.ownerSkip = 0
    frame.pointee.ownerFrames =
      pointee.isWhole && pointee.count <= depth
      ? StackFrame.allFrames : UInt16(truncatingIfNeeded: min(depth, pointee.count))
  }
}
