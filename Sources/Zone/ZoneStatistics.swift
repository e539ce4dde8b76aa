// ZoneStatistics.swift: what a zone counts of its traffic with the keg and the depot.
//
//   bins ⇄ taken, put: items in whole buckets ⇄ depot     bins, depot ⇄ imported, released ⇄ keg
//
// The thread's own hits are not among it: the fast path counts nothing.
//
// - Invariant: imported - released == items in use, in bins and in the depot.

/// What a zone counts; the zone lock protects it.
package struct ZoneStatistics {
  /// Items that were taken from and given to the keg, one by one or in buckets.
  package var imported: UInt = 0
  package var released: UInt = 0
  /// Items that crossed between threads and the depot in whole buckets.
  package var taken: UInt = 0
  package var put: UInt = 0
  /// Allocations that found no memory.
  package var failures: UInt = 0
  /// Allocations and frees of single items for want of a bucket.
  package var withoutBucket: UInt = 0
  /// Times the lock was found held.
  package var contended: UInt = 0
  package init() {}
}
