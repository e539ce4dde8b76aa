// Limit.swift: the most items that a zone may have out of its keg, and who waits for
// one (U36, U37).
//
//   importItems ──▶ grant n ──▶ keg … ──▶ settle        imported - released + pending ≤ most
//                     │ none
//                     ▼
//   waiters: first ⇄ … ⇄ last        an item that is released is granted to the first
//
// As in UMA, what is cached counts as what is in use; the fast path therefore knows
// nothing of limits. Who finds no room may put a `Waiter`, which lies on its stack, at
// the end of the list. Room is handed to the first waiter as a grant, so nobody who
// comes later can take it; while anybody waits, no one else is granted anything.
//
// - Invariant: pending == what was granted and not settled.
// Lock: the zone's. `most` and the count of waiters are read without it: relaxed, for
// a stale value is what the reader would have seen a moment before.

import Base
import Platform
import Synchronization

/// What a caller of the keg side wants; the low half are the flags of kegmalloc.h.
package struct TakeFlags: Flags {
  package let rawValue: UInt64
  package init(rawValue: UInt64) { self.rawValue = rawValue }
  package init(alloc: Int32) { rawValue = UInt64(UInt32(bitPattern: alloc)) }
  /// Nobody in particular is served: the program's functions shall not wait (KEG_NOWAIT).
  package static var noWait: TakeFlags { TakeFlags(rawValue: 2) }
  /// Only what is free in slabs (KEG_NOVM).
  package static var noGrowth: TakeFlags { TakeFlags(rawValue: 8) }
  /// The keg's reserve too (KEG_USE_RESERVE).
  package static var useReserve: TakeFlags { TakeFlags(rawValue: 16) }
  /// The limit has granted this item.
  package static var granted: TakeFlags { TakeFlags(rawValue: 1 << 32) }
  /// The flags as the program's functions see them.
  package var alloc: Int32 { Int32(truncatingIfNeeded: rawValue & 0xFF) }
}

/// A thread at the limit; lies on its stack.
package struct Waiter: Linked, ~Copyable {
  package var next: UnsafeMutablePointer<Waiter>?
  package var previous: UnsafeMutablePointer<Waiter>?
  /// 1 once an item was granted: written under the zone lock, waited for without. The
  /// store releases nothing that is not read under the lock afterwards.
  let word: Atomic<UInt32>

  package init() {
    next = nil
    previous = nil
    word = Atomic(0)
  }
}

package struct Limit: ~Copyable {
  // Not the atomics first: TSan takes a mutating access for a write to the first field.
  var pending: Int
  var waiters: List<Waiter>
  package internal(set) var sleeps: UInt
  let most: Atomic<Int>
  let waiterCount: Atomic<Int>

  init() {
    pending = 0
    waiters = List()
    sleeps = 0
    most = Atomic(0)
    waiterCount = Atomic(0)
  }
}

extension UnsafeMutablePointer where Pointee == Waiter {
  /// Sleeps until an item is granted or `nanoseconds` have passed; 0: for good.
  /// Takes no lock. May return early.
  package func sleep(nanoseconds: UInt64) {
    if pointee.word.load(ordering: .acquiring) != 0 { return }
    var time: (Int, Int) = (
      Int(nanoseconds / 1_000_000_000), Int(nanoseconds % 1_000_000_000)
    )
    withUnsafeMutablePointer(to: &time) { time in
      withUnsafePointer(to: pointee.word) { word in
        _ = keg_syscall6(
          Int(KEG_SYS_futex), Int(bitPattern: word), 128 /* FUTEX_WAIT_PRIVATE */, 0,
          nanoseconds == 0 ? 0 : Int(bitPattern: time), 0, 0)
      }
    }
  }

  package var isGranted: Bool { pointee.word.load(ordering: .acquiring) != 0 }
}

/// What `grantNext` returns: where the waiter that was granted an item sleeps.
package struct Sleeper {
  let word: UInt

  /// Called without the zone lock.
  package func wake() {
    _ = keg_syscall6(
      Int(KEG_SYS_futex), Int(bitPattern: word), 129 /* FUTEX_WAKE_PRIVATE */, 1, 0, 0, 0)
  }
}

