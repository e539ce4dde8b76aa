import Base
import Glibc
import Testing
import TestSupport

/// A counter that only a lock protects.
private struct Guarded: ~Copyable {
  // Not the lock first: TSan takes a mutating access for a write to the first field.
  var value = 0
  let lock: Lock
  var contended = 0
  init(rank: LockRank = .none) { lock = Lock(rank: rank) }

  static func make(rank: LockRank = .none) -> UnsafeMutablePointer<Guarded> {
    let guarded = UnsafeMutablePointer<Guarded>.allocate(capacity: 1)
    guarded.initialize(to: Guarded(rank: rank))
    return guarded
  }
}

private struct Shared: @unchecked Sendable {
  let pointer: UnsafeMutablePointer<Guarded>
}

@Suite struct LockTests {
  @Test("eight threads that count under a lock lose no count")
  func mutualExclusion() {
    let shared = Shared(pointer: Guarded.make(rank: .zone))
    let rounds = 20_000
    Parallel.run(8) { _ in
      for _ in 0..<rounds {
        let waited = shared.pointer.pointee.lock.lockReportingContention()
        shared.pointer.pointee.value += 1
        if waited { shared.pointer.pointee.contended += 1 }
        shared.pointer.pointee.lock.unlock()
      }
    }
    let (value, contended) = (shared.pointer.pointee.value, shared.pointer.pointee.contended)
    #expect(value == 8 * rounds)
    #expect(contended < 8 * rounds)
  }

  @Test("a thread that waits longer than it spins sleeps, and unlock wakes it")
  func sleepers() {
    let shared = Shared(pointer: Guarded.make())
    shared.pointer.pointee.lock.lock()
    Parallel.run(5) { index in
      if index == 0 {
        usleep(20_000)
        shared.pointer.pointee.lock.unlock()
        return
      }
      shared.pointer.pointee.lock.withLock { shared.pointer.pointee.value += 1 }
    }
    let value = shared.pointer.pointee.value
    #expect(value == 4)
    #expect(!shared.isHeld)
  }

  @Test("tryLock takes a free lock and leaves a held one alone")
  func tryLock() {
    let shared = Shared(pointer: Guarded.make(rank: .keg))
    #expect(shared.tryLock())
    #expect(shared.isHeld)
    #expect(!shared.tryLock())
    shared.pointer.pointee.lock.unlock()
    #expect(!shared.isHeld)
    #expect(shared.tryLock())
    shared.pointer.pointee.lock.unlock()
  }

  @Test("U09: contention is reported by who had to wait, and by nobody else")
  func contention() {
    let shared = Shared(pointer: Guarded.make())
    #expect(!shared.lockReportingContention())
    // On a busy machine the second thread may come only when the lock is free again.
    for _ in 0..<200 where shared.pointer.pointee.contended == 0 {
      let barrier = Barrier(2)
      Parallel.run(2) { index in
        barrier.wait()
        if index == 0 {
          usleep(10_000)
          shared.pointer.pointee.lock.unlock()
        } else {
          let waited = shared.lockReportingContention()
          shared.pointer.pointee.contended = waited ? 1 : 0
          shared.pointer.pointee.lock.unlock()
        }
      }
      #expect(!shared.lockReportingContention())
    }
    shared.pointer.pointee.lock.unlock()
    let contended = shared.pointer.pointee.contended
    #expect(contended == 1)
  }

  @Test("reset frees a lock whoever held it")
  func reset() {
    let shared = Shared(pointer: Guarded.make())
    shared.pointer.pointee.lock.lock()
    shared.pointer.pointee.lock.reset()
    #expect(!shared.isHeld)
    #expect(shared.tryLock())
    shared.pointer.pointee.lock.unlock()
  }

  @Test("withLock returns what the body returns and leaves the lock free")
  func result() {
    let shared = Shared(pointer: Guarded.make())
    let value = shared.pointer.pointee.lock.withLock { 7 }
    #expect(value == 7)
    #expect(!shared.isHeld)
  }
}

extension Shared {
  fileprivate var isHeld: Bool {
    if !tryLock() { return true }
    pointer.pointee.lock.unlock()
    return false
  }
  fileprivate func tryLock() -> Bool { pointer.pointee.lock.tryLock() }
  fileprivate func lockReportingContention() -> Bool {
    pointer.pointee.lock.lockReportingContention()
  }
}

@Suite struct LockRankTests {
  @Test("locks may be taken in the order of their ranks, and again after release")
  func order() {
    let ranks: [LockRank] = [
      .boot, .threadList, .thread, .zoneList, .zone, .keg, .heap, .arena, .arena1, .arena2, .arena3, .outside,
      .metadata,
    ]
    let locks = ranks.map { Shared(pointer: Guarded.make(rank: $0)) }
    for _ in 0..<2 {
      for lock in locks { lock.pointer.pointee.lock.lock() }
      for lock in locks.reversed() { lock.pointer.pointee.lock.unlock() }
    }
    // The order of release is free.
    for lock in locks { lock.pointer.pointee.lock.lock() }
    for lock in locks { lock.pointer.pointee.lock.unlock() }
    #expect(locks.allSatisfy { !$0.isHeld })
  }

  @Test("the ranks that one thread holds are no matter to another")
  func perThread() {
    let high = Shared(pointer: Guarded.make(rank: .metadata))
    let low = Shared(pointer: Guarded.make(rank: .zone))
    high.pointer.pointee.lock.lock()
    Parallel.run(1) { _ in low.pointer.pointee.lock.withLock {} }
    high.pointer.pointee.lock.unlock()
    #expect(!low.isHeld)
  }

  @Test("arenas rank by height, the fourth level and above alike")
  func arenaRanks() {
    #expect((0..<6).map { LockRank.arena(height: $0).rawValue }
      == [LockRank.arena, .arena1, .arena2, .arena3, .arena3, .arena3].map(\.rawValue))
  }

  #if INVARIANTS
    @Test("taking a lower rank under a higher one ends the process with a line that says so")
    func inversion() async throws {
      let result = try #require(
        await #expect(processExitsWith: .signal(SIGABRT), observing: [\.standardErrorContent]) {
          let keg = Lock(rank: .keg)
          let zone = Lock(rank: .zone)
          keg.lock()
          zone.lock()
        })
      let text = String(decoding: result.standardErrorContent, as: UTF8.self)
      let (zone, keg) = (LockRank.zone.rawValue, LockRank.keg.rawValue)
      let held = String(1 << UInt(keg), radix: 16)
      #expect(text == "kegmalloc: lock order: rank \(zone) taken under ranks 0x\(held)\n")
    }

    @Test("two locks of one rank at once end the process")
    func sameRank() async {
      await #expect(processExitsWith: .signal(SIGABRT)) {
        let first = Lock(rank: .keg)
        let second = Lock(rank: .keg)
        first.lock()
        second.lock()
      }
    }

    @Test("tryLock obeys the ranks too")
    func tryLockInversion() async {
      await #expect(processExitsWith: .signal(SIGABRT)) {
        let keg = Lock(rank: .keg)
        let zone = Lock(rank: .zone)
        keg.lock()
        _ = zone.tryLock()
      }
    }

    @Test("tryLockOutOfOrder does not, and is no lock to later ones")
    func tryOutOfOrder() {
      let zone = Lock(rank: .zone)
      let keg = Lock(rank: .keg)
      keg.lock()
      #expect(zone.tryLockOutOfOrder() && !zone.tryLockOutOfOrder())
      zone.unlock()
      keg.unlock()
      zone.lock()
      zone.unlock()
    }
  #endif
}
