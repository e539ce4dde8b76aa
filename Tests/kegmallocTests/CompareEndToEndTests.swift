import Foundation
import Testing

@testable import kegmalloc

/// Runs the built tool as a user would.
private func compare(_ arguments: [String]) throws -> (status: EndStatus, out: String, err: String)
{
  let tool = "\(Launcher.ownDirectory)/kegmalloc"
  let outcome = try CommandRun(
    CommandRequest(command: [tool, "compare"] + arguments, timeout: 120)
  ).finish()
  return (outcome.measurement.exitStatus, outcome.standardOutput.text, outcome.standardError.text)
}

private let mimalloc = LinkerCache.read().paths["libmimalloc.so.2"]

@Suite("Compare: the tool from end to end", .serialized)
struct CompareEndToEndTests {
  let directory = FileManager.default.temporaryDirectory.appendingPathComponent(
    "kegmalloc-\(UUID())"
  ).path

  init() throws {
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
  }

  private func report(_ name: String) throws -> Report {
    let bytes = try #require(readProc("\(directory)/\(name)"))
    return try JSONDecoder().decode(Report.self, from: Data(bytes))
  }

  @Test(
    "glibc against mimalloc on /bin/true",
    .enabled(if: mimalloc != nil, "libmimalloc2.0 is not installed"))
  func trueUnderMimalloc() throws {
    let result = try compare([
      "--allocators", "glibc,mimalloc", "--runs", "5", "--json", "\(directory)/a.json",
      "--csv", "\(directory)/a.csv", "--html", "\(directory)/a.html", "--", "/bin/true",
    ])
    #expect(result.status == .exited(0))
    #expect(result.out.contains("mimalloc"))
    #expect(result.err.contains("round 5 of 5"))
    let report = try report("a.json")
    let entries = report.races[0].entries
    #expect(entries.map(\.allocator.name) == ["glibc", "mimalloc"])
    #expect(entries.allSatisfy { $0.serving.state == .verified && $0.runs.count == 5 })
    let smallest = entries[0].runs.map(\.peakResidentBytes).min() ?? 0
    #expect(
      (400_000..<2_500_000).contains(smallest), "the tool's own size must not show: \(smallest)")
    #expect(readProc("\(directory)/a.csv") != nil && readProc("\(directory)/a.html") != nil)
  }

  @Test("a failing command: one line, its own status, no report")
  func failingCommand() throws {
    let result = try compare([
      "--allocators", "glibc", "--runs", "3", "--", "sh", "-c", "echo bad luck >&2; exit 3",
    ])
    #expect(result.status == .exited(3))
    #expect(result.err == "kegmalloc: sh under glibc exited with 3: bad luck\n")
    #expect(result.out.isEmpty)
  }

  @Test("--ignore-failure races it all the same")
  func ignoredFailure() throws {
    let result = try compare([
      "--allocators", "glibc", "--runs", "1", "--ignore-failure", "--", "/bin/false",
    ])
    #expect(result.status == .exited(0))
  }

  @Test(
    "a command that is not there, and one that cannot run",
    arguments: [("/no/such/program", 127), ("/etc/passwd", 126)])
  func missingCommand(path: String, status: Int32) throws {
    let result = try compare(["--allocators", "glibc", "--", path])
    #expect(result.status == .exited(status))
    #expect(
      result.err.hasPrefix("kegmalloc: cannot run \(path): ")
        && result.err.split(separator: "\n").count == 1)
  }

  @Test(
    "a missing library, an unknown name, an unwritable report: one line and status 2",
    arguments: [
      ["--allocator", "x=/no/such/x.so"], ["--allocators", "nosuch"],
      ["--html", "/no/such/x.html"], ["--score", "("],
    ])
  func setupErrors(options: [String]) throws {
    let result = try compare(options + ["--", "/bin/true"])
    #expect(result.status == .exited(2))
    #expect(result.err.hasPrefix("kegmalloc: ") && result.err.split(separator: "\n").count == 1)
  }

  @Test("a library that the linker refuses is said not to serve, with status 1")
  func refusedLibrary() throws {
    let result = try compare([
      "--allocators", "glibc", "--allocator", "text=/etc/passwd", "--runs", "1", "--", "/bin/true",
    ])
    #expect(result.status == .exited(1))
    #expect(result.out.contains("! text: does not serve malloc: "))
  }

  @Test("another output is flagged")
  func otherOutput() throws {
    let result = try compare([
      "--allocators", "glibc", "--allocator", "loud=,WORD=loud", "--runs", "2", "--", "sh", "-c",
      "echo $WORD",
    ])
    #expect(result.status == .exited(1))
    #expect(result.out.contains("! loud: output differs from glibc's in 2 of 2 runs"))
  }

  @Test("a command that prints something else every time is not flagged")
  func variableOutput() throws {
    let result = try compare([
      "--allocators", "glibc", "--allocator", "other=,A=1", "--runs", "1", "--by", "cpu", "--",
      "sh", "-c", "echo $$",
    ])
    #expect(result.status == .exited(0))
    #expect(result.out.contains("cpu"))
  }

  @Test("--score takes the figure from the output")
  func score() throws {
    let result = try compare([
      "--allocators", "glibc", "--allocator", "twice=,N=20", "--score", "score ([0-9]+)", "--runs",
      "5",
      "--json", "\(directory)/s.json", "--", "sh", "-c", "echo score ${N:-10}",
    ])
    #expect(result.status == .exited(0))
    let figure = try report("s.json").races[0].entries[1].figures["score"]
    #expect(figure?.ratio?.value == 2 && figure?.verdict == .better)
  }

  @Test("Ctrl-C leaves a valid partial report and status 130")
  func interrupted() throws {
    let tool = try CommandRun(
      CommandRequest(command: [
        "\(Launcher.ownDirectory)/kegmalloc", "compare", "--allocators", "glibc", "--runs", "500",
        "--json", "\(directory)/i.json", "--html", "\(directory)/i.html", "--",
        "sh", "-c", "echo >> \(directory)/runs; sleep 0.05",
      ]))
    try tool.waitForStart()
    // A byte a run: the first ones, which may not count, and some that do.
    while (readProc("\(directory)/runs")?.count ?? 0) < 10 {
      try #require(try tool.isRunning())
      usleep(10_000)
    }
    tool.signal(SIGINT)
    let outcome = try tool.finish()
    #expect(outcome.measurement.exitStatus == .exited(130))
    let report = try report("i.json")
    #expect(report.interrupted)
    #expect((1..<500).contains(report.races[0].entries[0].runs.count))
    #expect(
      String(decoding: readProc("\(directory)/i.html") ?? [], as: UTF8.self).contains("Interrupted")
    )
  }

  @Test("a server that dies is one line with its PID and status 2")
  func deadServer() throws {
    let result = try compare([
      "--allocators", "glibc", "--server", "sh -c 'echo no config >&2; exit 4'", "--port", "9",
      "--", "true",
    ])
    #expect(result.status == .exited(2))
    #expect(result.err.contains("exited with 4: no config") && result.err.contains("PID "))
  }

  @Test("a server that goes on is measured and ended")
  func server() throws {
    let result = try compare([
      "--allocators", "glibc", "--runs", "1", "--server", "sleep 60", "--", "echo", "done",
    ])
    #expect(result.status == .exited(0))
    #expect(result.out.contains("server: sleep 60"))
  }

  @Test(
    "wrong usage is status 2",
    arguments: [[], ["--runs", "0", "--", "true"], ["--suite", "--server", "x"], ["ls", "-l"]])
  func usage(arguments: [String]) throws {
    #expect(try compare(arguments).status == .exited(2))
  }
}

