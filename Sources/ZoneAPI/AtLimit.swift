// AtLimit.swift: what happens to an allocation that the limit refuses (U37, U38), and to
// one that finds no memory (P03).
//
//   warning, maxaction ─▶ drain arrays and depot ─▶ try ─▶ NOWAIT: EAGAIN
//                                                       └▶ WAITOK: queue, drain again, sleep
//
// The second drain is for what was freed into an array before others could see that
// somebody waits; from then on frees bypass the arrays. A granted item is nobody else's.

import Base
import Malloc
import Platform
import Synchronization
import Zone

/// The least time between two warnings of a zone.
private var warningInterval: UInt64 { 300_000_000_000 }

extension UnsafeMutablePointer where Pointee == Handle {
  /// An item, or 0 and an error number; 0 and 0: the limit is not what was in the way.
  func takeAtLimit(_ flags: Int32, _ milliseconds: UInt64) -> (item: UInt, error: Int32) {
    if !isFull { return (0, 0) }
    warn()
    pointee.maxAction?(UnsafeMutableRawPointer(self), pointee.maxArgument)
    var item: UInt = 0
    _ = inSection {
      drainCaches()
      askForDrains()
      item = takeThroughCaches(TakeFlags(alloc: flags))
    }
    if item != 0 { return (item, 0) }
    if !isFull { return (0, 0) }
    if flags & AllocFlags.noWait != 0 { return (0, 11 /* EAGAIN */) }
    return takeGranted(flags, milliseconds)
  }

  /// An item once the limit has room, asked for in the order of coming; 0 and 0: there is
  /// room and no memory. Unlike a look at the limit this cannot be overtaken.
  func takeGranted(_ flags: Int32, _ milliseconds: UInt64) -> (item: UInt, error: Int32) {
    let zone = pointee.zone
    guard wait(milliseconds) else { return (0, 110 /* ETIMEDOUT */) }
    var item: UInt = 0
    _ = inSection {
      item = zone.allocateItem(TakeFlags(alloc: flags).union(.granted))
      zone.wakeWaiters()
    }
    return (item, 0)
  }

  /// Whether the limit leaves no room, or others wait for it. Outside sections.
  var isFull: Bool {
    var isFull = false
    let zone = pointee.zone
    _ = inSection {
      zone.pointee.lock.lock()
      isFull = zone.isLimited && (zone.hasWaiters || zone.itemsOut >= zone.limitItems)
      zone.pointee.lock.unlock()
    }
    return isFull
  }

  /// Sleeps until an item is granted; false: the time is over.
  private func wait(_ milliseconds: UInt64) -> Bool {
    let zone = pointee.zone
    let end = keg_monotonic_nanoseconds() &+ milliseconds &* 1_000_000
    var waiter = Waiter()
    var isGranted = false
    withUnsafeMutablePointer(to: &waiter) { waiter in
      _ = inSection {
        isGranted = zone.enqueue(waiter)
        if !isGranted {
          drainCaches()
          zone.wakeWaiters()
        }
      }
      while !isGranted {
        let now = keg_monotonic_nanoseconds()
        if milliseconds != 0, now >= end {
          _ = inSection { isGranted = zone.dequeue(waiter) }
          return
        }
        waiter.sleep(nanoseconds: milliseconds == 0 ? 0 : max(end &- now, 1))
        isGranted = waiter.isGranted
      }
    }
    return isGranted
  }

  /// U38: the zone's text, at most once in 300 s.
  private func warn() {
    guard let warning = pointee.warning else { return }
    let now = keg_monotonic_nanoseconds()
    let last = pointee.warned.load(ordering: .relaxed)
    if last != 0, now &- last < warningInterval { return }
    // Of several threads one prints.
    if !pointee.warned.compareExchange(expected: last, desired: now, ordering: .relaxed).exchanged {
      return
    }
    var text = Text(to: 2)
    text.append("kegmalloc: [zone: ")
    text.append(cString: name)
    text.append("] ")
    text.append(cString: warning)
    text.append("\n")
    text.flush()
  }

  /// P03. False: there is no hook.
  func runDrainHook() -> Bool {
    guard let hook = pointee.drainHook else { return runProcessDrainHook() }
    hook(pointee.drainArgument)
    return true
  }
}

/// The hook for malloc and for zones without one. Outside sections. False: there is none.
func runProcessDrainHook() -> Bool {
  guard let zones = registry?.zones, let hook = zones.pointee.drainHook else { return false }
  hook(zones.pointee.drainArgument)
  return true
}

// MARK: - Flags (D09)

extension UnsafeMutablePointer where Pointee == Handle {
  /// Exactly one of WAITOK and NOWAIT: WAITOK if the caller said both or neither.
  @inline(__always)
  func saneFlags(_ flags: Int32) -> Int32 {
    let wait = flags & 3
    if wait == AllocFlags.waitOK || wait == AllocFlags.noWait { return flags }
    return correctFlags(flags)
  }

  @inline(never)
  private func correctFlags(_ flags: Int32) -> Int32 {
    if !reportsMisuse(flags & 3 == 0 ? .noWait : .bothWaits), let zones = registry?.zones, zones.pointee.flagWarnings.load(ordering: .relaxed) < 10,
      zones.pointee.flagWarnings.wrappingAdd(1, ordering: .relaxed).oldValue < 10
    {
      var text = Text(to: 2)
      text.append("kegmalloc: zone ")
      text.append(cString: name)
      text.append(
        flags & 3 == 0
          ? ": allocation with neither KEG_WAITOK nor KEG_NOWAIT; waits if it must\n"
          : ": allocation with both KEG_WAITOK and KEG_NOWAIT; waits if it must\n")
      text.flush()
    }
    return flags & ~3 | AllocFlags.waitOK
  }
}
