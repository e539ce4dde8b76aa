// Launcher.swift: finding kegmalloc-launch and starting it with its three pipes.
import Foundation

enum Launcher {
  /// The launcher beside this program, or in the library directory of the
  /// installation that this program belongs to.
  static let path: String? = {
    let candidates = ["/kegmalloc-launch", "/../lib/kegmalloc/kegmalloc-launch"]
    return candidates.map { ownDirectory + $0 }.first { access($0, X_OK) == 0 }
  }()

  /// The directory of the running program.
  static let ownDirectory: String = {
    var buffer = [UInt8](repeating: 0, count: Int(PATH_MAX))
    let count = readlink("/proc/self/exe", &buffer, buffer.count)
    guard count > 0 else { return "." }
    let path = String(decoding: buffer[..<count], as: UTF8.self)
    return path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
  }()
}

extension CommandRun {
  static func makePipe() throws(RunError) -> (read: Int32, write: Int32) {
    var ends: [Int32] = [0, 0]
    guard pipe(&ends) == 0 else {
      throw .setup("cannot make a pipe: \(String(cString: strerror(errno)))")
    }
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    return (ends[0], ends[1])
  }

  /// Starts the launcher in a process group of its own, so that Ctrl-C reaches
  /// the tool alone and the tool can end everything that the command started.
  static func spawnLauncher(
    _ request: CommandRequest, control: Int32, out: Int32, err: Int32
  ) throws(RunError) -> Int32 {
    guard let path = Launcher.path else { throw .launcherMissing }
    let controlTarget: Int32 = 3
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, request.input, O_RDONLY, 0)
    posix_spawn_file_actions_adddup2(&actions, out, 1)
    posix_spawn_file_actions_adddup2(&actions, err, 2)
    posix_spawn_file_actions_adddup2(&actions, control, controlTarget)

    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var defaults = sigset_t()
    sigemptyset(&defaults)
    for signal in [SIGINT, SIGTERM, SIGPIPE] { sigaddset(&defaults, signal) }
    posix_spawnattr_setsigdefault(&attributes, &defaults)
    // The threads of a pool block most signals, and a command inherits the mask.
    var nothingBlocked = sigset_t()
    sigemptyset(&nothingBlocked)
    posix_spawnattr_setsigmask(&attributes, &nothingBlocked)
    posix_spawnattr_setpgroup(&attributes, 0)
    let flags = POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK
    posix_spawnattr_setflags(&attributes, Int16(flags))

    let settings = request.environment.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
    let words = [path, String(controlTarget)] + settings + ["--"] + request.command
    var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
    var variables: [UnsafeMutablePointer<CChar>?] =
      inheritedEnvironment().map { strdup($0) } + [nil]
    defer { for word in arguments + variables { free(word) } }
    var pid: Int32 = 0
    let error = posix_spawn(&pid, path, &actions, &attributes, &arguments, &variables)
    guard error == 0 else {
      throw .setup("cannot start \(path): \(String(cString: strerror(error)))")
    }
    return pid
  }

  /// This process's environment without what would put another allocator or
  /// another configuration under every run.
  private static func inheritedEnvironment() -> [String] {
    ProcessInfo.processInfo.environment
      .filter { $0.key != "LD_PRELOAD" && $0.key != "KEGMALLOC_CONF" }
      .map { "\($0.key)=\($0.value)" }
  }
}
