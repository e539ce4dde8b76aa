import Base
import Testing

@testable import Debug

/// A slot between two others, zones and trash as after a free of `size` bytes.
private func withSlot(_ size: UInt, capacity: UInt, _ body: (_ slot: UInt, _ end: UInt) -> Void) {
  let memory = UnsafeMutableRawPointer.allocate(byteCount: Int(capacity) + 32, alignment: 16)
  defer { memory.deallocate() }
  let slot = UInt(bitPattern: memory) + 16
  let end = slot + capacity
  writeZone(slot - 16, slot)
  writeFewTrash(Trash.freed, slot, size)
  writeZone(slot + size, end)
  body(slot, end)
}

private func isBetweenZones(_ slot: UInt, _ size: UInt, _ end: UInt) -> Bool {
  isZone(slot - 16, slot) { false } && isZone(slot + size, end) { false }
}

private func byte(_ address: UInt) -> UnsafeMutablePointer<UInt8> {
  UnsafeMutablePointer(bitPattern: address)!
}

@Suite("red zones and trash")
struct PatternTests {
  @Test("any byte that changes is noticed, and no other", arguments: UInt(0)...70)
  func everyByte(size: UInt) {
    for capacity in stride(from: (size + 31) & ~15, through: (size + 63) & ~15, by: 16) {
      withSlot(size, capacity: capacity) { slot, end in
        #expect(isBetweenZones(slot, size, end))
        #expect(isTrashAndZone(slot, size, end, mayCount: { false }))
        for address in slot - 16..<end {
          for change: UInt8 in [1, 0x80] {
            byte(address).pointee ^= change
            let isUser = address >= slot && address < slot + size
            #expect(isBetweenZones(slot, size, end) == isUser)
            #expect(isTrashAndZone(slot, size, end, mayCount: { false }) == (address < slot))
            #expect((damageOfZone(slot + size, end) != nil) == (address >= slot + size))
            byte(address).pointee ^= change
          }
        }
      }
    }
  }

  @Test("two changes do not hide each other")
  func pairs() {
    withSlot(21, capacity: 48) { slot, end in
      for first in slot..<end {
        for second in slot..<first {
          byte(first).pointee ^= 0x41
          byte(second).pointee ^= 0x41
          #expect(!isTrashAndZone(slot, 21, end, mayCount: { false }))
          #expect(isBetweenZones(slot, 21, end) == (first < slot + 21))
          byte(first).pointee ^= 0x41
          byte(second).pointee ^= 0x41
        }
      }
    }
  }

  @Test("a zone may end in a count of no elements, where there may be one, and in nothing else")
  func count() {
    withSlot(8, capacity: 48) { slot, end in
      (end - 8).word = 0
      #expect(isZone(slot + 8, end, mayCount: { true }))
      #expect(!isZone(slot + 8, end, mayCount: { false }))
      #expect(isTrashAndZone(slot, 8, end, mayCount: { true }))
      for address in slot..<end {
        byte(address).pointee ^= 1
        #expect(isZone(slot + 8, end, mayCount: { true }) == (address < slot + 8))
        #expect(!isTrashAndZone(slot, 8, end, mayCount: { true }))
        byte(address).pointee ^= 1
      }
    }
  }

  @Test("what may be the number of elements of an array with its count", arguments: [
    (0, 48, false), (1, 48, true), (3, 48, false), (5, 48, true), (40, 48, true), (41, 48, false), (1, 7, false),
  ])
  func beginning(count: UInt, size: UInt, is expected: Bool) {
    withSlot(48, capacity: 64) { slot, _ in
      slot.word = count
      #expect(beginsWithCount(slot, size) == expected)
    }
  }

  @Test("little trash is the same as much", arguments: UInt(0)...130)
  func few(size: UInt) {
    withSlot(0, capacity: 192) { slot, end in
      writeFewTrash(Trash.allocated, slot, size)
      #expect(isTrash(Trash.allocated, slot, slot + size))
      #expect(isZone(slot + size, end, mayCount: { false }))
    }
  }

  @Test("bytes of a zone are no letters, no NUL, and differ from their neighbours'")
  func bytes() {
    var equal = 0
    for address in stride(from: UInt(0x7000_0000_0000), to: 0x7000_0000_8000, by: 8) {
      let word = zoneWord(address)
      for shift in stride(from: UInt(0), to: 64, by: 8) { #expect((word >> shift) & 0xC0 == 0x80) }
      if word == zoneWord(address + 8) || word == zoneWord(address + 16) { equal += 1 }
    }
    #expect(equal == 0)
  }
}
