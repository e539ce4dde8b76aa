// Heap+Limit.swift: the most bytes that the process may take from the heap.
//
// Option `limit` and keg_set_limit. What counts are spans that are handed out: slabs,
// large blocks, and large blocks that were freed a moment ago. The check follows the
// allocation, so threads that ask at the same moment cannot pass the limit together.

import Base
import Pages
import Synchronization
import Vmem

extension UnsafeMutablePointer where Pointee == Heap {
  /// Bytes; 0: no limit.
  package var limitBytes: UInt {
    get { pointee.limit.load(ordering: .relaxed) }
    nonmutating set { pointee.limit.store(newValue, ordering: .relaxed) }
  }

  /// Whether `more` bytes may be handed out besides those that are.
  package func admits(_ more: UInt) -> Bool {
    let most = limitBytes
    if most == 0 { return true }
    let inUse = pointee.arena.bytesInUseAndDirty.inUse &- headroomBytes
      &+ (pointee.outside.isUnused ? 0 : pointee.outsideArena.bytesInUseAndDirty.inUse)
    return inUse &+ more <= most
  }

  /// `span`, or nil when it is beyond the limit; then it has gone back.
  func admitted(_ span: TagPointer?) -> TagPointer? {
    guard let span, !admits(0) else { return span }
    if flushRecent(), admits(0) { return span }
    arena(of: span).free(span, dirty: span.pointee.isDirty, stamp: pointee.now)
    return nil
  }
}
