// CommandRun.swift: one run of a command, from start to the last line of its
// output, through kegmalloc-launch (see shim/Launch/launch.c for why).
//
// One thread waits in poll() for the launcher's lines and for stdout and stderr.
// With sampling it wakes up in between to look at /proc/PID; without it, it
// sleeps until something happens, so that the command has the machine.
import Foundation

/// What to run and how to watch it.
struct CommandRequest: Sendable {
  var command: [String]
  /// Set in the command's environment only.
  var environment: [String: String] = [:]
  var input = "/dev/null"
  var sampled = false
  /// Seconds after which the command is killed; nil for never.
  var timeout: Double?
}

/// What a finished run left.
struct CommandOutcome {
  var measurement = Measurement()
  var pid: Int32 = 0
  var samples: [ProcessSample] = []
  /// The last part of what was written, for --score and for messages.
  var standardOutput = Tail()
  var standardError = Tail()
  var timedOut = false

  /// The last line on stderr, or nothing.
  var lastErrorLine: String {
    let lines = standardError.text.split(separator: "\n")
    return lines.last.map { String($0.prefix(200)) } ?? ""
  }
}

/// The last mebibyte of a stream.
struct Tail {
  private(set) var bytes: [UInt8] = []
  static let limit = 1 << 20

  mutating func add(_ more: ArraySlice<UInt8>) {
    bytes += more
    if bytes.count > 2 * Self.limit { bytes.removeFirst(bytes.count - Self.limit) }
  }

  var text: String { String(decoding: bytes.suffix(Self.limit), as: UTF8.self) }
}

/// Why there is no outcome. Every case is one line for the user.
enum RunError: Error, Equatable {
  case launcherMissing
  case cannotStart(String, Int32)
  case interrupted
  /// The comparison is complete, but some allocator is flagged in it.
  case flagged
  case commandFailed(String, Int32)
  case serverDied(String)
  case setup(String)

  var message: String {
    switch self {
    case .launcherMissing: "kegmalloc-launch is not installed beside the tool"
    case .cannotStart(let name, let error):
      "cannot run \(name): \(String(cString: strerror(error)))"
    case .interrupted: "interrupted"
    case .flagged: "some allocators are flagged"
    case .commandFailed(let text, _), .serverDied(let text), .setup(let text): text
    }
  }

  /// As env(1) and nice(1): 127 not found, 126 found but not runnable.
  var status: Int32 {
    switch self {
    case .cannotStart(_, let error): error == ENOENT ? 127 : 126
    case .commandFailed(_, let status): status
    case .interrupted: 130
    case .flagged: 1
    default: 2
    }
  }
}

/// A command under way. `finish` must be called once.
final class CommandRun {
  private let request: CommandRequest
  private let launcher: Int32
  private let started = ContinuousClock.now
  private(set) var outcome = CommandOutcome()
  private var hash = OutputHash()
  private var control: [UInt8] = []
  private var ended = false
  private var startError = ENOENT

  private enum Stream: Int { case control, output, error }
  /// The reading ends, by `Stream`; -1 once at their end.
  private var descriptors: [Int32]

  init(_ request: CommandRequest) throws(RunError) {
    self.request = request
    let pipes = try (0..<3).map { _ throws(RunError) in try Self.makePipe() }
    defer { for pipe in pipes { close(pipe.write) } }
    descriptors = pipes.map(\.read)
    launcher = try Self.spawnLauncher(
      request, control: pipes[0].write, out: pipes[1].write, err: pipes[2].write)
  }

  /// Waits until the launcher has said which process it started.
  func waitForStart() throws(RunError) {
    while outcome.pid == 0 && !ended { try pump(timeout: -1) }
    if outcome.pid == 0 { try finishFailedStart() }
  }

  /// True while the command runs; looks at its output on the way.
  func isRunning() throws(RunError) -> Bool {
    try pump(timeout: 0)
    killIfOverdue(elapsed())
    return !ended
  }

  /// True while the command runs; takes a sample and sleeps until the next.
  func watch() throws(RunError) -> Bool {
    let seconds = elapsed()
    sample(at: seconds)
    try pump(timeout: request.sampled ? ProcessSample.interval(after: seconds) : 5)
    return !ended
  }

  /// Waits for the end of the command.
  func finish() throws(RunError) -> CommandOutcome {
    while !ended {
      let seconds = elapsed()
      killIfOverdue(seconds)
      if ended { break }
      sample(at: seconds)
      try pump(timeout: patience(after: seconds))
    }
    if outcome.pid == 0 { try finishFailedStart() }
    try drain()
    reap()
    outcome.measurement.outputHash = hash.text
    return outcome
  }

