// HomeSpansTests.swift: the spans of freed slabs that wait for their thread.

import Base
import Pages
import Platform
import TestSupport
import Testing
import Vmem

@testable import Keg

extension UnsafeMutablePointer where Pointee == Heap {
  /// Spans that are in use; more of them later may come from homes.
  fileprivate func spans(_ count: Int, chunks: UInt = 1) -> [TagPointer] {
    (0..<count).map { _ in allocateSpan(chunks * Chunk.size)! }
  }

  /// Frees slabs' spans as the thread with this number; their starts.
  @discardableResult
  fileprivate func free(_ spans: [TagPointer], as number: UInt32) -> [UInt] {
    keg_set_thread_number(number)
    defer { keg_set_thread_number(0) }
    return spans.map { span in
      let start = span.pointee.start
      freeSlabSpan(span)
      return start
    }
  }

  /// The start of a span taken as the thread with this number.
  fileprivate func take(
    _ chunks: UInt = 1, as number: UInt32, alignment: UInt = Chunk.size, from source: SpanSource = .freed
  ) -> UInt? {
    keg_set_thread_number(number)
    defer { keg_set_thread_number(0) }
    return takeSlabSpan(chunks * Chunk.size, alignment: alignment, from: source)?.pointee.start
  }
}

@Suite struct HomeSpansTests {
  @Test("a thread gets back what it freed, the latest first, and only then what others did, the first first")
  func own() {
    Rig.use { rig in
      let spans = rig.heap.spans(5)
      let first = rig.heap.free(Array(spans.prefix(3)), as: 2)
      let second = rig.heap.free(Array(spans.suffix(2)), as: 3)
      #expect(rig.heap.countHomeBytes() == 5 * Chunk.size)
      #expect(rig.heap.take(as: 3, from: .recent) == nil)
      #expect((0..<4).map { _ in rig.heap.take(as: 2) } == first.reversed() + [second[0]])
      // Later threads share the sixteen homes.
      #expect(rig.heap.take(as: 19) == second[1] && rig.heap.take(as: 2) == nil)
    }
  }

  @Test("a process of one thread has no homes, and threads without a number have none")
  func lone() {
    Rig.use { rig in
      let spans = rig.heap.spans(6)
      rig.heap.free(Array(spans[0..<2]), as: 1)
      rig.heap.free(Array(spans[2..<4]), as: 0)
      #expect(rig.heap.home(0) == nil && rig.heap.countHomeBytes() == 0)
      rig.heap.free([spans[4]], as: 2)
      #expect(rig.heap.home(1) != nil && rig.heap.home(2) == nil)
      let own = rig.heap.free([spans[5]], as: 1)
      #expect(rig.heap.take(as: 1) == own[0])
    }
  }

  @Test("sizes up to four chunks are kept apart, larger ones elsewhere")
  func sizes() {
    Rig.use { rig in
      let starts = rig.heap.free((1...5).flatMap { rig.heap.spans(1, chunks: $0) }, as: 2)
      #expect(rig.heap.countHomeBytes() == 10 * Chunk.size)
      for size in 1...4 { #expect(rig.heap.take(UInt(size), as: 2) == starts[size - 1]) }
    }
  }

  @Test("a span of another alignment is not handed out")
  func alignment() {
    Rig.use { rig in
      let starts = rig.heap.free(rig.heap.spans(2, chunks: 2), as: 2)
      let odd = starts.filter { $0 % (2 * Chunk.size) != 0 }
      let got = (0..<2).compactMap { _ in rig.heap.take(2, as: 2, alignment: 2 * Chunk.size) }
      #expect(got.allSatisfy { !odd.contains($0) } && rig.heap.countHomeBytes() == 0)
    }
  }

  @Test("before new memory any thread takes what others have, the first freed first; other sizes are merged")
  func others() {
    Rig.use { rig in
      let heap = rig.heap!
      heap.freeSpan(heap.allocateSpan(Chunk.size)!)
      let committed = heap.pointee.committedBytes
      // All there is, so that nothing dirty or clean is left in the arena.
      let starts = heap.free(heap.spans(Int(committed / Chunk.size)), as: 2)
      #expect(heap.countHomeBytes() == committed)
      #expect(heap.take(as: 3, from: .any) == starts[0])
      #expect(heap.take(8, as: 3, from: .any) != nil)
      #expect(heap.countHomeBytes() == 0 && heap.pointee.committedBytes == committed)
    }
  }

  @Test("at a tick the older half goes to the arena; a trim takes all")
  func flushed() {
    Rig.use { rig in
      let heap = rig.heap!
      heap.pointee.now = 5
      let starts = heap.free(heap.spans(11), as: 2)
      _ = heap.purge(notAfter: 0)
      #expect(heap.countHomeBytes() == 5 * Chunk.size && heap.bytesToPurge >= 11 * Chunk.size)
      #expect(heap.take(as: 2) == starts[10])
      for left in [2, 1, 0] as [UInt] {
        _ = heap.purge(notAfter: 0)
        #expect(heap.countHomeBytes() == left * Chunk.size)
      }
      heap.free(heap.spans(11), as: 2)
      _ = heap.purge(notAfter: .max)
      #expect(heap.countHomeBytes() == 0 && heap.bytesToPurge == 0)
      heap.checkInvariants()
    }
  }

  @Test("without metadata for homes spans go to the arena")
  func noMemory() {
    Rig.use { rig in
      let spans = rig.heap.spans(70)
      rig.exhaustMetadata()
      rig.heap.free(spans, as: 2)
      #expect(rig.heap.home(0) == nil && rig.heap.inUseBytes == 0)
    }
  }

  @Test("threads that free and take at once, with purges between, lose none and share none")
  func walk() {
    Rig.use { rig in
      let heap = Shared(rig.heap!)
      rig.inParallel(4) { index in
        keg_set_thread_number(UInt32(index + 1))
        defer { keg_set_thread_number(0) }
        var random = SeededGenerator(seed: UInt64(index))
        var held: [TagPointer] = []
        for step in 0..<2000 {
          if random.below(2) == 0 || held.isEmpty {
            let size = UInt(1 + random.below(5)) * Chunk.size
            guard let span = heap.pointer.takeSlabSpan(size, alignment: Chunk.size, from: .any) else {
              die("test: no span")
            }
            if span.pointee.payload != 0 { die("test: one span for two threads") }
            span.pointee.payload = UInt(index + 1)
            held.append(span)
          } else {
            let span = held.remove(at: random.below(held.count))
            if span.pointee.payload != UInt(index + 1) { die("test: one span for two threads") }
            span.pointee.payload = 0
            heap.pointer.freeSlabSpan(span)
          }
          if step % 200 == 199 { _ = heap.pointer.purge(notAfter: step % 400 == 199 ? 0 : .max) }
        }
        for span in held {
          span.pointee.payload = 0
          heap.pointer.freeSlabSpan(span)
        }
      }
      _ = rig.heap.purge(notAfter: .max)
      #expect(rig.heap.inUseBytes == 0 && rig.heap.countHomeBytes() == 0)
      rig.heap.checkInvariants()
    }
  }
}
