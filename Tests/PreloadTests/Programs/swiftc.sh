# swiftc itself: a small program compiled, with optimisation, and run.
cat > main.swift <<'S'
struct Node { var key: Int; var children: [Node] }
func tree(_ d: Int) -> Node { Node(key: d, children: d == 0 ? [] : (0..<3).map { _ in tree(d - 1) }) }
func count(_ n: Node) -> Int { 1 + n.children.reduce(0) { $0 + count($1) } }
print(count(tree(8)), Dictionary(grouping: 0..<10000, by: { "\($0 % 37)" }).mapValues(\.count).count)
S
swiftc -O main.swift -o program && ./program
