// CompareCommand.swift: `kegmalloc compare`: its options, and what becomes of
// them. The work is in Comparison.swift.
import ArgumentParser
import Foundation

struct Compare: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "compare",
    abstract: "Races a command, or the benchmark suite, under several allocators.",
    discussion: """
      Runs are interleaved and rotated; the report gives medians with 95 % intervals and the ratio \
      to the base allocator. See docs/comparing.md and kegmalloc-compare(1).
      """)

  @Option(
    help:
      "Race only these of the installed allocators (comma-separated; `own` is what the program links)."
  )
  var allocators: String?

  @Option(help: "Add an allocator: NAME=PATH[,VARIABLE=VALUE]...")
  var allocator: [String] = []

  @Option(name: .short, help: "Add kegmalloc with these options: KEY:VALUE[,KEY:VALUE]...")
  var options: [String] = []

  @Option(help: "Rounds; every allocator runs once in each.")
  var runs = 10

  @Option(help: "Rounds before those that count.")
  var warmup = 1

  @Option(help: "The allocator that the others are compared with.")
  var base = "glibc"

  @Option(help: "Take the figure from the output: the first group of the last match.")
  var score: String?

  @Option(help: "The figure that decides: wall, cpu or peakRSS.")
  var by = Deciding.wall

  enum Deciding: String, ExpressibleByArgument, CaseIterable { case wall, cpu, peakRSS }

  @Flag(help: "A smaller --score is better.")
  var lowerIsBetter = false

  @Option(help: "Kill a run after this many seconds.")
  var timeout: Double?

  @Option(help: "A file for the command's stdin.")
  var input = "/dev/null"

  @Flag(help: "Accept a command that exits with another status than 0.")
  var ignoreFailure = false

  @Flag(help: "Do not check which library serves malloc.")
  var noCheck = false

  @Flag(help: "Run the workloads of benchmarks/, all or those named: tree, server/64.")
  var suite = false

  @Option(help: "The directory of the suite, or another suite file: benchmarks/applications.json.")
  var benchmarks = "benchmarks"

  @Option(
    help:
      "Start this server under the allocator and the command, as its client, without. {port} is a free port."
  )
  var server: String?

  @Option(help: "The port on which the server listens, instead of {port}.")
  var port: Int?

  @Flag(
    help:
      "Count user-mode instructions with callgrind: of the command, or of single operations without one."
  )
  var instructions = false

  @Flag(help: "Sample RSS over time in a run of its own.")
  var phases = false

  @Option(help: "Write the report as JSON.")
  var json: String?

  @Option(help: "Write every run as CSV.")
  var csv: String?

  @Option(help: "Write one self-contained HTML page with plots.")
  var html: String?

  @Option(help: "The seed of the bootstrap.")
  var seed: UInt64 = 1

  @Flag(help: "Print the allocators that were found, and stop.")
  var list = false

  @Argument(help: "The command after --, or names of workloads with --suite.")
  var command: [String] = []

  func validate() throws {
    if runs < 0 || warmup < 0 { throw ValidationError("--runs and --warmup are not negative") }
    if runs == 0 && !instructions {
      throw ValidationError("--runs 0 makes sense with --instructions only")
    }
    if suite && server != nil { throw ValidationError("--suite and --server exclude each other") }
    if command.isEmpty && !suite && !instructions && !list {
      throw ValidationError("no command: kegmalloc compare [options] -- command [argument]...")
    }
    if server != nil && command.isEmpty {
      throw ValidationError("--server needs a client command after --")
    }
    if let port, !(1...65_535).contains(port) { throw ValidationError("--port is not a port") }
  }

  func run() throws {
    do throws(RunError) {
      Interrupt.install()
      let cache = LinkerCache.read()
      let catalog = AllocatorCatalog(cache: cache, kegmalloc: AllocatorCatalog.ownLibrary())
      if list { return printList(catalog) }
      let comparison = Comparison(
        options: self, cache: cache, allocators: try entrants(catalog, cache))
      try comparison.run()
      if comparison.report.hasFlags { throw .flagged }
    } catch {
      if error != .flagged {
        FileHandle.standardError.write(Data("kegmalloc: \(error.message)\n".utf8))
      }
      throw ExitCode(error.status)
    }
  }

  private func printList(_ catalog: AllocatorCatalog) {
    print(
      Format.table(catalog.installed.map { [$0.name, $0.library ?? "as linked"] }), terminator: "")
  }

  /// Who races: those chosen or all, the added ones, kegmalloc's variants; the
  /// base first.
  private func entrants(_ catalog: AllocatorCatalog, _ cache: LinkerCache) throws(RunError)
    -> [AllocatorSpec]
  {
    var added: [AllocatorSpec] = []
    for text in allocator { added.append(try AllocatorSpec.parse(text, cache: cache)) }
    func named(_ name: String) throws(RunError) -> AllocatorSpec {
      if let spec = added.first(where: { $0.name == name }) { return spec }
      return try catalog.named(name)
    }
    var chosen: [AllocatorSpec] = []
    if let allocators {
      for name in allocators.split(separator: ",") { chosen.append(try named(String(name))) }
    } else {
      chosen = catalog.installed
    }
    for spec in added {
      chosen.removeAll { $0.name == spec.name }
      chosen.append(spec)
    }
    for text in options { chosen.append(try named("kegmalloc").variant(options: text)) }
    let first = try named(base)
    return [first] + chosen.filter { $0.name != base }.uniqued()
  }
}

extension [AllocatorSpec] {
  /// Without later entries of a name that was there before.
  fileprivate func uniqued() -> [AllocatorSpec] {
    var names: Set<String> = []
    return filter { names.insert($0.name).inserted }
  }
}
