import Base
import Testing
import TestSupport

private struct Node: Linked, ~Copyable {
  var next: UnsafeMutablePointer<Node>?
  var previous: UnsafeMutablePointer<Node>?
  let id: Int
}

private func makeNodes(_ count: Int) -> UnsafeMutablePointer<Node> {
  let nodes = UnsafeMutablePointer<Node>.allocate(capacity: count)
  for i in 0..<count { (nodes + i).initialize(to: Node(next: nil, previous: nil, id: i)) }
  return nodes
}

extension List where Element == Node {
  /// The elements front to back; empty when the way back differs.
  fileprivate var ids: [Int] {
    var forwards: [Int] = []
    forEach { forwards.append($0.pointee.id) }
    var backwards: [Int] = []
    var node = tail
    while let here = node {
      backwards.append(here.pointee.id)
      node = here.pointee.previous
    }
    return forwards == backwards.reversed() && forwards.count == count ? forwards : []
  }
}

@Suite struct ListTests {
  @Test("a new list is empty and gives nothing")
  func empty() {
    var list = List<Node>()
    #expect(list.isEmpty && list.count == 0)
    #expect(list.popFirst() == nil)
  }

  @Test("a random walk does to the list what it does to an array", arguments: [1, 2, 3] as [UInt64])
  func walk(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    let nodes = makeNodes(40)
    defer { nodes.deallocate() }
    var list = List<Node>()
    var model: [Int] = []
    var spare = Array(0..<40)
    for _ in 0..<3000 {
      switch random.below(6) {
      case 0 where !spare.isEmpty:
        let id = spare.remove(at: random.below(spare.count))
        list.prepend(nodes + id)
        model.insert(id, at: 0)
      case 1 where !spare.isEmpty:
        let id = spare.remove(at: random.below(spare.count))
        list.append(nodes + id)
        model.append(id)
      case 2 where !spare.isEmpty && !model.isEmpty:
        let id = spare.remove(at: random.below(spare.count))
        let place = random.below(model.count)
        list.insert(nodes + id, after: nodes + model[place])
        model.insert(id, at: place + 1)
      case 3, 4:
        guard !model.isEmpty else { continue }
        let id = model.remove(at: random.below(model.count))
        list.remove(nodes + id)
        spare.append(id)
      case 5:
        let first = list.popFirst()
        #expect(first == (model.isEmpty ? nil : nodes + model[0]))
        if !model.isEmpty { spare.append(model.removeFirst()) }
      default: continue
      }
      if list.ids != model {
        Issue.record("seed \(seed): \(list.ids) is not \(model)")
        return
      }
    }
  }

  @Test("forEach may remove the element it stands on")
  func removeWhileWalking() {
    let nodes = makeNodes(5)
    defer { nodes.deallocate() }
    var list = List<Node>()
    for i in 0..<5 { list.append(nodes + i) }
    let walked = list
    walked.forEach { if $0.pointee.id % 2 == 1 { list.remove($0) } }
    #expect(list.ids == [0, 2, 4])
  }
}
