// Supervisor.swift: runs the program under test to its end, and looks at the file
// of findings while it runs.
//
// The program stays in our process group, on our terminal and our standard streams.
// Ctrl-C is sent by the terminal to both: it is the program's business how it ends,
// and ours to report what was found until then. A signal sent to us alone is passed on.

import Foundation

enum Supervisor {
  /// Taken while a program runs, instead of ending us.
  static let signals = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGCHLD]

  /// How often the file of findings is looked at, in nanoseconds.
  private static let interval = 20_000_000

  /// How a program ended.
  struct End: Equatable {
    /// As a shell shows it: the exit code, or 128 and the signal.
    var status: Int32
    var wasInterrupted = false
  }

  /// Runs `file`; calls `look` now and then, and once more after its end.
  static func run(
    _ file: String, _ arguments: [String], _ environment: [String], look: () -> Void
  ) throws(Refusal) -> End {
    var taken = sigset_t()
    sigemptyset(&taken)
    for signal in signals { sigaddset(&taken, signal) }
    var before = sigset_t()
    pthread_sigmask(SIG_BLOCK, &taken, &before)
    defer { pthread_sigmask(SIG_SETMASK, &before, nil) }

    var pid: pid_t = 0
    let error = Spawn.spawn(&pid, file, arguments, environment, ownGroup: false)
    guard error == 0 else {
      throw Refusal(
        line: "\(file): \(String(cString: strerror(error)))",
        exitCode: error == ENOENT ? Refusal.notFound : Refusal.notExecutable)
    }
    var end = End(status: 0)
    while true {
      var information = siginfo_t()
      var patience = timespec(tv_sec: 0, tv_nsec: interval)
      let signal = sigtimedwait(&taken, &information, &patience)
      if signal > 0 && signal != SIGCHLD {
        end.wasInterrupted = true
        let isFromProcess = information.si_code <= 0
        if isFromProcess { kill(pid, signal) }
      }
      var status: Int32 = 0
      if waitpid(pid, &status, WNOHANG) == pid {
        end.status = status & 0x7f == 0 ? status >> 8 & 0xff : 128 + status & 0x7f
        look()
        return end
      }
      look()
    }
  }
}

/// Reads a file that grows, by lines.
final class GrowingFile {
  private let descriptor: Int32
  private var rest = Data()

  init?(_ path: String) {
    descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
  }

  deinit { close(descriptor) }

  /// The lines that were completed since the last call.
  func newLines() -> [Data] {
    var chunk = [UInt8](repeating: 0, count: 65_536)
    while true {
      let count = read(descriptor, &chunk, chunk.count)
      guard count > 0 else { break }
      rest.append(contentsOf: chunk[..<count])
    }
    guard let last = rest.lastIndex(of: UInt8(ascii: "\n")) else { return [] }
    let lines = rest[rest.startIndex..<last].split(separator: UInt8(ascii: "\n"))
    defer { rest = Data(rest[(last + 1)...]) }
    return lines.map { Data($0) }
  }
}
