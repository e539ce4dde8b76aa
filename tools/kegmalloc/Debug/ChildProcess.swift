// ChildProcess.swift: starting a program that reads and writes pipes of ours, and
// nothing of our signals. Symbolisers run in a process group of their own, so that
// Ctrl-C reaches the program under test and leaves us able to report.

import Foundation

final class ChildProcess {
  let pid: pid_t
  private let input: Int32
  private let output: Int32
  private var buffer: [UInt8] = []
  private var isAtEnd = false

  /// Starts `words[0]` with this process's environment less the preloads; nil if
  /// it cannot be started.
  init?(_ words: [String]) {
    guard let toChild = Self.pipe(), let fromChild = Self.pipe() else { return nil }
    defer {
      close(toChild.read)
      close(fromChild.write)
    }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_adddup2(&actions, toChild.read, 0)
    posix_spawn_file_actions_adddup2(&actions, fromChild.write, 1)
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0)
    var pid: pid_t = 0
    let environment = ProcessInfo.processInfo.environment
      .filter { $0.key != "LD_PRELOAD" && $0.key != "KEGMALLOC_CONF" }
    let error = Spawn.spawn(
      &pid, words[0], words, environment.map { "\($0.key)=\($0.value)" }, actions: &actions,
      ownGroup: true)
    guard error == 0 else {
      close(toChild.write)
      close(fromChild.read)
      return nil
    }
    self.pid = pid
    input = toChild.write
    output = fromChild.read
  }

  deinit {
    close(input)
    close(output)
    var status: Int32 = 0
    while waitpid(pid, &status, 0) < 0 && errno == EINTR {}
  }

  /// False if the child no longer reads.
  func send(_ line: String) -> Bool {
    var rest = Array((line + "\n").utf8)[...]
    while !rest.isEmpty {
      let count = rest.withUnsafeBytes { write(input, $0.baseAddress, $0.count) }
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else { return false }
      rest = rest.dropFirst(count)
    }
    return true
  }

  /// The next line of output, without its newline; nil at the end.
  func nextLine() -> String? {
    while true {
      if let end = buffer.firstIndex(of: UInt8(ascii: "\n")) {
        let line = String(decoding: buffer[..<end], as: UTF8.self)
        buffer.removeFirst(end + 1)
        return line
      }
      guard !isAtEnd else { return nil }
      var chunk = [UInt8](repeating: 0, count: 16_384)
      let count = read(output, &chunk, chunk.count)
      if count < 0 && errno == EINTR { continue }
      if count <= 0 { isAtEnd = true } else { buffer += chunk[..<count] }
    }
  }

  private static func pipe() -> (read: Int32, write: Int32)? {
    var ends: [Int32] = [0, 0]
    guard Glibc.pipe(&ends) == 0 else { return nil }
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    return (ends[0], ends[1])
  }
}

enum Spawn {
  /// posix_spawn with default signal dispositions and no signal blocked.
  /// - Returns: 0 or an errno.
  static func spawn(
    _ pid: inout pid_t, _ file: String, _ arguments: [String], _ environment: [String],
    actions: UnsafeMutablePointer<posix_spawn_file_actions_t>? = nil, ownGroup: Bool
  ) -> Int32 {
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var defaults = sigset_t()
    sigemptyset(&defaults)
    for signal in Supervisor.signals + [SIGPIPE] { sigaddset(&defaults, signal) }
    posix_spawnattr_setsigdefault(&attributes, &defaults)
    var nothingBlocked = sigset_t()
    sigemptyset(&nothingBlocked)
    posix_spawnattr_setsigmask(&attributes, &nothingBlocked)
    var flags = POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK
    if ownGroup {
      posix_spawnattr_setpgroup(&attributes, 0)
      flags |= POSIX_SPAWN_SETPGROUP
    }
    posix_spawnattr_setflags(&attributes, Int16(flags))
    var words: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
    var variables: [UnsafeMutablePointer<CChar>?] = environment.map { strdup($0) } + [nil]
    defer { for word in words + variables { free(word) } }
    return posix_spawn(&pid, file, actions, &attributes, &words, &variables)
  }
}
