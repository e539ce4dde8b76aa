// RecentSpansTests.swift: freed large blocks that wait for a request of their size.

import Base
import Pages
import TestSupport
import Testing
import Vmem

@testable import Keg

@Suite struct RecentSpansTests {
  @Test("a span is handed out again for exactly its size, once")
  func exactSize() {
    Rig.use { rig in
      let span = rig.heap.allocateSpan(5 * Chunk.size)!
      #expect(rig.heap.giveRecent(span))
      #expect(rig.heap.recentBytes == 5 * Chunk.size)
      #expect(rig.heap.takeRecent(4 * Chunk.size) == nil)
      #expect(rig.heap.takeRecent(5 * Chunk.size) == span)
      #expect(rig.heap.takeRecent(5 * Chunk.size) == nil)
      rig.heap.freeSpan(span)
    }
  }

  @Test("four spans are kept, none above 8 MiB, and a flush hands all to the arena")
  func bounded() {
    Rig.use { rig in
      let spans = (1...5).map { rig.heap.allocateSpan($0 * Chunk.size)! }
      for span in spans.dropLast() { #expect(rig.heap.giveRecent(span)) }
      #expect(!rig.heap.giveRecent(spans[4]))
      let big = rig.heap.allocateSpan((1 << 23) + Chunk.size)!
      let before = rig.heap.recentBytes
      #expect(!rig.heap.giveRecent(big) && rig.heap.recentBytes == before)
      rig.heap.freeSpan(spans[4])
      rig.heap.freeSpan(big)
      _ = rig.heap.flushRecent()
      #expect(rig.heap.recentBytes == 0 && !rig.heap.flushRecent())
      #expect(rig.heap.pointee.arena.sizes.inUse == 0)
    }
  }

  @Test("no clean memory is used while recent spans hold dirty memory that fits")
  func beforeCleanMemory() {
    Rig.use { rig in
      let one = rig.heap.allocateSpan(8 * Chunk.size)!
      let start = one.pointee.start
      #expect(rig.heap.giveRecent(one))
      let two = rig.heap.allocateSpan(3 * Chunk.size)!
      #expect(two.pointee.start == start && two.pointee.isDirty)
      rig.heap.freeSpan(two)
    }
  }

  @Test("threads that trade spans never hold one twice")
  func threads() {
    Rig.use { rig in
      let shared = Shared(rig.heap!)
      rig.inParallel(4) { index in
        let heap = shared.pointer
        for round in 0..<2000 {
          let size = UInt(2 + (round + index) % 3) * Chunk.size
          guard let span = heap.takeRecent(size) ?? heap.allocateSpan(size) else { continue }
          #expect(span.pointee.size == size)
          let word = span.pointee.start.pointer(to: UInt.self)
          word.pointee = UInt(index)
          for _ in 0..<3 { #expect(word.pointee == UInt(index)) }
          if !heap.giveRecent(span) { heap.freeSpan(span) }
        }
      }
      _ = rig.heap.flushRecent()
      #expect(rig.heap.pointee.arena.sizes.inUse == 0)
    }
  }
}
