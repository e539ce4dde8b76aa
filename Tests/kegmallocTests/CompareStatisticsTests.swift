import Testing

@testable import kegmalloc

@Suite("Compare: statistics")
struct CompareStatisticsTests {
  @Test("the median of an odd and an even number of values")
  func median() {
    #expect(Statistics.median([3, 1, 2]) == 2)
    #expect(Statistics.median([4, 1, 2, 3]) == 2.5)
    #expect(Statistics.median([7]) == 7)
  }

  @Test("quantiles interpolate between neighbours")
  func quantile() {
    #expect(Statistics.quantile(0, ofSorted: [1, 2, 3]) == 1)
    #expect(Statistics.quantile(0.75, ofSorted: [1, 2, 3]) == 2.5)
    #expect(Statistics.quantile(1, ofSorted: [1, 2, 3]) == 3)
  }

  @Test("the geometric mean ignores what is not positive and is nil for nothing")
  func geometricMean() throws {
    let mean = try #require(Statistics.geometricMean([1, 4, 16, 0]))
    #expect(abs(mean - 4) < 1e-12)
    #expect(Statistics.geometricMean([]) == nil)
  }

  @Test("the same seed gives the same interval, and the median lies inside")
  func bootstrapIsSeeded() throws {
    let values = [10.0, 11, 9, 30, 10, 10, 12, 9]
    let first = try #require(Statistics.medianEstimate(values, seed: 7))
    let second = try #require(Statistics.medianEstimate(values, seed: 7))
    #expect(first == second)
    #expect(first.low <= first.value && first.value <= first.high)
    #expect(first.high < 30, "one outlier does not move the interval to itself")
    #expect(Statistics.medianEstimate([], seed: 7) == nil)
  }

  @Test("about 95 % of intervals hold the true median")
  func coverage() throws {
    var generator = SeededGenerator(seed: 42)
    var held = 0
    for seed in 0..<200 {
      let values = (0..<15).map { _ in Double.random(in: 0...1, using: &generator) }
      let estimate = try #require(Statistics.medianEstimate(values, seed: UInt64(seed)))
      if estimate.low <= 0.5 && 0.5 <= estimate.high { held += 1 }
    }
    #expect((176...200).contains(held))
  }

  @Test("a steady difference is a verdict, a wide one is noise")
  func verdicts() throws {
    let base = [1.0, 1.1, 0.9, 1.05, 1.0, 0.95]
    let half = base.map { $0 / 2 }
    let clear = try #require(Statistics.ratioEstimate(half, to: base, seed: 1))
    #expect(abs(clear.value - 0.5) < 1e-12)
    #expect(Statistics.verdict(ratio: clear, runs: 6) == .better)
    #expect(Statistics.verdict(ratio: clear, runs: 6, higherIsBetter: true) == .worse)
    #expect(Statistics.verdict(ratio: clear, runs: 3) == .tooFew)

    let wild = try #require(
      Statistics.ratioEstimate([0.5, 2, 0.7, 1.4, 1, 1.2], to: base, seed: 1))
    #expect(Statistics.verdict(ratio: wild, runs: 6) == .noise)
    let tiny = Estimate(value: 1.004, low: 1.003, high: 1.005)
    #expect(Statistics.verdict(ratio: tiny, runs: 20) == .noise)
  }

  @Test("rounds are drawn as pairs: drift of the machine cancels out")
  func pairedRatio() throws {
    let drift = (0..<10).map { 1 + Double($0) }
    let estimate = try #require(
      Statistics.ratioEstimate(drift.map { $0 * 0.8 }, to: drift, seed: 3))
    #expect(abs(estimate.low - 0.8) < 1e-9 && abs(estimate.high - 0.8) < 1e-9)
  }

  @Test("every round runs everyone once; over a pass everyone starts once", arguments: 1...7)
  func rotation(count: Int) {
    var first: Set<Int> = []
    for round in 0..<count {
      let order = Schedule.order(round: round, count: count)
      #expect(order.sorted() == Array(0..<count))
      if let leader = order.first { first.insert(leader) }
    }
    #expect(first.count == count)
  }

  @Test("the second pass runs backwards, so neighbours change")
  func backwards() {
    #expect(Schedule.order(round: 0, count: 3) == [0, 1, 2])
    #expect(Schedule.order(round: 1, count: 3) == [1, 2, 0])
    #expect(Schedule.order(round: 3, count: 3) == [2, 1, 0])
    #expect(Schedule.order(round: 0, count: 0) == [])
  }
}
