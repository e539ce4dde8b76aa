// Hang.swift: what a process group was doing when its time was over, for the message of
// the failed test: the kernel's view of every thread, and stacks where gdb may attach.
//
//   12345 threads S
//     12346 allocator  S futex_wait  202 0x7f…      number and arguments of the system call
//     #0  …

import Foundation

/// The processes of a group, their threads and where these are. Best effort: what cannot be
/// read is left out.
func describeGroup(_ group: pid_t) -> String {
  func read(_ path: String) -> String {
    String(decoding: FileManager.default.contents(atPath: path) ?? Data(), as: UTF8.self)
      .trimmingCharacters(in: .whitespacesAndNewlines)
  }
  func numbers(in directory: String) -> [Int] {
    ((try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []).compactMap { Int($0) }.sorted()
  }
  /// State, parent, group and what follows the name in a line of stat.
  func fields(_ path: String) -> [Substring] {
    read(path).split(separator: ")").last?.split(separator: " ") ?? []
  }
  var text = ""
  for pid in numbers(in: "/proc") {
    let status = fields("/proc/\(pid)/stat")
    guard status.count > 2, status[2] == "\(group)" else { continue }
    text += "\(pid) \(read("/proc/\(pid)/comm")) \(status[0])\n"
    for thread in numbers(in: "/proc/\(pid)/task") {
      let path = "/proc/\(pid)/task/\(thread)"
      text += "  \(thread) \(read(path + "/comm")) \(fields(path + "/stat").first ?? "?")"
      text += " \(read(path + "/wchan")) \(read(path + "/syscall"))\n"
    }
    text += stacks(of: pid)
  }
  return text
}

/// What gdb says of every thread's stack; nothing if it is not there or may not attach.
private func stacks(of pid: Int) -> String {
  guard let gdb = findProgram("gdb") else { return "" }
  let command = [gdb, "-batch", "-nx", "-p", "\(pid)", "-ex", "thread apply all bt 24"]
  guard let outcome = try? run(command, preload: false, timeout: 15) else { return "" }
  let lines = outcome.stdout.split(separator: "\n").filter { $0.hasPrefix("#") || $0.hasPrefix("Thread ") }
  return lines.joined(separator: "\n") + "\n"
}
