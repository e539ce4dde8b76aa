// objects: Swift classes, arrays, dictionaries and strings.
//
// Models a Swift program: a graph of class instances behind reference counts,
// copy-on-write arrays and dictionaries that grow, closures that capture, and
// strings over the small-string limit. Argument: rounds.
//
// Punishes a slow path for 32 to 128 bytes, and a slow malloc_usable_size,
// which the Swift runtime calls for the room of every array it makes.
#if canImport(Glibc)
  import Glibc
#endif

final class Account {
  let name: String
  var balance: Int
  var history: [Int] = []
  var partner: Account?

  init(name: String, balance: Int) {
    self.name = name
    self.balance = balance
  }
}

struct Generator {
  var word: UInt64

  mutating func next(below limit: Int) -> Int {
    word ^= word >> 12
    word ^= word << 25
    word ^= word >> 27
    return Int((word &* 0x2545_F491_4F6C_DD1D) >> 33) % limit
  }
}

func makeAccounts(_ count: Int) -> [String: Account] {
  var accounts: [String: Account] = [:]
  for number in 0..<count {
    let name = "the account numbered \(number)"
    accounts[name] = Account(name: name, balance: number)
  }
  return accounts
}

func trade(_ accounts: [Account], _ random: inout Generator, steps: Int) -> Int {
  var undo: [() -> Int] = []
  for step in 0..<steps {
    let from = accounts[random.next(below: accounts.count)]
    let to = accounts[random.next(below: accounts.count)]
    from.balance -= step
    to.balance += step
    to.history.append(step)
    if to.history.count > 40 { to.history = Array(to.history.suffix(10)) }
    to.partner = random.next(below: 4) == 0 ? nil : Account(name: from.name, balance: step)
    undo.append { from.balance &+ to.balance }
    if undo.count > 64 { undo.removeFirst(32) }
  }
  return undo.reduce(0) { $0 &+ $1() }
}

let rounds = CommandLine.arguments.count > 1 ? Int(CommandLine.arguments[1]) ?? 0 : 100
guard rounds > 0 else {
  fputs("objects: argument 1 must be a positive number\n", stderr)
  exit(2)
}
var random = Generator(word: 0x9E37_79B9_7F4A_7C15)
var sum = 0
for _ in 0..<rounds {
  let accounts = makeAccounts(4_000)
  let ordered = accounts.keys.sorted().compactMap { accounts[$0] }
  sum = sum &* 31 &+ trade(ordered, &random, steps: 40_000)
}
print("checksum", String(UInt(bitPattern: sum), radix: 16))
