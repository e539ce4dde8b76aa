import Base
import Glibc
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

  @Test("locked pages are not asked whether they cost nothing; others stay as they were")
  func isFree() {
    let address = source.reserve(64 * 4096)
    #expect(source.isFree(address, 64 * 4096))
    #expect(source.commit(address, 4096))
    address.word = 5
    // Inaccessible pages are locked all the same; mlock says that it could not fill them.
    if mlock(UnsafeRawPointer(bitPattern: address + 8192), 8 * 4096) == 0 || errno == ENOMEM {
      #expect(!source.isFree(address + 8192, 8 * 4096))
    }
    #expect(address.word == 5)
    #expect(source.release(address, 64 * 4096))
  }

  @Test("what cannot be had is 0 or false, never a fault")
  func failures() {
    #expect(source.reserve(1 << 60) == 0)
    let address = source.reserve(4096)
    #expect(source.release(address, 4096))
    #expect(!source.commit(0x1000, 4096))
    #expect(!source.purge(1, 4096))
  }
}
