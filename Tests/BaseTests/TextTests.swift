import Base
import Testing
import TestSupport

@Suite struct TextTests {
  @Test(
    "numbers are written as Swift writes them",
    arguments: [0, 1, 9, 10, 255, 256, 65535, 1 << 32, UInt.max - 1, UInt.max])
  func numbers(value: UInt) {
    #expect(written { $0.append(decimal: value) } == String(value))
    #expect(written { $0.append(hexadecimal: value) } == "0x" + String(value, radix: 16))
  }

  @Test("a width pads on the left and never cuts")
  func width() {
    #expect(written { $0.append(decimal: 42, width: 5) } == "   42")
    #expect(written { $0.append(decimal: 12345, width: 5) } == "12345")
    #expect(written { $0.append(decimal: 123456, width: 5) } == "123456")
    #expect(written { $0.append(decimal: 0, width: 3) } == "  0")
    #expect(written { $0.append(decimal: 7, width: -3) } == "7")
  }

  @Test("pad writes that many spaces, and nothing for none or fewer")
  func padding() {
    #expect(written { $0.pad(3); $0.append("x"); $0.pad(0); $0.pad(-5); $0.append("y") } == "   xy")
  }

  @Test("a C string ends at its zero byte or at the limit")
  func cStrings() {
    #expect(written { $0.append(cString: "malloc-64") } == "malloc-64")
    #expect(written { $0.append(cString: "malloc-64", limit: 6) } == "malloc")
    #expect(written { $0.append(cString: "") } == "")
    let long = String(repeating: "a", count: 300)
    #expect(written { $0.append(cString: long) }.count == 200)
  }

  @Test("the sink gets full buffers of 512 bytes and the rest at the end")
  func flushing() {
    let parts = pieces { text in
      for i in 0..<1100 { text.append(byte: UInt8(ascii: "a") + UInt8(i % 26)) }
    }
    #expect(parts.map(\.utf8.count) == [512, 512, 76])
    let expected = (0..<1100).map { Character(UnicodeScalar(UInt8(ascii: "a") + UInt8($0 % 26))) }
    #expect(parts.joined() == String(expected))
  }

  @Test("exactly 512 bytes are one piece")
  func fullBuffer() {
    let parts = pieces { text in for _ in 0..<512 { text.append("x") } }
    #expect(parts.map(\.utf8.count) == [512])
  }

  @Test("a descriptor gets what a sink gets, and each flush is one write")
  func descriptor() {
    let text = writtenToDescriptor { descriptor in
      var text = Text(to: descriptor)
      text.append("a ")
      text.append(decimal: 12)
      text.flush()
      text.append(" b\n")
      text.flush()
    }
    #expect(text == "a 12 b\n")
  }

  @Test("text that is not flushed is not written; a bad descriptor is not an error")
  func unflushed() {
    let text = writtenToDescriptor { descriptor in
      var text = Text(to: descriptor)
      text.append("lost")
    }
    #expect(text == "")
    var nowhere = Text(to: -1)
    nowhere.append("x")
    nowhere.flush()
  }
}
