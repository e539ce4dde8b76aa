// An ordinary Swift program: classes, arrays, dictionaries, strings, closures and
// threads; the argument is how many objects. Its runtime must bind to libswiftCore, not
// to anything of the allocator's.
import Foundation

final class Node {
  var next: Node?
  let name: String
  init(_ name: String, _ next: Node?) { (self.name, self.next) = (name, next) }
}

let count = Int(CommandLine.arguments.last ?? "") ?? 200_000

var list: Node?
for i in 0..<count { list = Node("node number \(i)", i % 1000 == 0 ? nil : list) }
print(list?.name ?? "none")

let lock = NSLock()
var totals: [Int: Int] = [:]
DispatchQueue.concurrentPerform(iterations: 16) { number in
  var words: [String: [Int]] = [:]
  for i in 0..<count / 40 { words["word \(i % 313)", default: []].append(i * number) }
  let total = words.values.reduce(0) { $0 + $1.reduce(0, &+) }
  lock.withLock { totals[number] = total }
}
print(totals.sorted { $0.key < $1.key }.map { "\($0.key):\($0.value)" }.joined(separator: " "))

let text = (0..<count / 10).map { "{\"n\":\($0)}" }.joined(separator: ",")
let objects = try JSONSerialization.jsonObject(with: Data("[\(text)]".utf8)) as? [[String: Int]]
print(objects?.count ?? 0, objects?.last?["n"] ?? -1)
let task: @Sendable (Int) async -> Int = { n in (0..<n).reduce(0, &+) }
let sum = await withTaskGroup(of: Int.self) { group in
  for n in 0..<100 { group.addTask { await task(n) } }
  return await group.reduce(0, +)
}
print(sum)
