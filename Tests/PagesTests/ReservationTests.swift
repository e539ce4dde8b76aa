import Base
import Pages
import Testing
import TestSupport

/// A reservation in memory of its own: the macros copy what they look at.
private typealias ReservationPointer = UnsafeMutablePointer<Reservation>

extension UnsafeMutablePointer where Pointee == Reservation {
  fileprivate static func make(_ wanted: UInt) -> UnsafeMutablePointer<Reservation>? {
    guard let made = Reservation(wanted: wanted, pageSize: 4096, source: FakePages.source())
    else { return nil }
    let pointer = UnsafeMutablePointer<Reservation>.allocate(capacity: 1)
    pointer.initialize(to: made)
    return pointer
  }
  fileprivate var start: UInt { pointee.start }
  fileprivate var end: UInt { pointee.end }
  fileprivate var tables: UInt { pointee.tables }
  fileprivate var heapStart: UInt { pointee.heapStart }
  fileprivate var heapTop: UInt { pointee.heapTop }
  fileprivate var metadataEnd: UInt { pointee.metadataEnd }
  fileprivate var chunkCount: UInt { pointee.chunkCount }
  fileprivate var reservedBytes: UInt { pointee.end - pointee.start }
  fileprivate func contains(_ address: UInt) -> Bool { pointee.contains(address) }
  fileprivate func growHeap(to newTop: UInt) -> Bool { pointee.growHeap(to: newTop) }
}

@Suite struct ReservationTests {
  @Test("what is granted at once is kept whole")
  func whole() {
    Rig.use(wanted: 0) { rig in
      let reservation = ReservationPointer.make(1 << 30)!
      #expect(reservation.reservedBytes == 1 << 30)
      #expect(rig.pages.counts.reserve == 1)
      #expect(rig.pages.counts.release == 0)
      #expect(rig.pages.counts.commit == 0)
    }
  }

  @Test("a refused size is halved until granted, and half of that is left to the program")
  func halving() {
    Rig.use(wanted: 0) { rig in
      rig.pages.limitReserve(to: 1 << 26)
      let reservation = ReservationPointer.make(1 << 30)!
      #expect(rig.pages.counts.reserve == 5)
      #expect(reservation.reservedBytes == 1 << 25)
      #expect(rig.pages.reservedBytes == 1 << 25)
    }
  }

  @Test("when half cannot be given back the whole is kept")
  func halvingWithoutRelease() {
    Rig.use(wanted: 0) { rig in
      rig.pages.limitReserve(to: 1 << 26)
      rig.pages.failReleases(true)
      let reservation = ReservationPointer.make(1 << 30)!
      #expect(reservation.reservedBytes == 1 << 26)
    }
  }

  @Test("below 4 MiB there is no reservation")
  func tooLittle() {
    Rig.use(wanted: 0) { rig in
      rig.pages.limitReserve(to: 1 << 21)
      #expect(ReservationPointer.make(1 << 30) == nil)
      #expect(rig.pages.counts.reserve == 9)
      #expect(rig.pages.reservedBytes == 0)
    }
  }

  @Test("the parts lie in order, aligned, and do not overlap", arguments: (UInt(22)...36).map { $0 })
  func layout(log2Size: UInt) {
    Rig.use(wanted: 0) { rig in
      let size: UInt = 1 << log2Size
      let reservation = ReservationPointer.make(size)!
      let chunks = size / Chunk.size
      #expect(reservation.start < reservation.metadataEnd)
      #expect(reservation.metadataEnd - reservation.start >= size / 16)
      #expect(reservation.tables.isMultiple(ofPowerOfTwo: Chunk.size))
      // Both tables have room for every chunk up to the end, and a guard page is left.
      let covered = (reservation.end - reservation.tables) / Chunk.size
      #expect(covered <= chunks)
      #expect(reservation.tables - reservation.metadataEnd >= covered * 8)
      #expect(reservation.heapStart - reservation.tables >= covered * 2 + 4096)
      let alignment: UInt = size >= 1 << 26 ? 1 << 21 : Chunk.size
      #expect(reservation.heapStart.isMultiple(ofPowerOfTwo: alignment))
      #expect(reservation.heapStart < reservation.end)
      #expect(reservation.heapTop == reservation.heapStart)
      #expect(!reservation.contains(reservation.heapStart))
    }
  }

