// Schedule.swift: who runs when.
//
// Every round runs every allocator once, so that a slow minute of the machine
// falls on all of them, and every round starts with the next one, so that
// nobody always runs after the same neighbour on the same warm caches.

enum Schedule {
  /// The order of one round: `count` entries, rotated by the round's number,
  /// and backwards in every second pass so that neighbours change too.
  static func order(round: Int, count: Int) -> [Int] {
    guard count > 0 else { return [] }
    let rotated = (0..<count).map { ($0 + round) % count }
    return (round / count) % 2 == 0 ? rotated : rotated.reversed()
  }
}
