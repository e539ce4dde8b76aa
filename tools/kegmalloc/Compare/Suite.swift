// Suite.swift: benchmarks/suite.json and the building of its programs.
import Foundation

struct Suite: Codable {
  struct Workload: Codable {
    var name: String
    var command: [String]
    /// Arguments by variant; the names say the number of threads.
    var variants: [String: [String]]
  }

  /// One row of the race: `server/64` and its command.
  struct Row: Equatable {
    var name: String
    var command: [String]
  }

  var workloads: [Workload]

  static func load(_ directory: String) throws(RunError) -> Suite {
    let path = "\(directory)/suite.json"
    guard let bytes = readProc(path) else {
      throw .setup("no suite at \(path); --benchmarks says where it is")
    }
    do {
      return try JSONDecoder().decode(Suite.self, from: Data(bytes))
    } catch {
      throw .setup("\(path) is not a suite: \(error)")
    }
  }

  /// The rows that `names` select: all of them, `tree` with every variant, or
  /// one variant as `tree/2`.
  func rows(names: [String], programs: String) throws(RunError) -> [Row] {
    var rows: [Row] = []
    for workload in workloads {
      let variants = workload.variants.sorted {
        (Int($0.key) ?? 0, $0.key) < (Int($1.key) ?? 0, $1.key)
      }
      for (variant, arguments) in variants {
        let row = "\(workload.name)/\(variant)"
        guard names.isEmpty || names.contains(workload.name) || names.contains(row) else {
          continue
        }
        let words = workload.command + arguments
        rows.append(
          Row(
            name: row, command: words.map { $0.replacingOccurrences(of: "{bin}", with: programs) }))
      }
    }
    for name in names
    where !rows.contains(where: { $0.name == name || $0.name.hasPrefix("\(name)/") }) {
      throw .setup("no workload \(name) in the suite")
    }
    return rows
  }

  /// Brings the programs up to date with the suite's Makefile.
  static func build(_ directory: String, into programs: String) throws(RunError) {
    let command = ["make", "-s", "-C", directory, "OUT=\(programs)"]
    let outcome = try CommandRun(CommandRequest(command: command)).finish()
    guard outcome.measurement.exitStatus.isSuccess else {
      throw .setup("building the suite failed: \(outcome.lastErrorLine)")
    }
  }
}
