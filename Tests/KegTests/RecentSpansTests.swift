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

  @Test("64 spans of four sizes are kept, none above 8 MiB; a flush hands all to the arena")
  func bounded() {
    Rig.use { rig in
      let heap = rig.heap!
      let spans = (0..<65).map { heap.allocateSpan(UInt($0 % 4 + 1) * Chunk.size)! }
      let other = heap.allocateSpan(5 * Chunk.size)!
      let big = heap.allocateSpan((1 << 23) + Chunk.size)!
      for span in spans.prefix(4) { #expect(heap.giveRecent(span)) }
      #expect(!heap.giveRecent(other) && !heap.giveRecent(big))
      for span in spans[4..<64] { #expect(heap.giveRecent(span)) }
      #expect(!heap.giveRecent(spans[64]))
      #expect(heap.recentBytes == 16 * 10 * Chunk.size)
      for span in [spans[64], other, big] { heap.freeSpan(span) }
      let again = (0..<64).compactMap { heap.takeRecent(UInt($0 % 4 + 1) * Chunk.size) }
      #expect(Set(again) == Set(spans.prefix(64)) && heap.recentBytes == 0)
      for span in again { #expect(heap.giveRecent(span)) }
      _ = heap.flushRecent()
      #expect(heap.recentBytes == 0 && !heap.flushRecent())
      #expect(heap.pointee.arena.sizes.inUse == 0)
    }
  }

  @Test("a slab given back serves the next of its size")
  func slabs() {
    Rig.use { rig in
      let keg = rig.keg(size: 4096)
      let items = keg.takeAll(1)
      keg.giveAll(items)
      keg.drain()
      #expect(keg.slabCount == 0 && rig.heap.recentBytes == keg.layout.byteCount)
      #expect(keg.takeAll(1) == items && rig.heap.recentBytes == 0)
      keg.giveAll(items)
      keg.drain()
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