@Suite("Compare: the suite file")
struct CompareSuiteTests {
  static let directory = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    .appendingPathComponent("benchmarks").path

  @Test("every workload of the suite has a source with a head comment that says what it punishes")
  func sources() throws {
    let suite = try Suite.load(Suite.Place(Self.directory))
    #expect(suite.workloads.count >= 19)
    for workload in suite.workloads {
      let source = ["c", "cpp", "swift"].compactMap {
        readProc("\(Self.directory)/\(workload.name).\($0)")
      }.first
      let text = String(decoding: try #require(source, "\(workload.name)"), as: UTF8.self)
      #expect(text.hasPrefix("// \(workload.name): "))
      #expect(text.contains("Models") && text.contains("Punishes"))
    }
  }

  @Test("names select a workload with its variants, or one variant")
  func selection() throws {
    let place = Suite.Place(Self.directory)
    let suite = try Suite.load(place)
    let names = try suite.rows(names: ["server"], place: place).map(\.name)
    #expect(names == ["server/2", "server/8", "server/64"])
    let row = try #require(try suite.rows(names: ["tree/2"], place: place).first)
    #expect(row.command.first == "\(place.programs)/tree")
    #expect(try suite.rows(names: [], place: place).count > suite.workloads.count)
    #expect(throws: RunError.self) { try suite.rows(names: ["nosuch"], place: place) }
    #expect(throws: RunError.self) { try Suite.load(Suite.Place("/no/such/directory")) }
  }

  @Test("the applications: thirteen, each with the program it needs, one with a server")
  func applications() throws {
    let place = Suite.Place("\(Self.directory)/applications.json")
    #expect(place.directory == Self.directory)
    let suite = try Suite.load(place)
    let rows = try suite.rows(names: [], place: place)
    #expect(rows.count == 13)
    #expect(rows.filter { $0.server != nil }.map(\.name) == ["redis"])
    #expect(
      !rows.contains { $0.command.contains { $0.contains("{source}") || $0.contains("{bin}") } })
  }

  @Test("what a workload needs and nobody installed is known")
  func missing() {
    let absent = Suite.Workload(name: "x", command: ["x"], needs: "no-such-program")
    let present = Suite.Workload(name: "y", command: ["sh"], needs: "sh")
    #expect(Suite(workloads: [absent, present]).missingPrograms() == ["no-such-program"])
  }
}
