// Measurement.swift: what one run of the command gave.

/// The figures of one run, in the order in which wait4 and the pipes gave them.
struct Measurement: Codable, Equatable {
  var round = 0
  var wallSeconds = 0.0
  var userSeconds = 0.0
  var systemSeconds = 0.0
  var peakResidentBytes = 0
  var minorFaults = 0
  var majorFaults = 0
  var voluntarySwitches = 0
  var involuntarySwitches = 0
  var exitStatus: EndStatus = .exited(0)
  /// FNV-1a of everything the command wrote to stdout.
  var outputHash = ""
  /// The figure that --score found; nil without --score.
  var score: Double?
}

/// How a command ended.
enum EndStatus: Codable, Equatable, CustomStringConvertible {
  case exited(Int32)
  case signalled(Int32)

  /// From the status word of wait4 (wait(2): low seven bits are the signal).
  init(waitStatus: Int32) {
    let signal = waitStatus & 0x7F
    self = signal == 0 ? .exited((waitStatus >> 8) & 0xFF) : .signalled(signal)
  }

  var isSuccess: Bool { self == .exited(0) }

  /// The status a shell would report.
  var shellStatus: Int32 {
    switch self {
    case .exited(let code): code
    case .signalled(let signal): 128 + signal
    }
  }

  var description: String {
    switch self {
    case .exited(let code): "exited with \(code)"
    case .signalled(let signal): "was killed by signal \(signal)"
    }
  }

  init(from decoder: any Decoder) throws {
    let text = try decoder.singleValueContainer().decode(Int32.self)
    self = text < 128 ? .exited(text) : .signalled(text - 128)
  }

  func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(shellStatus)
  }
}

/// A column of the report: its name, its unit, and which direction is good.
struct Metric: Sendable {
  enum Unit { case seconds, bytes, count, score }

  let key: String
  let title: String
  let unit: Unit
  var higherIsBetter = false
  let value: @Sendable (Measurement) -> Double?

  static let wall = Metric(key: "wall", title: "wall", unit: .seconds) { $0.wallSeconds }
  static let peakRSS = Metric(key: "peakRSS", title: "peak RSS", unit: .bytes) {
    Double($0.peakResidentBytes)
  }
  static func score(higherIsBetter: Bool) -> Metric {
    Metric(key: "score", title: "score", unit: .score, higherIsBetter: higherIsBetter) { $0.score }
  }

  /// Every metric without --score, the leading one first.
  static let standard: [Metric] = [
    wall,
    Metric(key: "cpu", title: "cpu", unit: .seconds) { $0.userSeconds + $0.systemSeconds },
    Metric(key: "user", title: "user", unit: .seconds) { $0.userSeconds },
    Metric(key: "system", title: "system", unit: .seconds) { $0.systemSeconds },
    peakRSS,
    Metric(key: "minorFaults", title: "minor faults", unit: .count) { Double($0.minorFaults) },
    Metric(key: "majorFaults", title: "major faults", unit: .count) { Double($0.majorFaults) },
    Metric(key: "voluntarySwitches", title: "voluntary switches", unit: .count) {
      Double($0.voluntarySwitches)
    },
    Metric(key: "involuntarySwitches", title: "involuntary switches", unit: .count) {
      Double($0.involuntarySwitches)
    },
  ]
}

/// FNV-1a, 64 bits: enough to see that two outputs differ.
struct OutputHash {
  private var word: UInt64 = 0xCBF2_9CE4_8422_2325

  mutating func add(_ bytes: some Sequence<UInt8>) {
    for byte in bytes { word = (word ^ UInt64(byte)) &* 0x100_0000_01B3 }
  }

  var text: String {
    let digits = String(word, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }
}