// MARK: - Under the zone lock

extension UnsafeMutablePointer where Pointee == Zone {
  @inline(__always)
  package var isLimited: Bool { pointee.limit.most.load(ordering: .relaxed) != 0 }

  @inline(__always)
  package var hasWaiters: Bool { pointee.limit.waiterCount.load(ordering: .relaxed) != 0 }

  /// Items out of the keg, granted ones included. Called with the lock held.
  package var itemsOut: Int {
    Int(bitPattern: pointee.statistics.imported &- pointee.statistics.released)
      &+ pointee.limit.pending
  }

  /// Items that may be granted now. Called with the lock held.
  private var room: Int {
    let most = pointee.limit.most.load(ordering: .relaxed)
    return most == 0 ? .max : max(most &- itemsOut, 0)
  }

  /// Grants the first waiter an item if there is room. Called with the lock held.
  /// - Returns: whom to wake once the lock is dropped.
  func grantNext() -> Sleeper? {
    if pointee.limit.waiters.isEmpty || room == 0 { return nil }
    guard let waiter = pointee.limit.waiters.popFirst() else { return nil }
    noteWaiters()
    pointee.limit.pending &+= 1
    let sleeper = withUnsafePointer(to: waiter.pointee.word) {
      Sleeper(word: UInt(bitPattern: $0))
    }
    waiter.pointee.word.store(1, ordering: .releasing)
    return sleeper
  }

  /// A grant has been used, in whole or in part. Called with the lock held.
  func settle(granted: Int, taken: Int) -> Sleeper? {
    pointee.limit.pending &-= granted
    return grantNext()
  }

  private func noteWaiters() {
    pointee.limit.waiterCount.store(pointee.limit.waiters.count, ordering: .relaxed)
  }
}

// MARK: - For callers

extension UnsafeMutablePointer where Pointee == Zone {
  /// Grants up to `count` items; 0 while others wait or when there is no room.
  func grant(upTo count: Int) -> Int {
    pointee.lock.lock()
    let granted = pointee.limit.waiters.isEmpty ? min(count, room) : 0
    pointee.limit.pending &+= granted
    pointee.lock.unlock()
    return granted
  }

  /// Sets the most items; 0: no limit. Waiters that it makes room for are woken.
  package func setLimit(_ most: Int) {
    pointee.lock.lock()
    pointee.limit.most.store(most, ordering: .relaxed)
    pointee.lock.unlock()
    wakeWaiters()
  }

  /// Wakes as many waiters as there is room for.
  package func wakeWaiters() {
    while true {
      pointee.lock.lock()
      let sleeper = grantNext()
      pointee.lock.unlock()
      guard let sleeper else { return }
      sleeper.wake()
    }
  }

  /// Puts a thread at the end of the list, unless there is room at once.
  /// - Returns: true: granted; the waiter is not on the list.
  package func enqueue(_ waiter: UnsafeMutablePointer<Waiter>) -> Bool {
    pointee.lock.lock()
    defer { pointee.lock.unlock() }
    if pointee.limit.waiters.isEmpty, room > 0 {
      pointee.limit.pending &+= 1
      return true
    }
    pointee.limit.waiters.append(waiter)
    pointee.limit.sleeps &+= 1
    noteWaiters()
    return false
  }

  /// Takes a waiter off the list, or learns that it was granted an item meanwhile.
  /// - Returns: whether it was.
  package func dequeue(_ waiter: UnsafeMutablePointer<Waiter>) -> Bool {
    pointee.lock.lock()
    defer { pointee.lock.unlock() }
    if waiter.isGranted { return true }
    pointee.limit.waiters.remove(waiter)
    noteWaiters()
    return false
  }

  /// In a forked child: those who waited do not exist there. Nothing else runs.
  package func forgetWaiters() {
    pointee.limit.waiters = List()
    pointee.limit.pending = 0
    noteWaiters()
  }

  package var waiterCount: Int { pointee.limit.waiterCount.load(ordering: .relaxed) }
  package var limitItems: Int { pointee.limit.most.load(ordering: .relaxed) }
}