  @Test("growing commits the heap and as much of both tables as describes it")
  func growth() {
    Rig.use(wanted: 0) { rig in
      let reservation = ReservationPointer.make(1 << 30)!
      var top = reservation.heapStart
      while top + (1 << 24) < reservation.end {
        top += 1 << 24
        #expect(reservation.growHeap(to: top))
        #expect(reservation.heapTop == top)
        let last = reservation.chunkCount - 1
        #expect(last == (top - 1 - reservation.tables) >> Chunk.shift)
        // The entries of the last chunk can be written and are zero.
        for address in [reservation.tables + last * 2 & ~7, reservation.tables - (last + 1) * 8] {
          #expect(address.word == 0)
          address.word = 0
        }
        #expect((top - 8).word == 0)
        #expect(reservation.contains(top - 1) && !reservation.contains(top))
      }
      #expect(!reservation.contains(reservation.heapStart - 1))
      #expect(rig.pages.violations == [])
      // The tables of a GiB, 128 KiB and 512 KiB, grow in steps of 16 pages.
      #expect(rig.pages.counts.commit < 63 + 3 + 9)
    }
  }

  @Test("the heap grows to the very end and not beyond")
  func growToEnd() {
    Rig.use(wanted: 0) { rig in
      let reservation = ReservationPointer.make(1 << 24)!
      let end = reservation.end.roundedDown(to: Chunk.size)
      #expect(!reservation.growHeap(to: end + Chunk.size))
      #expect(reservation.growHeap(to: end))
      #expect(!reservation.growHeap(to: end + Chunk.size))
      #expect(reservation.heapTop == end)
      #expect(rig.pages.violations == [])
    }
  }

  @Test("a commit that fails at any step leaves the heap as it was; later growth succeeds")
  func growthFailure() {
    for allowed in 0..<3 {
      Rig.use(wanted: 0) { rig in
        let reservation = ReservationPointer.make(1 << 30)!
        rig.pages.allowCommits(allowed)
        let wanted = reservation.heapStart + (1 << 25)
        #expect(!reservation.growHeap(to: wanted))
        #expect(reservation.heapTop == reservation.heapStart)
        #expect(!reservation.contains(reservation.heapStart))
        rig.pages.allowCommits(.max)
        #expect(reservation.growHeap(to: wanted))
        #expect(reservation.heapTop == wanted)
        // No step was committed twice.
        #expect(rig.pages.counts.commit == 4)
      }
    }
  }

  @Test("releaseUnused keeps metadata, tables and heap, and the heap cannot grow any more")
  func unused() {
    Rig.use(wanted: 0) { rig in
      let reservation = ReservationPointer.make(1 << 28)!
      let top = reservation.heapStart + (1 << 20)
      #expect(reservation.growHeap(to: top))
      let last = reservation.chunkCount - 1
      let words = [reservation.tables + last * 2 & ~7, reservation.tables - (last + 1) * 8, top - 8]
      for address in words { address.word = address }
      reservation.pointee.releaseUnused()
      #expect(reservation.end == top)
      #expect(rig.pages.reservedBytes < (1 << 24) + (1 << 21))
      #expect(rig.pages.reservedBytes >= 1 << 24)
      #expect(words.allSatisfy { $0.word == $0 })
      #expect(!reservation.growHeap(to: top + Chunk.size))
      let releases = rig.pages.counts.release
      reservation.pointee.releaseUnused()
      #expect(rig.pages.counts.release == releases)
      #expect(rig.pages.violations == [])
    }
  }

  @Test("releaseUnused can keep a part, in which the heap goes on")
  func unusedButForAPart() {
    Rig.use(wanted: 0) { rig in
      let reservation = ReservationPointer.make(1 << 30)!
      let top = reservation.heapStart + (1 << 20)
      #expect(reservation.growHeap(to: top))
      let isFree = reservation.pointee.untouchedIsFree()
      #expect(isFree)
      reservation.pointee.releaseUnused(keeping: 100 << 20)
      #expect(reservation.end == top + (100 << 20))
      #expect(rig.pages.reservedBytes < (1 << 26) + (104 << 20))
      #expect(reservation.growHeap(to: reservation.end))
      let last = reservation.chunkCount - 1
      for address in [reservation.tables + last * 2 & ~7, reservation.tables - (last + 1) * 8] {
        address.word = address
        #expect(address.word == address)
      }
      let isStillFree = reservation.pointee.untouchedIsFree()
      #expect(!isStillFree)
      reservation.pointee.releaseUnused(keeping: 100 << 20)
      #expect(reservation.end == top + (100 << 20))
      #expect(rig.pages.violations == [])
    }
  }

  @Test("a rest that cannot be given back stays usable")
  func unusedFailure() {
    Rig.use(wanted: 0) { rig in
      let reservation = ReservationPointer.make(1 << 28)!
      let end = reservation.end
      rig.pages.failReleases(true)
      reservation.pointee.releaseUnused()
      #expect(reservation.end == end)
      #expect(reservation.growHeap(to: reservation.heapStart + (1 << 20)))
    }
  }
}
