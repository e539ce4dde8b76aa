// WorkloadTests.swift: the programs of benchmarks/ at a tenth of their length: their
// checksums, and how many lines of /proc/self/maps the library adds by their end.

import Foundation
import Testing

@Suite("Workloads", .libraryPresent, .ours, .serialized)
struct WorkloadTests {
  /// What each program is given: how much work, how many threads.
  static let arguments: [String: [[String]]] = [
    "aligned": [["600000"], ["600000", "4"]], "batch": [["5000"], ["5000", "8"]],
    "buffers": [["1600"], ["1600", "8"]], "containers": [["16"], ["16", "4"]],
    "forks": [["40"], ["40", "8"]], "generations": [["1000"], ["1000", "4"]],
    "growth": [["2000000"], ["2000000", "2"]], "interpreter": [["5000000"], ["5000000", "4"]],
    "objects": [[]], "phases": [["3"], ["3", "4"]], "pipeline": [["600000"], ["600000", "64"]],
    "random": [["1600000"], ["1600000", "64"]], "server": [["4000000"], ["4000000", "64"]],
    "strings": [["600000"], ["600000", "4"]], "tables": [["600"], ["600", "4"]],
    "threads": [["2400"], ["2400", "64"]], "tiles": [["32"], ["32", "4"]],
    "tree": [["200"], ["200", "2"]], "vectors": [["2"], ["2", "4"]],
  ]

  @Test("every workload of the suite is among these")
  func complete() throws {
    let suite = try JSONSerialization.jsonObject(
      with: Data(contentsOf: URL(fileURLWithPath: Repository.root + "/benchmarks/suite.json")))
    let workloads = try #require((suite as? [String: Any])?["workloads"] as? [[String: Any]])
    #expect(Set(workloads.compactMap { $0["name"] as? String }) == Set(Self.arguments.keys))
  }

  @Test(
    "at its end a workload has at most 12 lines of /proc/self/maps that it lacks without the library",
    arguments: arguments.keys.sorted())
  func maps(name: String) throws {
    if name == "objects", findProgram("swiftc") == nil { return print("skipped objects: no swiftc") }
    let directory = Repository.root + "/out/benchmarks"
    let made = try run(
      ["make", "-C", Repository.root + "/benchmarks", "OUT=" + directory, directory + "/" + name],
      preload: false, timeout: 300)
    made.expect(made.succeeded, "make \(name)")
    for arguments in Self.arguments[name, default: []] {
      let with = try lines([directory + "/" + name] + arguments, preload: true)
      let without = try lines([directory + "/" + name] + arguments, preload: false)
      #expect(with.sum == without.sum, "\(name) \(arguments)")
      #expect(
        with.maps - without.maps <= 12,
        "\(name) \(arguments): \(with.maps) lines with the library, \(without.maps) without")
    }
  }

  /// Runs a program that has as few lines without the library as it can: one arena, no
  /// mapping for blocks below 32 MiB.
  private func lines(_ command: [String], preload: Bool) throws -> (maps: Int, sum: String) {
    let counter = try Fixture.build("count_maps", output: "libcount_maps.so", flags: ["-shared", "-fPIC"])
    let scratch = try Scratch()
    let outcome = try run(
      command,
      environment: [
        "LD_PRELOAD": preload ? Library.path + ":" + counter : counter,
        "COUNT_MAPS": scratch.path + "/lines",
        "GLIBC_TUNABLES": "glibc.malloc.arena_max=1:glibc.malloc.mmap_threshold=33554432",
      ], preload: false, timeout: 300)
    outcome.expect(outcome.succeeded, command.joined(separator: " "))
    let text = try String(contentsOfFile: scratch.path + "/lines", encoding: .utf8)
    return (try #require(Int(text.dropLast())), outcome.stdout)
  }
}
