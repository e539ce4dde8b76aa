// DebugOptions.swift: what the command line of `kegmalloc debug` means for the
// library. Pure: words in, settings out.

struct DebugOptions: Equatable {
  /// For the library, as `key:value`.
  var settings: [String] = []
  /// The sides of the guard pages, one run each; nil stands for no side.
  var guardSides: [String?] = [nil]
  /// What an unsuppressed finding makes the exit code; 0 leaves the program's own.
  var exitCode = ReportOutput.defaultExitCode
  var log: String?

  /// - Parameters:
  ///   - pairs: the checked pairs of `-o`.
  ///   - guardValue: of `--guard`: `both`, or a value of the option `guard`.
  init(
    pairs: [String], guardValue: String? = nil, sample: Int? = nil, onError: String? = nil,
    leaks: Bool = true, profile: Bool = false, exitCode: Int32? = nil, log: String? = nil, known: [KnownOption]
  ) throws(Refusal) {
    for pair in pairs {
      let key = pair.prefix { $0 != ":" }
      let value = String(pair.dropFirst(key.count + 1))
      switch key {
      // The exit code is decided here, after suppression.
      case "exit_code": self.exitCode = Int32(value) ?? ReportOutput.defaultExitCode
      case "log_file": self.log = value
      case "json_file":
        throw Refusal(line: "-o \(pair): use --json, which also names files and lines")
      default: settings.append(pair)
      }
    }
    if let guardValue {
      if guardValue == "both" {
        guardSides = ["right", "left"]
      } else if Self.isGuard(guardValue) {
        settings.append("guard:\(guardValue)")
      } else {
        throw Refusal(
          line: "--guard \(guardValue): expected right, left, both, sample:N, zone:NAME or size:A-B")
      }
    }
    if let sample { settings.append("sample:\(sample)") }
    if let onError { settings.append("on_error:\(onError)") }
    if !leaks { settings.append("leak_check:off") }
    if profile { settings.append("profile:alloc") }
    if let exitCode { self.exitCode = exitCode }
    if let log { self.log = log }
    for setting in settings { _ = try Setting.parse(setting, known: known) }
  }

  private static func isGuard(_ value: String) -> Bool {
    value.wholeMatch(of: /off|right|left|sample:[1-9][0-9]*|zone:(large|malloc-[0-9]+)|size:[0-9]+-[0-9]+/) != nil
  }

  /// Whether the report lists items that only a word on a stack holds.
  var showsStackLeaks: Bool {
    settings.contains { $0 == "leak_show:stack" || $0 == "leak_show:reachable" }
  }

  /// All settings of one run.
  func settings(side: String?, file: String, profile: String) -> [String] {
    settings + (side.map { ["guard:\($0)"] } ?? [])
      + (settings.contains("profile:alloc") ? ["profile_file:\(profile)"] : [])
      + ["exit_code:0", "json_file:\(file)"]
  }

  /// The exit code of the whole, given what each run ended with.
  func status(ends: [Int32], errorCount: Int) -> Int32 {
    if errorCount > 0 && exitCode != 0 { return exitCode }
    return ends.first { $0 != 0 } ?? 0
  }
}
