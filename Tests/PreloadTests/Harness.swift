// Harness.swift: how these tests run programs under the library.
//
//   Library.path      the library under test: $KEGMALLOC_LIB or out/lib/libkegmalloc.so
//   Fixture.build     compiles Fixtures/<name>.c or .cc once, into out/fixtures
//   run               one subprocess, with a time limit, in its own process group
//   expectOK          runs a fixture under the library; it must print `ok` and exit 0
//
// The tests use nothing of the allocator's modules: they see what a program sees.
// Nothing here looks at a clock except the limits that turn a hang into a failure.

import Foundation
import Testing

enum Repository {
  /// The directory that holds Package.swift.
  static let root: String = {
    var url = URL(fileURLWithPath: #filePath)
    for _ in 0..<3 { url.deleteLastPathComponent() }
    return url.path
  }()

  static let fixtureSources = root + "/Tests/PreloadTests/Fixtures"
}

enum Library {
  static let path: String =
    ProcessInfo.processInfo.environment["KEGMALLOC_LIB"]
    ?? Repository.root + "/out/lib/libkegmalloc.so"

  static let exists = access(path, R_OK) == 0

  /// The C library's own allocator stands in for ours with KEGMALLOC_LIB=none:
  /// the way to tell a wrong fixture from a wrong allocator.
  static let isNone = path == "none"

  static let isUsable = exists || isNone

  /// True if the library is ours and not another allocator put in its place.
  static let isOurs = exists && (path as NSString).lastPathComponent.hasPrefix("libkegmalloc")
}

/// How a subprocess ended and what it wrote.
struct Outcome {
  enum End: Equatable {
    case exited(Int32)
    case killed(signal: Int32)
    case timedOut
  }

  var status: End
  var stdout: String
  var stderr: String
  /// Where the threads were when the time was over.
  var hang = ""

  var succeeded: Bool { status == .exited(0) }

  /// For the message of a failed expectation.
  var report: String {
    "\(status)\nstdout: \(stdout.suffix(2000))\nstderr: \(stderr.suffix(2000))\n\(hang.prefix(12000))"
  }

  /// Records one readable issue unless the condition holds: #expect would print the
  /// whole outcome in place of each operand.
  func expect(
    _ condition: Bool, _ what: String = "", _ sourceLocation: SourceLocation = #_sourceLocation
  ) {
    if !condition { Issue.record("\(what): \(report)", sourceLocation: sourceLocation) }
  }
}

struct HarnessError: Error, CustomStringConvertible {
  var description: String
  init(_ description: String) { self.description = description }
}

/// A directory below /tmp that lasts as long as this object.
final class Scratch: Sendable {
  let path: String

