// Suite.swift: the suite files of benchmarks/ (suite.json, applications.json),
// and the building of their programs.
import Foundation

struct Suite: Codable {
  struct Workload: Codable {
    var name: String
    var command: [String]
    /// Arguments by variant; the names say the number of threads. Absent for a
    /// program that has only one way to run.
    var variants: [String: [String]]?
    /// A program that must be installed; the workload is left out without it.
    var needs: String?
    /// A server for which `command` is the client.
    var server: String?
  }

  /// One row of the race: `server/64` and its command.
  struct Row: Equatable {
    var name: String
    var command: [String]
    var server: String?
  }

  /// Where a suite lies, and where its programs are built.
  struct Place {
    let file: String
    let directory: String
    let programs: String

    /// - Parameter path: a suite file, or a directory with a suite.json.
    init(_ path: String) {
      let named = URL(fileURLWithPath: path).standardizedFileURL
      let isFile = named.pathExtension == "json"
      directory = isFile ? named.deletingLastPathComponent().path : named.path
      file = isFile ? named.path : "\(named.path)/suite.json"
      programs = URL(fileURLWithPath: "\(directory)/../out/benchmarks").standardizedFileURL.path
    }

    /// Replaces `{bin}` by the programs' directory and `{source}` by the suite's.
    func fill(_ text: String) -> String {
      text.replacingOccurrences(of: "{bin}", with: programs)
        .replacingOccurrences(of: "{source}", with: directory)
    }
  }

  var workloads: [Workload]

  static func load(_ place: Place) throws(RunError) -> Suite {
    guard let bytes = readProc(place.file) else {
      throw .setup("no suite at \(place.file); --benchmarks says where it is")
    }
    do {
      return try JSONDecoder().decode(Suite.self, from: Data(bytes))
    } catch {
      throw .setup("\(place.file) is not a suite: \(error)")
    }
  }

  /// The rows that `names` select: all of them, `tree` with every variant, or
  /// one variant as `tree/2`.
  func rows(names: [String], place: Place) throws(RunError) -> [Row] {
    let rows = workloads.flatMap { $0.rows(place) }
    func isMeant(_ row: Row, by name: String) -> Bool {
      row.name == name || row.name.hasPrefix("\(name)/")
    }
    for name in names where !rows.contains(where: { isMeant($0, by: name) }) {
      throw .setup("no workload \(name) in the suite")
    }
    return names.isEmpty ? rows : rows.filter { row in names.contains { isMeant(row, by: $0) } }
  }

  /// The programs that workloads need and that are not installed.
  func missingPrograms() -> [String] {
    let directories = (ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin").split(
      separator: ":")
    return workloads.compactMap(\.needs).filter { program in
      !directories.contains { access("\($0)/\(program)", X_OK) == 0 }
    }
  }

  /// Brings the programs and their input up to date with the suite's Makefile.
  static func build(_ place: Place) throws(RunError) {
    let command = ["make", "-s", "-C", place.directory, "OUT=\(place.programs)", "applications"]
    let outcome = try CommandRun(CommandRequest(command: command)).finish()
    guard outcome.measurement.exitStatus.isSuccess else {
      throw .setup("building the suite failed: \(outcome.lastErrorLine)")
    }
  }
}

extension Suite.Workload {
  func rows(_ place: Suite.Place) -> [Suite.Row] {
    func row(_ name: String, _ arguments: [String]) -> Suite.Row {
      Suite.Row(
        name: name, command: (command + arguments).map(place.fill), server: server.map(place.fill))
    }
    guard let variants else { return [row(name, [])] }
    return variants.sorted { (Int($0.key) ?? 0, $0.key) < (Int($1.key) ?? 0, $1.key) }
      .map { row("\(name)/\($0.key)", $0.value) }
  }
}
