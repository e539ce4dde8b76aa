// Failures.swift: injected failures (L09): of the allocations that need not wait, on
// average one in `n` fails, so that a program's error paths are run.
//
// A zone with failures takes the slow way for every allocation. For malloc and all zones
// at once: option `mtbf`, keg_set_mtbf(NULL, n); Malloc then fills no bins.

import Base
import Malloc
import Platform
import Synchronization

/// Whether all allocations of the process may be made to fail.
var failuresAreInjected: Bool { processMeanFailures != 0 }

extension UnsafeMutablePointer where Pointee == Handle {
  /// Whether this allocation shall fail.
  func injectsFailure() -> Bool {
    let own = pointee.meanFailures.load(ordering: .relaxed)
    let mean = own != 0 ? own : processMeanFailures
    return mean != 0 && nextRandom() % UInt64(mean) == 0
  }
}

@c public func keg_set_mtbf(_ zone: UnsafeMutableRawPointer?, _ n: UInt32) -> Int32 {
  guard let zone else {
    setProcessMeanFailures(n)
    registry?.zones.forEach { $0.publishOffsets() }
    _ = keg_reclaim(3)
    return 0
  }
  handle(zone).check()
  if handle(zone).pointee.flags.contains(.ofMalloc) { return 95 /* EOPNOTSUPP */ }
  handle(zone).pointee.meanFailures.store(n, ordering: .relaxed)
  handle(zone).publishOffsets()
  return 0
}
