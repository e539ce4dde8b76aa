// OutsideRegionsTests.swift: heap memory outside the reservation.

import Base
import Glibc
import Pages
import Synchronization
import TestSupport
import Testing

@testable import Keg

private let MiB: UInt = 1 << 20

/// The regions of nobody's heap, over a rig's metadata.
private final class Regions: @unchecked Sendable {
  let pointer = UnsafeMutablePointer<OutsideRegions>.allocate(capacity: 1)
  let rig: Rig
  init(_ rig: Rig) {
    self.rig = rig
    pointer.initialize(to: OutsideRegions())
  }
  deinit { pointer.deallocate() }

  func make(_ size: UInt) -> (start: UInt, size: UInt, isDirty: Bool)? {
    var actual: UInt = 0
    var isDirty = false
    let start = pointer.pointee.make(
      size, source: FakePages.source(), metadata: rig.heap.pointee.metadata, actual: &actual,
      isDirty: &isDirty)
    return start == .max ? nil : (start, actual, isDirty)
  }

  func release(_ start: UInt, isDirty: Bool = true, stamp: UInt64 = 0) {
    pointer.pointee.release(start, isDirty: isDirty, stamp: stamp, source: FakePages.source())
  }

  func releaseWaiting(notAfter stamp: UInt64) -> UInt {
    pointer.pointee.releaseWaiting(notAfter: stamp, source: FakePages.source())
  }
}

@Suite struct OutsideRegionsTests {
  @Test("a region that nobody uses waits for the next one of its size, as dirty as it was")
  func waits() {
    Rig.use { rig in
      let regions = Regions(rig)
      let first = regions.make(3 * MiB)!
      #expect(first.size == 3 * MiB && !first.isDirty)
      let reserved = rig.pages.reservedBytes
      regions.release(first.start, isDirty: true)
      #expect(regions.pointer.pointee.waitingBytes == 3 * MiB)
      #expect(rig.pages.reservedBytes == reserved)
      // Too small, and more than twice as large as need be.
      let larger = regions.make(4 * MiB)!
      let smaller = regions.make(Chunk.size)!
      #expect(larger.start != first.start && smaller.start != first.start)
      let again = regions.make(2 * MiB)!
      #expect(again == (first.start, first.size, true))
      #expect(regions.pointer.pointee.waitingBytes == 0)
      regions.release(again.start, isDirty: false)
      #expect(regions.make(3 * MiB)! == first)
      #expect(rig.pages.violations == [])
    }
  }

  @Test("waiting regions go when their time is over, and when they are many")
  func leaves() {
    Rig.use { rig in
      let regions = Regions(rig)
      let before = rig.pages.reservedBytes
      let old = regions.make(2 * MiB)!
      let young = regions.make(2 * MiB)!
      regions.release(old.start, stamp: 10)
      regions.release(young.start, stamp: 20)
      #expect(regions.releaseWaiting(notAfter: 9) == 0)
      #expect(regions.releaseWaiting(notAfter: 19) == 2 * MiB)
      #expect(regions.pointer.pointee.pageMap(for: old.start) == nil)
      #expect(regions.pointer.pointee.pageMap(for: young.start) != nil)
      #expect(regions.releaseWaiting(notAfter: .max) == 2 * MiB)
      let many = (0..<5).map { _ in regions.make(16 * MiB)! }
      for region in many { regions.release(region.start) }
      #expect(regions.pointer.pointee.waitingBytes == 64 * MiB)
      #expect(regions.pointer.pointee.count == 4)
      #expect(regions.releaseWaiting(notAfter: .max) == 64 * MiB)
      #expect(regions.pointer.pointee.count == 0 && rig.pages.reservedBytes == before)
      #expect(rig.pages.violations == [])
    }
  }

  @Test("look-ups find what is there while other regions come and go, and the lists grow")
  func lookUps() {
    Rig.use { rig in
      let regions = Regions(rig)
      let fixed = (0..<20).map { _ in regions.make(Chunk.size)! }
      let expected = fixed.map { regions.pointer.pointee.pageMap(for: $0.start)!.tables }
      let isOver = Atomic<Bool>(false)
      let wrong = Atomic<Int>(0)
      rig.inParallel(3) { index in
        if index == 0 {
          for _ in 0..<6 {
            let others = (0..<60).compactMap { _ in regions.make(Chunk.size) }
            for other in others.shuffled() { regions.release(other.start) }
            _ = regions.releaseWaiting(notAfter: .max)
          }
          isOver.store(true, ordering: .relaxed)
          return
        }
        while !isOver.load(ordering: .relaxed) {
          for (region, tables) in zip(fixed, expected) {
            let last = regions.pointer.pointee.pageMap(for: region.start + region.size - 1)
            if last?.tables != tables { wrong.wrappingAdd(1, ordering: .relaxed) }
          }
          if regions.pointer.pointee.pageMap(for: 0x1000) != nil {
            wrong.wrappingAdd(1, ordering: .relaxed)
          }
        }
      }
      #expect(wrong.load(ordering: .relaxed) == 0)
      #expect(regions.pointer.pointee.count == 20)
      #expect(rig.pages.violations == [])
    }
  }
}
