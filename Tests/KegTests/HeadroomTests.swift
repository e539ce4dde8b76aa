// HeadroomTests.swift: large blocks that grow where they are.

import Base
import Pages
import TestSupport
import Testing
import Vmem

@testable import Keg

private let MiB: UInt = 1 << 20

@Suite struct HeadroomTests {
  @Test("a growing block gets eight times its size, and grows in it without another span")
  func grows() {
    Rig.use(wanted: 1 << 36) { rig in
      let span = rig.heap.allocateGrowing(MiB)!
      #expect(span.pointee.size == 8 * MiB && !span.pointee.isDirty)
      #expect(rig.heap.headroomBytes == 8 * MiB)
      let committed = rig.heap.pointee.committedBytes
      for size in 1...8 as ClosedRange<UInt> {
        #expect(rig.heap.extendGrowing(span, to: size * MiB))
        #expect(rig.heap.headroomBytes == (8 - size) * MiB)
      }
      // What is headroom does not count as heap; what is used does.
      #expect(rig.heap.pointee.committedBytes == committed + 8 * MiB)
      rig.heap.freeGrowing(span)
      _ = rig.heap.flushGrowing()
      #expect(rig.heap.pointee.arena.sizes.inUse == 0 && rig.heap.headroomBytes == 0)
    }
  }

  @Test("smaller blocks, a limit and scarce address space: none")
  func refused() {
    Rig.use(wanted: 1 << 36) { rig in
      #expect(rig.heap.allocateGrowing(MiB - 1) == nil)
      #expect(rig.heap.allocateGrowing(1 << 30) == nil)
      rig.heap.limitBytes = 1 << 30
      #expect(rig.heap.allocateGrowing(MiB) == nil)
      rig.heap.limitBytes = 0
    }
    Rig.use { rig in #expect(rig.heap.allocateGrowing(64 * MiB) == nil) }
  }

  @Test("none where untouched memory counts, until that has changed; the kernel is asked once")
  func counted() {
    Rig.use(wanted: 1 << 36) { rig in
      rig.heap.freeGrowing(rig.heap.allocateGrowing(MiB)!)
      rig.heap.freeGrowing(rig.heap.allocateGrowing(MiB)!)
      #expect(rig.pages.counts.isFree == 1)
      rig.pages.countCommits()
      rig.heap.forgetHeadroomCost()
      #expect(rig.heap.allocateGrowing(MiB) == nil && !rig.heap.headroomIsFree)
      #expect(rig.pages.counts.isFree == 2)
    }
  }

  @Test("only what was touched is dirty when the block goes")
  func touched() {
    Rig.use(wanted: 1 << 36) { rig in
      let span = rig.heap.allocateGrowing(MiB)!
      _ = rig.heap.extendGrowing(span, to: 3 * MiB)
      rig.heap.giveHeadroom(of: span)
      #expect(span.pointee.size == 3 * MiB && span.pointee.touched == 0)
      rig.heap.freeSpan(span)
      #expect(rig.heap.dirtyBytes == 3 * MiB && rig.heap.headroomBytes == 0)
    }
  }

  @Test("a freed one waits for the next block that grows, and goes when time is over")
  func waits() {
    Rig.use(wanted: 1 << 36) { rig in
      let span = rig.heap.allocateGrowing(2 * MiB)!
      let start = span.pointee.start
      _ = rig.heap.extendGrowing(span, to: 9 * MiB)
      rig.heap.freeGrowing(span)
      #expect(rig.heap.dirtyBytes == 9 * MiB)
      // Too small and too large for it.
      let other = rig.heap.allocateGrowing(9 * MiB)!
      #expect(other.pointee.start != start)
      rig.heap.pointee.now = 100
      let again = rig.heap.allocateGrowing(MiB)!
      #expect(again.pointee.start == start && again.pointee.isDirty && again.pointee.touched == 9 * MiB)
      rig.heap.freeGrowing(again)
      rig.heap.pointee.now = 120
      _ = rig.heap.purge(notAfter: 99)
      #expect(rig.heap.recentBytes == 9 * MiB)
      _ = rig.heap.purge(notAfter: 100)
      #expect(rig.heap.recentBytes == 0 && rig.heap.dirtyBytes == 0)
      _ = rig.heap.extendGrowing(other, to: MiB)
      rig.heap.giveHeadroom(of: other)
      rig.heap.freeSpan(other)
    }
  }

  @Test("a block whose headroom is used up grows into its neighbour, or moves to one that waits")
  func beyond() {
    Rig.use(wanted: 1 << 36) { rig in
      let span = rig.heap.allocateGrowing(MiB)!
      _ = rig.heap.extendGrowing(span, to: 8 * MiB)
      #expect(rig.heap.extendGrowing(span, to: 9 * MiB))
      #expect(span.pointee.size == 9 * MiB && rig.heap.headroomBytes == 0)
      let larger = rig.heap.allocateGrowing(4 * MiB)!
      _ = rig.heap.extendGrowing(larger, to: 4 * MiB)
      rig.heap.freeGrowing(larger)
      #expect(!rig.heap.extendGrowing(span, to: 10 * MiB))
      #expect(span.pointee.payload == 9 * MiB)
      rig.heap.freeGrowing(span)
    }
  }
}
