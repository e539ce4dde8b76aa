// Progress.swift: how far the comparison is: a bar with the time left on a
// terminal, one plain line per round elsewhere. It writes to stderr, so that
// the report on stdout can be piped.
import Foundation

final class Progress {
  private let total: Int
  private let isTerminal: Bool
  private let write: (String) -> Void
  private let started = ContinuousClock.now
  private var done = 0

  init(
    total: Int, isTerminal: Bool = isatty(2) == 1,
    write: @escaping (String) -> Void = { FileHandle.standardError.write(Data($0.utf8)) }
  ) {
    self.total = max(total, 1)
    self.isTerminal = isTerminal
    self.write = write
  }

  /// Before one run.
  func begin(_ what: String) {
    guard isTerminal else { return }
    let filled = min(24, done * 24 / total)
    let bar = String(repeating: "#", count: filled) + String(repeating: "-", count: 24 - filled)
    write("\r\u{1B}[K[\(bar)] \(done)/\(total)\(timeLeft.map { "  \($0) left" } ?? "")  \(what)")
  }

  /// After one run.
  func end() { done = min(done + 1, total) }

  /// Runs that will not happen after all.
  func skip(_ count: Int) { done = min(done + count, total) }

  /// After one round.
  func endRound(_ what: String) {
    guard !isTerminal else { return }
    write("\(what)\(timeLeft.map { ", \($0) left" } ?? "")\n")
  }

  /// Removes the bar.
  func clear() {
    if isTerminal { write("\r\u{1B}[K") }
  }

  private var timeLeft: String? {
    guard done > 0 else { return nil }
    let (seconds, attoseconds) = (ContinuousClock.now - started).components
    let elapsed = Double(seconds) + Double(attoseconds) * 1e-18
    return Self.clock(elapsed / Double(done) * Double(total - done))
  }

  static func clock(_ seconds: Double) -> String {
    let whole = Int(seconds.rounded(.up))
    let minutes = whole / 60 % 60
    let rest = whole % 60
    func two(_ number: Int) -> String { number < 10 ? "0\(number)" : "\(number)" }
    return whole < 3600 ? "\(minutes):\(two(rest))" : "\(whole / 3600):\(two(minutes)):\(two(rest))"
  }
}
