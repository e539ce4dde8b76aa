import Base
import Pages
import Testing
import TestSupport

@Suite struct FakePagesTests {
  @Test("the fake hands out real memory, counts, and fails as told")
  func failures() {
    Rig.use(wanted: 0) { rig in
      let source = FakePages.source()
      rig.pages.limitReserve(to: 1 << 20)
      #expect(source.reserve(1 << 21) == 0)
      let address = source.reserve(1 << 20)
      #expect(address != 0)
      rig.pages.allowCommits(1)
      #expect(source.commit(address, 4096))
      #expect(!source.commit(address + 4096, 4096))
      address.word = 1
      #expect(source.purge(address, 4096))
      #expect(address.word == 0)
      rig.pages.failReleases(true)
      #expect(!source.release(address, 1 << 20))
      rig.pages.failReleases(false)
      #expect(source.release(address + 8192, 4096))
      #expect(rig.pages.reservedBytes == (1 << 20) - 4096)
      var expected = FakePages.Counts()
      expected.reserve = 2
      expected.commit = 2
      expected.purge = 1
      expected.release = 2
      expected.committedBytes = 4096
      #expect(rig.pages.counts == expected)
      #expect(rig.pages.violations == [])
    }
  }

  @Test("the fake notices what the contract forbids")
  func violations() {
    Rig.use(wanted: 0) { rig in
      let source = FakePages.source()
      let address = source.reserve(8192)
      _ = source.commit(address + 1, 4096)
      _ = source.commit(address + 4096, 8192)
      _ = source.purge(address, 0)
      #expect(rig.pages.violations.count == 3)
    }
  }
}
