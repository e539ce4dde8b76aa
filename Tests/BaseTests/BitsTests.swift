import Base
import Testing

@Suite struct BitsTests {
  @Test("rounding to a power of two agrees with the definition by division")
  func rounding() {
    for shift in UInt(0)...16 {
      let alignment: UInt = 1 << shift
      for value in (UInt(0)...300).map({ $0 * 211 }) {
        let up = (value + alignment - 1) / alignment * alignment
        let down = value / alignment * alignment
        #expect(value.roundedUp(to: alignment) == up)
        #expect(value.roundedDown(to: alignment) == down)
        #expect(value.isMultiple(ofPowerOfTwo: alignment) == (value % alignment == 0))
      }
    }
  }

  @Test("powers of two and logarithms agree with a search")
  func logarithms() {
    #expect(!UInt(0).isPowerOfTwo)
    for value in UInt(1)...5000 {
      var floor: UInt = 0
      while (1 as UInt) << (floor + 1) <= value { floor += 1 }
      let isPower = (1 as UInt) << floor == value
      let ceiling = isPower ? floor : floor + 1
      #expect(value.isPowerOfTwo == isPower)
      #expect(value.log2Floor == floor)
      #expect(value.log2Ceiling == ceiling)
      #expect(value.nextPowerOfTwo == 1 << ceiling)
    }
    #expect(UInt(0).nextPowerOfTwo == 1)
    #expect((UInt(1) << 63).log2Floor == 63)
    #expect((UInt(1) << 63).log2Ceiling == 63)
    #expect(UInt.max.log2Floor == 63)
  }

  @Test("an address is the pointer with that address, and its word can be stored and read")
  func pointers() {
    let memory = UnsafeMutablePointer<UInt>.allocate(capacity: 2)
    defer { memory.deallocate() }
    memory.initialize(repeating: 0, count: 2)
    let address = memory.address
    #expect(address.pointer(to: UInt.self) == memory)
    (address + 8).word = 42
    let stored = memory[1]
    #expect(stored == 42)
    #expect((address + 8).word == 42)
    #expect(address.word == 0)
  }
}
