// Subject.swift: what is raced: a command, or a server with a client command.
import Foundation

/// Something that can be run once under an allocator.
protocol Subject {
  /// One run. The measurement's score is not filled in yet.
  func run(_ variables: [String: String], sampled: Bool) throws(RunError) -> CommandOutcome
}

/// A command that runs to its end.
struct CommandSubject: Subject {
  var command: [String]
  var input = "/dev/null"
  var timeout: Double?

  func run(_ variables: [String: String], sampled: Bool) throws(RunError) -> CommandOutcome {
    try CommandRun(
      CommandRequest(
        command: command, environment: variables, input: input, sampled: sampled, timeout: timeout)
    ).finish()
  }
}

/// A server under the allocator and a client without it. The wall time, the
/// score and the output are the client's; the processor time, memory, faults
/// and switches are the server's, up to its end by SIGTERM. Loopback only.
struct ServerSubject: Subject {
  var server: String
  var client: [String]
  /// Where the server listens; nil to let `{port}` in the commands be any free
  /// port, and to wait for nothing when there is no `{port}`.
  var port: Int?
  var timeout: Double?
  static let startSeconds = 10.0

  func run(_ variables: [String: String], sampled: Bool) throws(RunError) -> CommandOutcome {
    let usesPlaceholder = ([server] + client).contains { $0.contains("{port}") }
    let port = self.port ?? (usesPlaceholder ? Loopback.freePort() : nil)
    func fill(_ text: String) -> String {
      text.replacingOccurrences(of: "{port}", with: String(port ?? 0))
    }

    let serverRun = try CommandRun(
      CommandRequest(
        command: ["/bin/sh", "-c", "exec " + fill(server)], environment: variables, sampled: sampled
      ))
    do throws(RunError) {
      try serverRun.waitForStart()
      try waitUntilReady(serverRun, port: port)
      let clientOutcome = try serverRun.finish(
        alongside: CommandRequest(command: client.map(fill), timeout: timeout))
      return clientOutcome
    } catch {
      serverRun.abandon()
      throw error
    }
  }

  private func waitUntilReady(_ run: CommandRun, port: Int?) throws(RunError) {
    guard let port else {
      usleep(300_000)
      return
    }
    for _ in 0..<Int(Self.startSeconds * 100) {
      guard try run.isRunning() else { throw run.deathOfServer() }
      if Loopback.connects(to: port) { return }
      usleep(10_000)
    }
    throw .serverDied(
      "the server does not listen on port \(port) after \(Int(Self.startSeconds)) s")
  }
}

extension CommandRun {
  /// Runs the client while this server runs, then ends the server.
  func finish(alongside request: CommandRequest) throws(RunError) -> CommandOutcome {
    let clientRun = try CommandRun(request)
    do throws(RunError) {
      while try clientRun.isRunning() {
        guard try watch() else { throw deathOfServer() }
      }
    } catch {
      clientRun.abandon()
      throw error
    }
    let client = try clientRun.finish()
    guard try isRunning() else { throw deathOfServer() }
    signal(SIGTERM)
    var server = try finish()
    server.measurement.wallSeconds = client.measurement.wallSeconds
    server.measurement.exitStatus = client.measurement.exitStatus
    server.measurement.outputHash = client.measurement.outputHash
    server.standardOutput = client.standardOutput
    server.standardError = client.standardError
    return server
  }

  func deathOfServer() -> RunError {
    let end = try? finish()
    let how = end.map { "\($0.measurement.exitStatus)" } ?? "died"
    let line = end?.lastErrorLine ?? ""
    let said =
      line.isEmpty
      ? (end?.standardOutput.text.split(separator: "\n").last.map(String.init) ?? "") : line
    return .serverDied("the server (PID \(outcome.pid)) \(how)\(said.isEmpty ? "" : ": \(said)")")
  }
}

/// TCP on 127.0.0.1.
enum Loopback {
  private static func address(port: Int) -> sockaddr_in {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = in_port_t(UInt16(truncatingIfNeeded: port)).bigEndian
    address.sin_addr.s_addr = in_addr_t(0x7F00_0001).bigEndian
    return address
  }

  private static func withSocket<T>(_ body: (Int32) -> T) -> T {
    let fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    defer { close(fd) }
    return body(fd)
  }

  static func connects(to port: Int) -> Bool {
    var target = address(port: port)
    let size = socklen_t(MemoryLayout<sockaddr_in>.size)
    return withSocket { fd in
      withUnsafePointer(to: &target) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(fd, $0, size) == 0 }
      }
    }
  }

  /// A port nobody listens on now.
  static func freePort() -> Int {
    var chosen = address(port: 0)
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    return withSocket { fd in
      withUnsafeMutablePointer(to: &chosen) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
          guard bind(fd, pointer, size) == 0, getsockname(fd, pointer, &size) == 0 else { return }
        }
      }
      return Int(UInt16(bigEndian: chosen.sin_port))
    }
  }
}
