import Base
import Glibc
import Keg
import Testing
import TestSupport

/// What a keg says of frees that are none. The addresses differ from run to run.
@Suite struct KegMisuseTests {
  private typealias Observed = ExitTest.Result?

  private func check(_ result: Observed, _ what: String) throws {
    let text = String(decoding: try #require(result).standardErrorContent, as: UTF8.self)
    #expect(text.hasPrefix("kegmalloc: \(what) 0x"))
    #expect(text.hasSuffix(" (zone malloc-64)\n"))
    #expect(text.split(separator: "\n").count == 1)
  }

  @Test("a double free ends the process and names address and zone")
  func doubleFree() async throws {
    let result = await #expect(
      processExitsWith: .signal(SIGABRT), observing: [\.standardErrorContent]
    ) {
      Rig.use { rig in
        let keg = rig.keg("malloc-64", size: 64)
        let items = keg.takeAll(2)
        keg.give(items[0])
        keg.give(items[0])
      }
    }
    try check(result, "double free of")
  }

  @Test("a double free within one bucket is found too")
  func doubleFreeInBatch() async throws {
    let result = await #expect(
      processExitsWith: .signal(SIGABRT), observing: [\.standardErrorContent]
    ) {
      Rig.use { rig in
        let keg = rig.keg("malloc-64", size: 64)
        let items = keg.takeAll(3)
        keg.giveAll([items[0], items[1], items[0]])
      }
    }
    try check(result, "double free of")
  }

  @Test("among items of one word of the bitmap, in no order, too")
  func doubleFreeInWord() async throws {
    let result = await #expect(
      processExitsWith: .signal(SIGABRT), observing: [\.standardErrorContent]
    ) {
      Rig.use { rig in
        let keg = rig.keg("malloc-64", size: 64)
        let items = keg.takeAll(40)
        keg.giveAll([20, 3, 31, 7, 9, 31].map { items[$0] })
      }
    }
    try check(result, "double free of")
  }

  @Test("an address inside an item is no item, behind others that are")
  func interiorInWord() async throws {
    let result = await #expect(
      processExitsWith: .signal(SIGABRT), observing: [\.standardErrorContent]
    ) {
      Rig.use { rig in
        let keg = rig.keg("malloc-64", size: 64)
        let items = keg.takeAll(40)
        keg.giveAll([items[20], items[3], items[31] + 16])
      }
    }
    try check(result, "invalid free of")
  }

  @Test("an address inside an item is no item")
  func interior() async throws {
    let result = await #expect(
      processExitsWith: .signal(SIGABRT), observing: [\.standardErrorContent]
    ) {
      Rig.use { rig in
        let keg = rig.keg("malloc-64", size: 64)
        keg.give(keg.takeAll(2)[1] + 16)
      }
    }
    try check(result, "invalid free of")
  }

  @Test("an unaligned address is no item")
  func unaligned() async throws {
    let result = await #expect(
      processExitsWith: .signal(SIGABRT), observing: [\.standardErrorContent]
    ) {
      Rig.use { rig in
        let keg = rig.keg("malloc-64", size: 64)
        keg.give(keg.takeAll(1)[0] + 1)
      }
    }
    try check(result, "invalid free of")
  }

  @Test("the tail of a slab behind its last item is no item")
  func tail() async throws {
    let result = await #expect(
      processExitsWith: .signal(SIGABRT), observing: [\.standardErrorContent]
    ) {
      Rig.use { rig in
        let keg = rig.keg("malloc-64", size: 48)
        let layout = keg.layout
        keg.give(keg.takeAll(1)[0] + layout.stride * layout.itemCount)
      }
    }
    try check(result, "invalid free of")
  }

  @Test("U18: an address outside the heap is reported, never read")
  func foreign() async throws {
    let result = await #expect(
      processExitsWith: .signal(SIGABRT), observing: [\.standardErrorContent]
    ) {
      Rig.use { rig in
        let keg = rig.keg("malloc-64", size: 64)
        _ = keg.takeAll(1)
        keg.give(0x5000)
      }
    }
    try check(result, "invalid free of")
  }

  @Test("an item of another keg is no item of this one")
  func otherKeg() async throws {
    let result = await #expect(
      processExitsWith: .signal(SIGABRT), observing: [\.standardErrorContent]
    ) {
      Rig.use { rig in
        let keg = rig.keg("malloc-64", size: 64)
        _ = keg.takeAll(1)
        keg.give(rig.keg("malloc-128", size: 128).takeAll(1)[0])
      }
    }
    try check(result, "invalid free of")
  }

  @Test("an item whose slab went back to the heap is no item any more")
  func returnedSlab() async throws {
    let result = await #expect(
      processExitsWith: .signal(SIGABRT), observing: [\.standardErrorContent]
    ) {
      Rig.use { rig in
        let keg = rig.keg("malloc-64", size: 64)
        let item = keg.takeAll(1)[0]
        keg.give(item)
        keg.drain()
        keg.give(item)
      }
    }
    try check(result, "invalid free of")
  }
}
