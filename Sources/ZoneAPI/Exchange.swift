// Exchange.swift: an empty array is filled, a full one emptied, as malloc's are.
//
//   empty: loaded ⇄ previous │ a full bucket of the depot │ filled from slabs
//   full:  loaded ⇄ previous │ the full one to the depot, an empty one for it
//
// Only where no function of the program can be called for it: neither `bin` nor bucket is
// guarded against the zone being used meanwhile. The others take the steps of
// Zone/Bin+Exchange.swift.

import Base
import Malloc
import Zone

extension UnsafeMutablePointer where Pointee == Handle {
  /// An item after the calling thread's bin was refilled; 0: it could not be, or that is
  /// the slow way's affair. Calls nothing of the program's.
  @inline(__always)
  func takeFromRefill() -> UInt {
    if takeOffset == 0 || pointee.flags.contains(.callsOut) { return 0 }
    var item: UInt = 0
    _ = inSection {
      let table = ownTable()
      if table == 0 { return }
      let bin = tableBin(table, pointee.offset)
      // A handler may have freed something meanwhile.
      if bin.pointee.top != bin.pointee.low || bin.swapForItems()
        || bin.refill(from: pointee.zone, atOnce: true)
      {
        bin.pointee.top = bin.pointee.top &- 8
        item = bin.pointee.top.word
      }
    }
    return item
  }

  /// Puts an item into the calling thread's bin, where room is made; false: as above.
  @inline(__always)
  func giveIntoRoom(_ item: UInt) -> Bool {
    if giveOffset == 0 || pointee.flags.contains(.callsOut) { return false }
    var isDone = false
    _ = inSection {
      let table = ownTable()
      if table == 0 { return }
      let bin = tableBin(table, pointee.offset)
      if bin.pointee.top == bin.pointee.high, !bin.swapForRoom(),
        !bin.makeRoom(for: pointee.zone, atOnce: true)
      {
        return
      }
      bin.pointee.top.word = item
      bin.pointee.top = bin.pointee.top &+ 8
      isDone = true
    }
    return isDone
  }
}
