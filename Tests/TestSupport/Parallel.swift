// Parallel.swift: threads, seeded chance, captured text, and hooks that count.

import Base
import Glibc
import Pages

package enum Parallel {
  private final class Job {
    let index: Int
    let body: @Sendable (Int) -> Void
    init(_ index: Int, _ body: @escaping @Sendable (Int) -> Void) {
      self.index = index
      self.body = body
    }
  }

  /// Runs `body` with 0 ..< `count` on a thread each, and waits for all.
  package static func run(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) {
    var threads: [pthread_t] = []
    for index in 0..<count {
      var thread = pthread_t()
      let job = Unmanaged.passRetained(Job(index, body)).toOpaque()
      let failed = pthread_create(
        &thread, nil,
        {
          let job = Unmanaged<Job>.fromOpaque($0!).takeRetainedValue()
          job.body(job.index)
          return nil
        }, job)
      if failed != 0 { die("test: no thread") }
      threads.append(thread)
    }
    for thread in threads { pthread_join(thread, nil) }
  }
}

/// SplitMix64 (Steele, Lea & Flood 2014): a seeded generator for random walks.
package struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64
  package init(seed: UInt64) { state = seed }
  package mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
  package mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }
}

/// What `body` writes, in the pieces that reached the sink.
package func pieces(_ body: (inout Text) -> Void) -> [String] {
  final class Box { var pieces: [String] = [] }
  let box = Box()
  var text = Text(
    to: { context, bytes, count in
      let box = Unmanaged<Box>.fromOpaque(context!).takeUnretainedValue()
      let buffer = UnsafeRawBufferPointer(start: bytes, count: count)
      box.pieces.append(String(decoding: buffer, as: UTF8.self))
    }, context: Unmanaged.passUnretained(box).toOpaque())
  body(&text)
  text.flush()
  return withExtendedLifetime(box) { box.pieces }
}

package func written(_ body: (inout Text) -> Void) -> String { pieces(body).joined() }

/// What `body` writes to the descriptor it is given; at most a pipe's 64 KiB.
package func writtenToDescriptor(_ body: (Int32) -> Void) -> String {
  var ends: [Int32] = [0, 0]
  if pipe(&ends) != 0 { die("test: no pipe") }
  body(ends[1])
  close(ends[1])
  var bytes = [UInt8](repeating: 0, count: 1 << 17)
  var count = 0
  while true {
    let got = bytes.withUnsafeMutableBytes { read(ends[0], $0.baseAddress! + count, 4096) }
    if got <= 0 { break }
    count += got
  }
  close(ends[0])
  return String(decoding: bytes.prefix(count), as: UTF8.self)
}

/// What the hooks of kegs and zones did. The hooks have no context either, so they
/// write to the log of the calling thread's rig.
package final class HookLog: @unchecked Sendable {
  private let mutex = Mutex()
  private var events: [Event] = []
  private var initsLeft = Int.max

  package enum Event: Equatable, Sendable {
    case initialised(UInt)
    case finished(UInt)
  }

  package var log: [Event] { mutex.withLock { events } }
  package var inits: [UInt] {
    log.compactMap { if case .initialised(let item) = $0 { item } else { nil } }
  }
  package var finis: [UInt] {
    log.compactMap { if case .finished(let item) = $0 { item } else { nil } }
  }
  package func clear() { mutex.withLock { events = [] } }
  /// This many inits succeed from now on.
  package func allowInits(_ count: Int) { mutex.withLock { initsLeft = count } }

  package func initialise(_ item: UInt) -> Int32 {
    mutex.withLock {
      guard initsLeft > 0 else { return 1 }
      initsLeft -= 1
      events.append(.initialised(item))
      return 0
    }
  }
  package func finish(_ item: UInt) { mutex.withLock { events.append(.finished(item)) } }
}

extension HookLog {
  /// Hooks that write to the log of the calling thread's rig.
  package static var itemInit: @convention(c) (UnsafeMutableRawPointer?, Int, Int32) -> Int32 {
    { item, _, _ in Rig.current.hooks.initialise(UInt(bitPattern: item)) }
  }
  package static var itemFini: @convention(c) (UnsafeMutableRawPointer?, Int) -> Void {
    { item, _ in Rig.current.hooks.finish(UInt(bitPattern: item)) }
  }
}

/// Holds back threads until all of them have arrived.
package final class Barrier: @unchecked Sendable {
  private let barrier = UnsafeMutablePointer<pthread_barrier_t>.allocate(capacity: 1)
  package init(_ count: Int) { pthread_barrier_init(barrier, nil, UInt32(count)) }
  deinit {
    pthread_barrier_destroy(barrier)
    barrier.deallocate()
  }
  package func wait() { pthread_barrier_wait(barrier) }
}

/// What threads hand to each other and to the test.
package final class Collected<Value>: @unchecked Sendable {
  private let mutex = Mutex()
  private var list: [Value] = []
  package init() {}
  package var values: [Value] { mutex.withLock { list } }
  package func append(_ value: Value) { mutex.withLock { list.append(value) } }
  package func removeAll() -> [Value] {
    mutex.withLock {
      defer { list = [] }
      return list
    }
  }
}

/// A pointer that threads of a test share.
package struct Shared<Pointee: ~Copyable>: @unchecked Sendable {
  package let pointer: UnsafeMutablePointer<Pointee>
  package init(_ pointer: UnsafeMutablePointer<Pointee>) { self.pointer = pointer }
}
