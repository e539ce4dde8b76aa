// Instructions.swift: counting user-mode instructions with valgrind's callgrind.
//
// A count does not care how busy the machine is: two runs differ by a few
// instructions in a million. It is no time either: a cache miss and an addition
// both count 1. What a command does in the kernel is not counted.
import Foundation

/// Instructions per operation of benchmarks/probe, by allocator.
struct OperationCount: Codable, Equatable {
  var operation: String
  var instructions: [String: Double]
}

enum Instructions {
  /// The kinds of probe, and how many operations make a stable figure.
  static let operations: [(kind: String, count: Int)] = [
    ("pair-16", 100_000), ("pair-64", 100_000), ("pair-256", 100_000), ("pair-1024", 100_000),
    ("batch-64", 100_000), ("churn", 200_000), ("calloc-64", 50_000), ("align-64", 50_000),
    ("pair-8192", 50_000), ("pair-65536", 20_000), ("large-131072", 5_000),
    ("large-1048576", 5_000),
    ("large-8388608", 2_000), ("remote", 102_400), ("thread", 200),
  ]

  /// User-mode instructions of one run, its children included.
  static func count(_ command: [String], variables: [String: String]) throws(RunError) -> Int {
    let valgrind = [
      "valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--trace-children=yes",
    ]
    let outcome: CommandOutcome
    do throws(RunError) {
      outcome = try CommandRun(CommandRequest(command: valgrind + command, environment: variables))
        .finish()
    } catch {
      if case .cannotStart = error {
        throw .setup("--instructions needs valgrind, which is not installed")
      }
      throw error
    }
    guard outcome.measurement.exitStatus.isSuccess else {
      let said = outcome.standardError.text.split(separator: "\n").last {
        !$0.hasPrefix("==") && !$0.hasPrefix("**")
      }
      throw .commandFailed(
        "\(outcome.measurement.exitStatus) under callgrind: \(said ?? "it said nothing")", 1)
    }
    guard let total = total(in: outcome.standardError.text) else {
      throw .setup("callgrind printed no count for \(command[0])")
    }
    return total
  }

  /// Adds up the `==PID== Collected : N` lines, one per process.
  static func total(in text: String) -> Int? {
    let counts = text.split(separator: "\n").compactMap { line -> Int? in
      guard line.hasPrefix("=="), let mark = line.range(of: "Collected : ") else { return nil }
      return Int(line[mark.upperBound...].prefix { $0.isNumber })
    }
    return counts.isEmpty ? nil : counts.reduce(0, +)
  }

  /// Instructions per operation, calls included, the loop's own not: twice the
  /// work less once the work removes start and end of the program, the same of
  /// the empty loop removes the loop.
  static func perOperation(
    _ kind: String, count: Int, probe: String, variables: [String: String], emptyLoop: Double
  ) throws(RunError) -> Double {
    let once = try Self.count([probe, kind, String(count)], variables: variables)
    let twice = try Self.count([probe, kind, String(2 * count)], variables: variables)
    return Double(twice - once) / Double(count) - emptyLoop
  }

  /// Instructions per turn of the loop without the operation. The whole cost of
  /// a thread counts as the operation: the C library allocates for it as well.
  static func emptyLoop(_ kind: String, count: Int, probe: String) throws(RunError) -> Double {
    if kind == "thread" { return 0 }
    let once = try Self.count([probe, kind, String(count), "empty"], variables: [:])
    let twice = try Self.count([probe, kind, String(2 * count), "empty"], variables: [:])
    return Double(twice - once) / Double(count)
  }
}
