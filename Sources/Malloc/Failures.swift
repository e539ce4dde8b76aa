// Failures.swift: injected failures of malloc (L09), option `mtbf`.
//
// While they are wanted no bin gets a bucket, so that every call takes the slow path,
// which asks here; the fast path knows nothing of it.

import Base
import Platform
import Synchronization

struct FailureSource: ~Copyable {
  /// Mean number of allocations between two failures; 0: none. Relaxed: stands for itself.
  let mean = Atomic<UInt32>(0)
  /// Counts up; hashed it is a sequence without a pattern, the same in every run.
  let counter = Atomic<UInt64>(0)
  /// The debug layer asks for itself, once a call, and tries again when the core has nothing.
  let isLeftToDebug = Atomic<Bool>(false)
}

/// Mean number of allocations between injected failures of the process; 0: none.
package var processMeanFailures: UInt32 {
  isRunning ? process.pointee.failures.mean.load(ordering: .relaxed) : 0
}

package func setProcessMeanFailures(_ mean: UInt32) {
  if boot() { process.pointee.failures.mean.store(mean, ordering: .relaxed) }
}

/// Leaves the failures of malloc to the layer above.
package func leaveFailuresToDebug() { process.pointee.failures.isLeftToDebug.store(true, ordering: .relaxed) }

/// The next number of a sequence that looks random (splitmix64, Steele et al. 2014).
package func nextRandom() -> UInt64 {
  var z = process.pointee.failures.counter.wrappingAdd(
    0x9E37_79B9_7F4A_7C15, ordering: .relaxed).newValue
  z = (z ^ z &>> 30) &* 0xBF58_476D_1CE4_E5B9
  z = (z ^ z &>> 27) &* 0x94D0_49BB_1331_11EB
  return z ^ z &>> 31
}

/// Whether this allocation of malloc's shall fail.
@inline(__always)
func injectsFailure() -> Bool { isRunning && drawsFailure() }

/// The same where it is known that boot is through.
@inline(__always)
func drawsFailure() -> Bool {
  let mean = process.pointee.failures.mean.load(ordering: .relaxed)
  return mean != 0 && !process.pointee.failures.isLeftToDebug.load(ordering: .relaxed) && nextRandom() % UInt64(mean) == 0
}
