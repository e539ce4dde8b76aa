// Lock.swift: the only lock of the allocator.
//
// A 4-byte futex lock after Drepper, "Futexes Are Tricky" (2011), mutex 3: the
// word is 0 when free, 1 when held, 2 when held and somebody may sleep. It spins
// briefly first, because what it protects takes tens of nanoseconds.
//
// Locks have ranks. A thread may take a lock only if its rank is above every
// rank it holds; the debug build checks that (see docs/locking.md for the tree).

import Platform
import Synchronization

/// The order in which locks may be taken, lowest first.
///
/// The first is all zero bits: the lock of that rank, the only one that is a global,
/// lies in .bss, and the library has no .data for the dynamic linker to map and copy.
package enum LockRank: UInt8 {
  case boot = 0
  case threadList
  case thread
  case zoneList
  case array
  case zone
  case keg
  case heap
  // An arena and the arenas it imports from: fork holds them all, child first.
  case arena
  case arena1
  case arena2
  case arena3
  case outside
  case metadata
  case none = 63

  /// The rank of an arena that `height` levels of other arenas import from:
  /// 0 when none does, at most 3.
  package static func arena(height: UInt) -> LockRank {
    switch height {
    case 0: .arena
    case 1: .arena1
    case 2: .arena2
    default: .arena3
    }
  }
}

package struct Lock: ~Copyable {
  // Written by every thread that takes or drops the lock. Taking acquires what
  // the last holder released.
  private let state: Atomic<UInt32>
  private let rank: LockRank

  package init(rank: LockRank) {
    state = Atomic<UInt32>(0)
    self.rank = rank
  }

  /// Takes the lock, waiting as long as it is held.
  @inline(__always)
  package borrowing func lock() {
    _ = lockReportingContention()
  }

  /// Takes the lock.
  /// - Returns: whether another thread held it at first (U09).
  @inline(__always)
  package borrowing func lockReportingContention() -> Bool {
    noteTaken()
    if state.compareExchange(expected: 0, desired: 1, ordering: .acquiring).exchanged {
      return false
    }
    wait()
    return true
  }

  /// Takes the lock if nobody holds it.
  @inline(__always)
  package borrowing func tryLock() -> Bool {
    guard tryLockOutOfOrder() else { return false }
    noteTaken()
    return true
  }

  /// The same where a higher rank is held, which cannot deadlock: nobody waits. For a
  /// caller that can do without; the rank is not noted, and no lock is taken under this one.
  @inline(__always)
  package borrowing func tryLockOutOfOrder() -> Bool {
    state.compareExchange(expected: 0, desired: 1, ordering: .acquiring).exchanged
  }

  /// Drops a lock that `tryLockOutOfOrder` took.
  @inline(__always)
  package borrowing func unlockOutOfOrder() {
    if state.exchange(0, ordering: .releasing) == 2 { wakeOne() }
  }

  /// Drops the lock. The caller must hold it.
  @inline(__always)
  package borrowing func unlock() {
    noteDropped()
    unlockOutOfOrder()
  }

  @inline(__always)
  package borrowing func withLock<Result>(_ body: () -> Result) -> Result {
    lock()
    let result = body()
    unlock()
    return result
  }

  /// Frees the lock whoever held it: in a forked child, whose other threads
  /// are gone, before anything else runs.
  package borrowing func reset() {
    state.store(0, ordering: .releasing)
  }

  @inline(never)
  private borrowing func wait() {
    var spins = 0
    while spins < 100 {
      if state.load(ordering: .relaxed) == 0,
        state.compareExchange(expected: 0, desired: 1, ordering: .acquiring).exchanged
      {
        return
      }
      keg_cpu_relax()
      spins &+= 1
    }
    while state.exchange(2, ordering: .acquiring) != 0 {
      // The holder may be a thread that a forked child does not have.
      if keg_adopt_if_orphaned() { continue }
      futex(operation: 128 /* FUTEX_WAIT_PRIVATE */, value: 2)
    }
  }

  @inline(never)
  private borrowing func wakeOne() {
    futex(operation: 129 /* FUTEX_WAKE_PRIVATE */, value: 1)
  }

  private borrowing func futex(operation: Int, value: Int) {
    withUnsafePointer(to: state) { word in
      _ = keg_syscall6(
        Int(KEG_SYS_futex), Int(bitPattern: word), operation, value, 0, 0, 0)
    }
  }

  // The ranks a thread holds are bits of one word: rank r is bit r.
  @inline(__always)
  private borrowing func noteTaken() {
    #if INVARIANTS
      if rank == .none { return }
      let held = keg_lock_ranks()
      if held.pointee >> UInt64(rank.rawValue) != 0 {
        die("lock order: rank ", UInt(rank.rawValue), " taken under ranks ", UInt(held.pointee))
      }
      held.pointee |= 1 << UInt64(rank.rawValue)
    #endif
  }

  @inline(__always)
  private borrowing func noteDropped() {
    #if INVARIANTS
      if rank == .none { return }
      keg_lock_ranks().pointee &= ~(1 << UInt64(rank.rawValue))
    #endif
  }
}
