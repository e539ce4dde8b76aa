// LinkedWords.swift: a stack of blocks, linked through their first words, in one atomic word.
//
//   head ─▶ | next | … |  ─▶ | next | … |  ─▶ 0
//
// Anybody pushes, a block at a time, without a lock: signal handlers, too. Whoever takes,
// takes all, so that no pop can meet a block that was pushed anew meanwhile (Treiber, *Systems
// Programming: Coping with Parallelism*, 1986).

import Synchronization

extension Atomic where Value == UInt {
  /// Puts the block at `address`, whose first word becomes the link, on the stack: what was
  /// written to it before is seen by who takes it.
  @inline(__always)
  package borrowing func pushLinked(_ address: UInt) {
    var head = load(ordering: .relaxed)
    while true {
      address.word = head
      let result = compareExchange(expected: head, desired: address, ordering: .releasing)
      if result.exchanged { return }
      head = result.original
    }
  }

  /// Takes the stack and calls `body` with each block, the newest first; `body` may reuse it.
  @inline(__always)
  package borrowing func takeLinked(_ body: (UInt) -> Void) {
    var address = exchange(0, ordering: .acquiring)
    while address != 0 {
      let next = address.word
      body(address)
      address = next
    }
  }
}