  /// Sends a signal to the command itself.
  func signal(_ number: Int32) {
    if outcome.pid > 0 && !ended { kill(outcome.pid, number) }
  }

  /// Kills the launcher and everything in its process group.
  func abandon() {
    kill(-launcher, SIGKILL)
    reap()
  }
}

// MARK: - Watching

extension CommandRun {
  private func elapsed() -> Double {
    let (seconds, attoseconds) = (ContinuousClock.now - started).components
    return Double(seconds) + Double(attoseconds) * 1e-18
  }

  /// Milliseconds to sleep in poll(); -1 for as long as nothing happens.
  private func patience(after seconds: Double) -> Int32 {
    if request.sampled { return ProcessSample.interval(after: seconds) }
    return request.timeout == nil ? -1 : 50
  }

  private func killIfOverdue(_ seconds: Double) {
    guard let limit = request.timeout, seconds > limit, !ended else { return }
    outcome.timedOut = true
    outcome.measurement.exitStatus = .signalled(SIGKILL)
    ended = true
    kill(-launcher, SIGKILL)
  }

  private func sample(at seconds: Double) {
    guard request.sampled, outcome.pid > 0, !ended,
      let sample = ProcessSample(pid: outcome.pid, seconds: seconds)
    else { return }
    outcome.samples.append(sample)
  }

  /// One poll over the open streams.
  private func pump(timeout: Int32) throws(RunError) {
    if Interrupt.requested {
      abandon()
      throw .interrupted
    }
    var polled = descriptors.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
    guard poll(&polled, nfds_t(polled.count), timeout) > 0 else { return }
    for (index, entry) in polled.enumerated() where entry.revents != 0 { readStream(index) }
  }

  private func readStream(_ index: Int) {
    var chunk = [UInt8](repeating: 0, count: 65_536)
    let count = read(descriptors[index], &chunk, chunk.count)
    guard count > 0 else {
      if count < 0 && errno == EINTR { return }
      close(descriptors[index])
      descriptors[index] = -1
      if Stream(rawValue: index) == .control { ended = true }
      return
    }
    switch Stream(rawValue: index) {
    case .control: readControl(chunk[..<count])
    case .error: outcome.standardError.add(chunk[..<count])
    default:
      hash.add(chunk[..<count])
      outcome.standardOutput.add(chunk[..<count])
    }
  }

  private func readControl(_ bytes: ArraySlice<UInt8>) {
    control += bytes
    while let end = control.firstIndex(of: UInt8(ascii: "\n")) {
      apply(line: String(decoding: control[..<end], as: UTF8.self))
      control.removeFirst(end + 1)
    }
  }

  private func apply(line: String) {
    let words = line.split(separator: " ")
    let numbers = words.dropFirst().compactMap { Int($0) }
    switch words.first {
    case "pid": outcome.pid = Int32(numbers.first ?? 0)
    case "failed": startError = Int32(numbers.first ?? Int(ENOENT))
    case "end" where numbers.count == 9:
      outcome.measurement.apply(numbers)
      ended = true
    default: break
    }
  }

  /// Reads what is left in the pipes. A background process of the command may
  /// hold them open, so this does not wait for their end.
  private func drain() throws(RunError) {
    for index in 1..<descriptors.count {
      while descriptors[index] >= 0 {
        var entry = pollfd(fd: descriptors[index], events: Int16(POLLIN), revents: 0)
        guard poll(&entry, 1, 0) > 0 else { break }
        readStream(index)
      }
    }
  }

  private func finishFailedStart() throws(RunError) -> Never {
    reap()
    throw .cannotStart(request.command[0], startError)
  }

  private func reap() {
    var status: Int32 = 0
    while waitpid(launcher, &status, 0) < 0 && errno == EINTR {}
    for index in descriptors.indices where descriptors[index] >= 0 {
      close(descriptors[index])
      descriptors[index] = -1
    }
  }
}

extension Measurement {
  /// Takes over the nine numbers of the launcher's "end" line.
  mutating func apply(_ numbers: [Int]) {
    exitStatus = EndStatus(waitStatus: Int32(truncatingIfNeeded: numbers[0]))
    wallSeconds = Double(numbers[1]) / 1e9
    userSeconds = Double(numbers[2]) / 1e6
    systemSeconds = Double(numbers[3]) / 1e6
    peakResidentBytes = numbers[4] * 1024
    minorFaults = numbers[5]
    majorFaults = numbers[6]
    voluntarySwitches = numbers[7]
    involuntarySwitches = numbers[8]
  }
}
