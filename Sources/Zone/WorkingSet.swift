// WorkingSet.swift: how many cached items a zone needs (U13).
//
// UMA's estimate, as a pure function of what happened: no clock, no lock. Of the
// items in the depot, those that were there all the time since the last tick
// were not needed; the working set is how deep the depot was drawn from.
//
//   items ▲    imax ─────╮  ╭╮
//         │              ╰──╯╰──── nitems now
//         │    imin ──────┴─────
//         │    ▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔ never touched: longest unused, given back first
//
// bimin is the least since imax was last raised: a new peak after a trough widens
// the working set even within one interval. Ticks are the caller's business.

package struct WorkingSet: Equatable {
  /// Items in the depot now.
  package private(set) var items: Int = 0
  package private(set) var greatest: Int = 0
  package private(set) var least: Int = 0
  /// The least since the greatest was last raised.
  package private(set) var leastSinceGreatest: Int = 0
  /// The estimate: items worth keeping.
  package private(set) var size: Int = 0
  /// Items that were unused for `idleTicks` ticks.
  package private(set) var idleItems: Int = 0
  package private(set) var idleTicks: Int = 0

  package init() {}

  /// `count` items were put into the depot by use.
  package mutating func put(_ count: Int) {
    items &+= count
    if greatest < items {
      size = max(size, greatest &- leastSinceGreatest)
      greatest = items
      leastSinceGreatest = items
    }
  }

  /// `count` items were taken from the depot by use.
  package mutating func take(_ count: Int) {
    items &-= count
    if least > items { least = items }
    if leastSinceGreatest > items { leastSinceGreatest = items }
  }

  /// `count` items were taken by reclaim: no sign of use, so the marks move along.
  package mutating func reclaim(_ count: Int) {
    items &-= count
    greatest = max(greatest &- count, items)
    least = max(min(least &- count, items), 0)
    leastSinceGreatest = max(min(leastSinceGreatest &- count, items), 0)
  }

  /// `count` items were put by a drain of thread arrays: no sign of use either.
  package mutating func drainInto(_ count: Int) {
    items &+= count
    greatest &+= count
    least &+= count
    leastSinceGreatest &+= count
  }

  /// Ends an interval and re-estimates.
  package mutating func tick() {
    size = max(size &* 3 / 4, greatest &- leastSinceGreatest)
    let unused = least &- size
    if unused >= 0 {
      idleItems = idleItems >= unused ? unused : (unused &+ 255 &* idleItems) / 256
      idleTicks &+= 1
    } else {
      idleItems = 0
      idleTicks = 0
    }
    greatest &-= (greatest &- items &+ 1) / 2
    least = items
    leastSinceGreatest = items
  }
}
