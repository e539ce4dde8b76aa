import ArgumentParser

@main
struct Kegmalloc: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "kegmalloc", abstract: "Runs programs under the kegmalloc allocator.",
    subcommands: [Compare.self])
}
