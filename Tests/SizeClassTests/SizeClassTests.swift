import Base
import SizeClass
import Testing

@Suite struct SizeClassTests {
  @Test("every size has the smallest class that holds it, and the table agrees")
  func smallestClass() {
    for size in UInt(0)...SizeClass.largest {
      let index = SizeClass.index(of: size)
      #expect(SizeClass.size(of: index) >= size)
      if index > 1 { #expect(SizeClass.size(of: index - 1) < size) }
      let entry = SizeClass.tableIndex(of: size)
      #expect(SizeClass.index(of: SizeClass.greatestSize(atTableIndex: entry)) == index)
    }
    #expect(SizeClass.index(of: SizeClass.largest) == SizeClass.count)
    #expect(SizeClass.tableCount == 633)
  }

  @Test("at most 12.5 % of a request above 128 bytes is wasted")
  func waste() {
    for size in UInt(129)...SizeClass.largest {
      let got = SizeClass.size(of: SizeClass.index(of: size))
      #expect((got - size) * 8 <= got)
    }
  }

  @Test("K03: powers of two are aligned to themselves, cache lines to 64, the rest to 16")
  func alignment() {
    for index in 1...SizeClass.count {
      let size = SizeClass.size(of: index)
      if size >= 16 { #expect(size % 16 == 0) }
    }
    var power: UInt = 8
    while power <= SizeClass.largest {
      #expect(SizeClass.size(of: SizeClass.index(of: power)) == power)
      power *= 2
    }
    for size in stride(from: UInt(64), through: 1024, by: 64) {
      #expect(SizeClass.size(of: SizeClass.index(of: size)) % 64 == 0)
    }
  }

  @Test("an aligned request gets a class whose items are all aligned")
  func aligned() {
    for shift in UInt(3)...16 {
      for size in stride(from: UInt(1), through: SizeClass.largest, by: 97) {
        let aligned = SizeClass.size(size, alignedTo: 1 << shift)
        #expect(aligned <= SizeClass.largest)
        let got = SizeClass.size(of: SizeClass.index(of: aligned))
        #expect(got >= size && got % (1 << shift) == 0)
      }
    }
    #expect(SizeClass.size(0, alignedTo: 64) == 64)
  }
}
