import Base
import Testing

@Suite struct FlagsTests {
  private struct Colours: Flags {
    let rawValue: UInt64
    static var red: Colours { Colours(rawValue: 1) }
    static var blue: Colours { Colours(rawValue: 1 << 63) }
  }

  @Test("a set contains what was united, none contains only itself, all contain none")
  func sets() {
    let both = Colours.red.union(.blue)
    #expect(both.contains(.red) && both.contains(.blue) && both.contains(both))
    #expect(!Colours.red.contains(.blue) && !Colours.red.contains(both))
    #expect(both.contains(.none) && Colours.none.contains(.none))
    #expect(!Colours.none.contains(.red))
    let expected: UInt64 = 1 | 1 << 63
    #expect(both.rawValue == expected)
  }
}
