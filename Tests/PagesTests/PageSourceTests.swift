import Base
import Pages
import Testing

/// Of the kernel's own pages; everything else runs on fake ones.
@Suite struct PageSourceTests {
  private let source = PageSource.kernel()

  @Test("reserved pages are zero once committed, and keep what is stored")
  func commit() {
    let address = source.reserve(16 * 4096)
    #expect(address != 0 && address.isMultiple(ofPowerOfTwo: 4096))
    #expect(source.commit(address + 4096, 8192))
    for offset in stride(from: UInt(4096), to: 12288, by: 8) {
      if (address + offset).word != 0 { Issue.record("not zero at \(offset)") }
      (address + offset).word = offset
    }
    // Committing again changes nothing.
    #expect(source.commit(address, 16 * 4096))
    #expect((address + 8192).word == 8192)
    #expect(source.release(address, 16 * 4096))
  }

  @Test("purged pages are zero and still accessible")
  func purge() {
    let address = source.reserve(4 * 4096)
    #expect(source.commit(address, 4 * 4096))
    for page in UInt(0)..<4 { (address + page * 4096).word = 7 }
    #expect(source.purge(address + 4096, 8192))
    #expect((0..<4).map { (address + $0 * 4096).word } == [7, 0, 0, 7])
    (address + 4096).word = 8
    #expect((address + 4096).word == 8)
    #expect(source.release(address, 4 * 4096))
  }

  @Test("move takes the contents along and leaves zero pages behind")
  func move() {
    let address = source.reserve(64 * 4096)
    #expect(source.commit(address, 64 * 4096))
    let from = address
    let to = address + 32 * 4096
    for page in UInt(0)..<8 {
      (from + page * 4096).word = 100 + page
      (to + page * 4096).word = 1
    }
    #expect(source.move(from, to, 8 * 4096))
    #expect((0..<8).map { (to + $0 * 4096).word } == (100..<108).map { $0 })
    #expect((0..<8).allSatisfy { (from + $0 * 4096).word == 0 })
    from.word = 5
    #expect(from.word == 5)
    #expect(source.release(address, 64 * 4096))
  }

  @Test("what cannot be had is 0 or false, never a fault")
  func failures() {
    #expect(source.reserve(1 << 60) == 0)
    let address = source.reserve(4096)
    #expect(source.release(address, 4096))
    #expect(!source.commit(0x1000, 4096))
    #expect(!source.purge(1, 4096))
    #expect(!source.move(0x1000, 0x10000, 4096))
  }
}
