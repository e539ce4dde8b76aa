// FakePages.swift: pages for tests: real memory that counts, checks the contract
// of PageSource, and runs out on demand.
//
// The functions of a PageSource have no context, so the fake is the thread's:
// `Rig.use` installs one for the calling thread, and `inParallel` hands it on to
// the threads it starts. Tests therefore run side by side, each with its own.

import Base
import Glibc
import Pages

package final class FakePages: @unchecked Sendable {
  package struct Counts: Equatable, Sendable {
    package var reserve = 0
    package var commit = 0
    package var purge = 0
    package var release = 0
    package var isFree = 0
    package var committedBytes: UInt = 0
    package init() {}
  }

  private struct State {
    var counts = Counts()
    var ranges: [(start: UInt, end: UInt)] = []
    var violations: [String] = []
    var commitsLeft = Int.max
    var reservesLeft = Int.max
    var largestReserve = UInt.max
    var purgeFails = false
    var releaseFails = false
    var isFree = true
    var observer: (() -> String?)?
  }

  private let mutex = Mutex()
  private var state = State()
  private let kernel = PageSource.shared()

  package init() {}

  package var counts: Counts { mutex.withLock { state.counts } }
  /// What callers did that PageSource forbids; empty in a right program.
  package var violations: [String] { mutex.withLock { state.violations } }
  /// Bytes of address space that are reserved now.
  package var reservedBytes: UInt {
    mutex.withLock { state.ranges.reduce(0) { $0 + $1.end - $1.start } }
  }

  // MARK: Failure on demand

  /// This many commits succeed from now on.
  package func allowCommits(_ count: Int) { mutex.withLock { state.commitsLeft = count } }
  package func allowReserves(_ count: Int) { mutex.withLock { state.reservesLeft = count } }
  /// Larger reservations fail.
  package func limitReserve(to size: UInt) { mutex.withLock { state.largestReserve = size } }
  package func failPurges(_ fails: Bool) { mutex.withLock { state.purgeFails = fails } }
  package func failReleases(_ fails: Bool) { mutex.withLock { state.releaseFails = fails } }
  /// Untouched committed pages count from now on, as under strict overcommit.
  package func countCommits() { mutex.withLock { state.isFree = false } }

  /// Has `observer` asked at every call; what it returns is a violation.
  package func observe(_ observer: @escaping () -> String?) {
    mutex.withLock { state.observer = observer }
  }

  // MARK: The source

  /// The source that asks the calling thread's fake.
  package static func source() -> PageSource {
    PageSource(
      reserve: { Rig.current.pages.reserve($0) },
      commit: { Rig.current.pages.commit($0, $1) },
      purge: { Rig.current.pages.purge($0, $1) },
      release: { Rig.current.pages.release($0, $1) },
      isFree: { Rig.current.pages.isFree($0, $1) })
  }

  private func reserve(_ size: UInt) -> UInt {
    mutex.withLock {
      state.counts.reserve += 1
      check(size > 0 && size % 4096 == 0, "reserve of \(size) bytes")
      guard state.reservesLeft > 0, size <= state.largestReserve else { return 0 }
      state.reservesLeft -= 1
      let address = kernel.reserve(size)
      if address != 0 { state.ranges.append((address, address + size)) }
      return address
    }
  }

  private func commit(_ address: UInt, _ size: UInt) -> Bool {
    mutex.withLock {
      state.counts.commit += 1
      checkRange(address, size, "commit")
      guard state.commitsLeft > 0 else { return false }
      state.commitsLeft -= 1
      guard kernel.commit(address, size) else { return false }
      state.counts.committedBytes += size
      return true
    }
  }

  private func purge(_ address: UInt, _ size: UInt) -> Bool {
    mutex.withLock {
      state.counts.purge += 1
      checkRange(address, size, "purge")
      return !state.purgeFails && kernel.purge(address, size)
    }
  }

  private func isFree(_ address: UInt, _ size: UInt) -> Bool {
    mutex.withLock {
      state.counts.isFree += 1
      checkRange(address, size, "isFree")
      return state.isFree && kernel.isFree(address, size)
    }
  }

  private func release(_ address: UInt, _ size: UInt) -> Bool {
    mutex.withLock {
      state.counts.release += 1
      checkRange(address, size, "release")
      guard !state.releaseFails, kernel.release(address, size) else { return false }
      let end = address + size
      state.ranges = state.ranges.flatMap { range -> [(start: UInt, end: UInt)] in
        [(range.start, min(range.end, address)), (max(range.start, end), range.end)]
          .filter { $0.0 < $0.1 }
      }
      return true
    }
  }

  /// Gives back everything that is still reserved.
  func releaseAll() {
    mutex.withLock {
      for range in state.ranges { _ = kernel.release(range.start, range.end - range.start) }
      state.ranges = []
    }
  }

  // MARK: The contract

  private func checkRange(_ address: UInt, _ size: UInt, _ what: String) {
    check(
      address % 4096 == 0 && size % 4096 == 0 && size > 0
        && state.ranges.contains { $0.start <= address && address + size <= $0.end },
      "\(what) of \(size) bytes at \(String(address, radix: 16))")
  }

  private func check(_ condition: Bool, _ what: String) {
    if !condition { state.violations.append(what) }
    if let complaint = state.observer?() { state.violations.append(complaint) }
  }
}

/// A pthread mutex: the sanitizer knows it, and it has no rank.
package final class Mutex: @unchecked Sendable {
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  package init() { pthread_mutex_init(mutex, nil) }
  deinit {
    pthread_mutex_destroy(mutex)
    mutex.deallocate()
  }
  package func withLock<Result>(_ body: () throws -> Result) rethrows -> Result {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    return try body()
  }
}

extension PageSource {
  /// The kernel's pages, for tests side by side. These system calls are none of the C
  /// library's, so the thread sanitizer does not see them: that the memory one test gives
  /// back may be another's next it learns from a lock.
  package static func shared() -> PageSource {
    var source = kernel()
    source.reserve = { size in exchange.withLock { PageSource.kernel().reserve(size) } }
    source.release = { address, size in
      exchange.withLock { PageSource.kernel().release(address, size) }
    }
    return source
  }
}

private let exchange = Mutex()
