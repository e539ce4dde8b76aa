// Statistics.swift: medians, their uncertainty, and what may be said of a
// difference. Nothing here assumes a normal distribution: run times have a long
// tail to the right, and one disturbed run must not decide a race.
//
// The interval is the percentile bootstrap (Efron 1979): the rounds are drawn
// again with replacement, the figure computed anew, 2,000 times; the interval
// is what the middle 95 % of the results span. The generator is seeded, so the
// same measurements always give the same report.

/// A small seeded generator (SplitMix64, Steele et al. 2014).
struct SeededGenerator: RandomNumberGenerator {
  var word: UInt64

  init(seed: UInt64) { word = seed }

  mutating func next() -> UInt64 {
    word &+= 0x9E37_79B9_7F4A_7C15
    var mixed = word
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }
}

/// A figure and the interval in which 95 % of its bootstrap replicas lie.
struct Estimate: Codable, Equatable {
  var value: Double
  var low: Double
  var high: Double
}

/// What the measurements allow to say about a ratio to the base.
enum Judgement: String, Codable {
  case base, better, worse
  case noise = "within the noise"
  case tooFew = "too few runs"
}

enum Statistics {
  static let resamples = 2_000
  /// Below this many runs an interval would only feign knowledge.
  static let fewestRuns = 5
  /// A smaller difference is called noise however steady it is: the order of
  /// the object files or the size of the environment shifts a program as much
  /// (Mytkowicz et al. 2009).
  static let smallestDifference = 0.01

  /// The middle value, or the mean of the two middle ones.
  /// - Precondition: `values` is not empty.
  static func median(_ values: [Double]) -> Double {
    let sorted = values.sorted()
    let middle = sorted.count / 2
    return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
  }

  /// The value below which `fraction` of `sorted` lies, with interpolation.
  static func quantile(_ fraction: Double, ofSorted sorted: [Double]) -> Double {
    let position = fraction * Double(sorted.count - 1)
    let below = Int(position)
    let above = min(below + 1, sorted.count - 1)
    return sorted[below] + (sorted[above] - sorted[below]) * (position - Double(below))
  }

  static func geometricMean(_ values: [Double]) -> Double? {
    let usable = values.filter { $0 > 0 }
    guard !usable.isEmpty else { return nil }
    return exponential(usable.reduce(0) { $0 + logarithm($1) } / Double(usable.count))
  }

  /// The median of `values` with its interval; nil for no values.
  static func medianEstimate(_ values: [Double], seed: UInt64) -> Estimate? {
    guard !values.isEmpty else { return nil }
    return bootstrap(count: values.count, seed: seed, value: median(values)) { drawn in
      median(drawn.map { values[$0] })
    }
  }

  /// The ratio of the two medians. Both series come from the same rounds, and
  /// the rounds are drawn as pairs: a slow minute of the machine hits both.
  static func ratioEstimate(_ values: [Double], to base: [Double], seed: UInt64) -> Estimate? {
    let count = min(values.count, base.count)
    guard count > 0, median(base) > 0 else { return nil }
    let value = median(values) / median(base)
    return bootstrap(count: count, seed: seed, value: value) { drawn in
      let divisor = median(drawn.map { base[$0] })
      return divisor > 0 ? median(drawn.map { values[$0] }) / divisor : value
    }
  }

  static func verdict(ratio: Estimate, runs: Int, higherIsBetter: Bool = false) -> Judgement {
    if runs < fewestRuns { return .tooFew }
    if ratio.low <= 1 && ratio.high >= 1 || abs(ratio.value - 1) < smallestDifference {
      return .noise
    }
    return (ratio.value < 1) != higherIsBetter ? .better : .worse
  }

  private static func bootstrap(
    count: Int, seed: UInt64, value: Double, replica: ([Int]) -> Double
  ) -> Estimate {
    var generator = SeededGenerator(seed: seed)
    var replicas: [Double] = []
    replicas.reserveCapacity(resamples)
    for _ in 0..<resamples {
      replicas.append(
        replica((0..<count).map { _ in Int.random(in: 0..<count, using: &generator) }))
    }
    replicas.sort()
    return Estimate(
      value: value, low: quantile(0.025, ofSorted: replicas),
      high: quantile(0.975, ofSorted: replicas))
  }
}
