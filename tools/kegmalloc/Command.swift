// Command.swift: the root of `kegmalloc` and its exit codes.
//
//   2    usage error, or a target that cannot run under a preloaded allocator
//   126  the command was found but is not executable
//   127  the command was not found
//
// Anything else is the exit code of the program that was run.

import ArgumentParser
import Foundation

@main
struct Kegmalloc: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "kegmalloc",
    abstract: "Runs programs under the kegmalloc allocator.",
    subcommands: [Run.self, Compare.self, Debug.self, Leaks.self, Symbolize.self])

  /// Replaces the parser's own entry point, whose usage errors exit with 64.
  static func main() {
    do {
      var command = try parseAsRoot()
      try command.run()
    } catch let refusal as Refusal {
      complain(refusal.line)
      Foundation.exit(refusal.exitCode)
    } catch {
      let code = exitCode(for: error)
      guard code == .validationFailure else { exit(withError: error) }
      FileHandle.standardError.write(Data((fullMessage(for: error) + "\n").utf8))
      Foundation.exit(Refusal.usage)
    }
  }
}

/// Why nothing was run: one line for people, one code for scripts.
struct Refusal: Error, Equatable {
  static let usage: Int32 = 2
  static let notExecutable: Int32 = 126
  static let notFound: Int32 = 127

  var line: String
  var exitCode: Int32 = Refusal.usage
}

/// Writes `kegmalloc: <line>` to standard error.
func complain(_ line: String) {
  FileHandle.standardError.write(Data("kegmalloc: \(line)\n".utf8))
}
