// LinkedWordsTests.swift: stacks of blocks linked through their first words.

import Synchronization
import Testing

@testable import Base

private final class Head: Sendable {
  let stack = Atomic<UInt>(0)
}

@Suite("Linked words")
struct LinkedWordsTests {
  @Test("what is taken is all that was pushed, the newest first, and then nothing")
  func order() {
    let head = Head()
    let blocks = UnsafeMutablePointer<UInt>.allocate(capacity: 6)
    defer { blocks.deallocate() }
    for i in 0..<3 { head.stack.pushLinked((blocks + 2 * i).address) }
    var taken: [UInt] = []
    // The body may overwrite the link.
    head.stack.takeLinked {
      $0.word = 7
      taken.append($0)
    }
    #expect(taken == [4, 2, 0].map { (blocks + $0).address })
    head.stack.takeLinked { taken.append($0) }
    #expect(taken.count == 3)
  }

  @Test("four threads push while one takes: every block comes once")
  func threads() async {
    let head = Head()
    let count = 4000
    let blocks = UnsafeMutablePointer<UInt>.allocate(capacity: count)
    defer { blocks.deallocate() }
    let start = blocks.address
    var taken: [UInt] = []
    await withTaskGroup(of: Void.self) { group in
      for part in 0..<4 {
        group.addTask {
          for i in stride(from: part, to: count, by: 4) {
            head.stack.pushLinked(start + UInt(i) * 8)
          }
        }
      }
      while taken.count < count / 2 {
        head.stack.takeLinked { taken.append($0) }
        await Task.yield()
      }
    }
    head.stack.takeLinked { taken.append($0) }
    #expect(taken.sorted() == (0..<UInt(count)).map { start + $0 * 8 })
  }
}