  init() throws {
    path = "/tmp/kegmalloc-preload-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  func file(_ name: String, _ contents: String) throws -> String {
    try contents.write(toFile: path + "/" + name, atomically: false, encoding: .utf8)
    return path + "/" + name
  }
}

/// How many times slower than an idle machine one may be. A limit only turns a hang into
/// a failure: what ends in time does not wait for it.
private let patience = 4.0

/// Runs `command` to its end or to the time limit.
/// - Parameters:
///   - command: the program, looked up in PATH, and its arguments.
///   - environment: added to the inherited environment; nil removes a variable.
///   - preload: whether the library under test is put into LD_PRELOAD.
///   - timeout: seconds on an idle machine; after `patience` times as many the whole
///     process group is killed.
///   - clearEnvironment: starts from an empty environment.
func run(
  _ command: [String], environment: [String: String?] = [:], preload: Bool = true,
  timeout: Double = 60, directory: String? = nil, clearEnvironment: Bool = false
) throws -> Outcome {
  let scratch = try Scratch()
  var variables = clearEnvironment ? [:] : ProcessInfo.processInfo.environment
  for name in ["LD_PRELOAD", "KEGMALLOC_CONF", "KEGMALLOC_LIB"] { variables[name] = nil }
  if preload, !Library.isNone { variables["LD_PRELOAD"] = Library.path }
  for (name, value) in environment { variables[name] = value }

  let outputs = (scratch.path + "/stdout", scratch.path + "/stderr")
  let child = try spawn(command, variables, outputs, directory)
  var hang = ""
  let status = wait(for: child, timeout: timeout * patience) { hang = describeGroup(child) }
  kill(-child, SIGKILL)  // whatever it left behind
  func text(_ path: String) -> String {
    String(decoding: FileManager.default.contents(atPath: path) ?? Data(), as: UTF8.self)
  }
  return Outcome(status: status, stdout: text(outputs.0), stderr: text(outputs.1), hang: hang)
}

private func spawn(
  _ command: [String], _ environment: [String: String], _ outputs: (String, String),
  _ directory: String?
) throws -> pid_t {
  var actions = posix_spawn_file_actions_t()
  var attributes = posix_spawnattr_t()
  posix_spawn_file_actions_init(&actions)
  posix_spawnattr_init(&attributes)
  defer {
    posix_spawn_file_actions_destroy(&actions)
    posix_spawnattr_destroy(&attributes)
  }
  let create = O_WRONLY | O_CREAT | O_TRUNC
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
  posix_spawn_file_actions_addopen(&actions, 1, outputs.0, create, 0o600)
  posix_spawn_file_actions_addopen(&actions, 2, outputs.1, create, 0o600)
  if let directory { addChangeOfDirectory(&actions, directory) }
  posix_spawnattr_setpgroup(&attributes, 0)
  // The threads of a test process block or ignore signals that programs expect.
  var (none, all) = (sigset_t(), sigset_t())
  sigemptyset(&none)
  sigfillset(&all)
  posix_spawnattr_setsigmask(&attributes, &none)
  posix_spawnattr_setsigdefault(&attributes, &all)
  let flags = POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF
  posix_spawnattr_setflags(&attributes, Int16(flags))

  var arguments = command.map { strdup($0) } + [nil]
  var variables = environment.map { strdup("\($0)=\($1)") } + [nil]
  defer { for text in arguments + variables { free(text) } }
  var child: pid_t = 0
  let code = posix_spawnp(&child, command[0], &actions, &attributes, &arguments, &variables)
  guard code == 0 else {
    throw HarnessError("cannot start \(command[0]): \(String(cString: strerror(code)))")
  }
  return child
}

/// posix_spawn_file_actions_addchdir_np, which the Swift overlay does not pass on.
private let addChangeOfDirectory:
  @convention(c) (UnsafeMutablePointer<posix_spawn_file_actions_t>, UnsafePointer<CChar>) -> Void = {
    guard let symbol = dlsym(nil, "posix_spawn_file_actions_addchdir_np") else {
      fatalError("glibc 2.29 or later is needed")
    }
    return unsafeBitCast(
      symbol,
      to: (@convention(c) (
        UnsafeMutablePointer<posix_spawn_file_actions_t>, UnsafePointer<CChar>
      ) -> Void).self)
  }()

private func wait(for child: pid_t, timeout: Double, onTimeout: () -> Void) -> Outcome.End {
  let deadline = Date().addingTimeInterval(timeout)
  var status: Int32 = 0
  while waitpid(child, &status, WNOHANG) == 0 {
    if Date() > deadline {
      onTimeout()
      kill(-child, SIGKILL)
      waitpid(child, &status, 0)
      return .timedOut
    }
    usleep(2000)
  }
  let signal = status & 0x7f
  return signal == 0 ? .exited((status >> 8) & 0xff) : .killed(signal: signal)
}

/// A program made from a file of Fixtures/.
enum Fixture {
  private static let lock = NSLock()
  private static let directory = Repository.root + "/out/fixtures"

