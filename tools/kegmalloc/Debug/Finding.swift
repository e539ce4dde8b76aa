// Finding.swift: one bug as the reports show it: a record of the library with
// named frames. The same bug seen again, by another process or with guard pages
// on the other side, is the same finding with a higher count.

/// One frame as a person reads it. Functions inlined into another are frames too.
struct Frame: Codable, Equatable {
  /// The address; the same for all frames inlined at one place.
  var pc: String
  var module: String?
  /// The address as the linker assigned it in `module`.
  var offset: String?
  /// The name as it is in the source, with C++ and Swift names demangled.
  var function: String?
  /// The name as the linker knows it, where it differs.
  var linkage: String?
  /// How far into the function the address is; nil where the start is not known.
  var distance: Int?
  var file: String?
  var line: Int?
  var column: Int?
  var inlined: Bool?
}

struct Stack: Codable, Equatable {
  var thread: Int?
  var frames: [Frame]
}

struct Stacks: Codable, Equatable {
  var detected: Stack?
  var allocated: Stack?
  var freed: Stack?

  /// In the order of a report, with the words that introduce each.
  var labelled: [(label: String, stack: Stack)] {
    [("detected", detected), ("allocated", allocated), ("freed", freed)].compactMap { label, stack in
      stack.flatMap { $0.frames.isEmpty ? nil : (label, $0) }
    }
  }
}

struct Finding: Codable {
  var kind: Kind
  var `class`: String
  var what: String
  var address: String
  /// The processes that reported it, the first first.
  var pids: [Int]
  var thread: Int?
  var timeMs: Int?
  var zone: String?
  /// The zone that the item was freed to.
  var givenTo: String?
  /// Bytes asked for.
  var size: Int?
  /// Where in the item, from its start.
  var offset: Int?
  /// The start of the item.
  var block: String?
  var allocation: String?
  var access: String?
  /// True if the access itself was caught, false if its traces were found later.
  var fault: Bool?
  /// How often it was seen; for leaks, how many items.
  var count: Int
  /// For leaks: definite, indirect, cycle, stack or reachable; and the bytes of all items.
  var leak: String?
  var leakedBytes: Int?
  var stacks: Stacks
  var bytes: BytesRecord?
  /// The sides on which guard pages stood when it was found, with `--guard both`.
  var guards: [String]?
  /// The rule that hides it.
  var suppressedBy: String?

  enum Kind: String, Codable { case finding, leak }

  init(_ record: FindingRecord, _ stacks: Stacks) {
    kind = .finding
    self.class = record.class
    what = record.what + (record.number.map { " (\($0))" } ?? "")
    address = record.address
    pids = [record.pid]
    thread = record.thread
    timeMs = record.timeMs
    zone = record.zone
    givenTo = record.givenTo
    size = record.size
    offset = record.offset
    block = record.block
    allocation = record.allocation
    access = record.access
    fault = record.fault
    count = record.count ?? 1
    self.stacks = stacks
    bytes = record.bytes
  }

  init(_ record: LeakRecord, _ stacks: Stacks) {
    kind = .leak
    self.class = "leak"
    what = ""
    address = record.address
    pids = [record.pid]
    thread = stacks.allocated?.thread
    timeMs = record.timeMs
    size = record.size
    allocation = record.allocation
    count = record.count
    leak = record.leak
    leakedBytes = record.bytes
    self.stacks = stacks
    nameLeak()
  }

  /// `definite: 48 bytes in 2 blocks`
  private mutating func nameLeak() {
    what =
      (leak ?? "") + ": " + Format.amount(leakedBytes ?? 0, "byte") + " in "
      + Format.amount(count, "block")
  }

  /// Whether these items are lost, as opposed to held by a stack only, or by anything.
  var isLost: Bool { leak == "definite" || leak == "indirect" || leak == "cycle" }

  /// Whether it decides the exit code. Items held by lost ones follow these.
  var isError: Bool {
    suppressedBy == nil && (kind == .finding || leak == "definite" || leak == "cycle")
  }

  /// Whether it has a report of its own in the text.
  /// - Parameter stackLeaks: list items that only a stack holds.
  func isReported(stackLeaks: Bool) -> Bool {
    suppressedBy == nil && (leak != "stack" || stackLeaks)
  }

  /// Adds what another process, or another run, saw of the same finding.
  mutating func absorb(_ other: Finding) {
    if kind == .leak && !pids.contains(other.pids[0]) {
      // A forked child still holds what its parent lost: the same items again.
      count = max(count, other.count)
      leakedBytes = max(leakedBytes ?? 0, other.leakedBytes ?? 0)
    } else {
      count += other.count
      if kind == .leak { leakedBytes = (leakedBytes ?? 0) + (other.leakedBytes ?? 0) }
    }
    if kind == .leak { nameLeak() }
    for pid in other.pids where !pids.contains(pid) { pids.append(pid) }
    for side in other.guards ?? [] where guards?.contains(side) == false { guards?.append(side) }
  }

  /// Whether it was noticed by its traces, so that where it was detected says little.
  var isFoundLate: Bool {
    fault != true && stacks.allocated?.frames.isEmpty == false
      && ["overflow", "underflow", "use-after-free", "leak"].contains(self.class)
  }

  /// What makes two findings the same: the class and the places in the program.
  /// Damage found late is found anywhere, so then only the item's own stacks count.
  var identity: String {
    func places(_ stack: Stack?) -> String {
      (stack?.frames ?? []).map { "\($0.module ?? "")+\($0.offset ?? $0.pc)" }.joined(separator: " ")
    }
    return [
      self.class, leak ?? "", access ?? "", places(stacks.allocated), places(stacks.freed),
      isFoundLate ? "" : places(stacks.detected),
      stacks.labelled.isEmpty ? what : "",
    ].joined(separator: "|")
  }
}

extension Format {
  /// `1 byte`, `1,234 bytes`.
  static func amount(_ number: Int, _ unit: String) -> String {
    grouped(number) + " " + unit + (number == 1 ? "" : unit.hasSuffix("s") ? "es" : "s")
  }

  /// With a comma before every three digits.
  static func grouped(_ number: Int) -> String {
    var text = ""
    let digits = String(abs(number))
    for (index, digit) in digits.enumerated() {
      if index > 0 && (digits.count - index) % 3 == 0 { text += "," }
      text.append(digit)
    }
    return number < 0 ? "-" + text : text
  }
}