  /// Compiles the fixture unless an up-to-date one is there, and returns its path.
  /// - Parameters:
  ///   - name: the source file without `.c` or `.cc`.
  ///   - output: the file to make, if one source makes several.
  ///   - flags: compiler flags, after the default ones.
  static func build(_ name: String, output: String? = nil, flags: [String] = []) throws -> String {
    lock.lock()
    defer { lock.unlock() }
    let source = try source(of: name)
    let binary = directory + "/" + (output ?? name)
    let isCxx = source.hasSuffix(".cc")
    // The compiler must not reason about malloc: it would delete what is tested.
    let command =
      [isCxx ? "c++" : "cc", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fno-builtin", "-pthread"]
      + [isCxx ? "-std=c++17" : "-std=gnu17", "-D_GNU_SOURCE"] + flags
    // The command line is kept beside the binary, so that other flags rebuild it.
    let recordPath = binary + ".command"
    let record = command.joined(separator: " ")
    let header = Repository.fixtureSources + "/fixture.h"
    if isNewer(binary, than: [source, header]),
      (try? String(contentsOfFile: recordPath, encoding: .utf8)) == record
    {
      return binary
    }
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    // -l flags must follow the source.
    let libraries = flags.filter { $0.hasPrefix("-l") || $0.hasPrefix("-Wl,-rpath") }
    let outcome = try run(
      command + [source, "-o", binary + ".new"] + libraries, preload: false, timeout: 120)
    guard outcome.succeeded else { throw HarnessError("\(source): \(outcome.report)") }
    guard rename(binary + ".new", binary) == 0 else { throw HarnessError("cannot write \(binary)") }
    try record.write(toFile: recordPath, atomically: true, encoding: .utf8)
    return binary
  }

  private static func source(of name: String) throws -> String {
    for suffix in [".c", ".cc"] {
      let path = Repository.fixtureSources + "/" + name + suffix
      if access(path, R_OK) == 0 { return path }
    }
    throw HarnessError("no fixture \(name)")
  }

  private static func isNewer(_ binary: String, than sources: [String]) -> Bool {
    func time(_ path: String) -> Double? {
      var status = stat()
      guard stat(path, &status) == 0 else { return nil }
      return Double(status.st_mtim.tv_sec) + Double(status.st_mtim.tv_nsec) / 1e9
    }
    guard let built = time(binary) else { return false }
    return sources.allSatisfy { (time($0) ?? 0) < built }
  }
}

/// Runs a fixture under the library; it must print `ok` and exit with 0.
func expectOK(
  _ name: String, _ arguments: [String] = [], flags: [String] = [],
  environment: [String: String?] = [:], timeout: Double = 60,
  sourceLocation: SourceLocation = #_sourceLocation
) throws {
  let binary = try Fixture.build(name, flags: flags)
  let outcome = try run([binary] + arguments, environment: environment, timeout: timeout)
  outcome.expect(
    outcome.succeeded && outcome.stdout.hasSuffix("ok\n") && outcome.stderr == "",
    "\(name) \(arguments.joined(separator: " "))", sourceLocation)
}

/// The first of these programs that is installed.
func findProgram(_ names: String...) -> String? {
  for name in names {
    if name.hasPrefix("/") {
      if access(name, X_OK) == 0 { return name }
      continue
    }
    for directory in (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":") {
      let path = "\(directory)/\(name)"
      if access(path, X_OK) == 0 { return path }
    }
  }
  return nil
}

extension Trait where Self == ConditionTrait {
  /// Skips a suite that has nothing to test; LibraryTests says so once.
  static var libraryPresent: Self {
    .enabled(if: Library.isUsable, "\(Library.path) is not built")
  }

  /// For what other allocators do not promise.
  static var ours: Self { .enabled(if: Library.isOurs, "only libkegmalloc promises this") }
}

@Suite("Library")
struct LibraryTests {
  @Test("the library under test is there")
  func present() {
    #expect(Library.isUsable, "\(Library.path): run `make`, or set KEGMALLOC_LIB")
  }
}
