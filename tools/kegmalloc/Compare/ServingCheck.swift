// ServingCheck.swift: does the library really serve malloc in the program?
//
// LD_PRELOAD is a wish: a static program ignores it, a program that exports its
// own malloc comes before it, a library of another architecture is skipped
// with a warning. So one run of every allocator is made with LD_DEBUG=bindings,
// and the dynamic linker writes down, per process, which library each symbol
// was bound to. What counts is where `malloc` ended up.
//
// Not seen this way: a program that calls an allocator of its own under other
// names (je_malloc, an arena), which no preload can replace.
import Foundation

/// The answer for one allocator and one command.
struct Serving: Codable, Equatable {
  enum State: String, Codable { case verified, other, unknown }
  var state: State
  /// The library that serves malloc (`other`), or why nobody knows (`unknown`).
  var detail: String?

  static let notChecked = Serving(state: .unknown, detail: "not checked")
}

/// A temporary directory into which the dynamic linker writes its bindings.
struct ServingCheck {
  let directory: String

  init() throws(RunError) {
    var template = Array("\(NSTemporaryDirectory())/kegmalloc-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw .setup("cannot make a temporary directory") }
    directory = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  var variables: [String: String] {
    ["LD_DEBUG": "bindings", "LD_DEBUG_OUTPUT": "\(directory)/bindings"]
  }

  func remove() { try? FileManager.default.removeItem(atPath: directory) }

  /// The answer, from the files that the run left, one per process.
  /// - Parameters:
  ///   - library: what should serve; nil for the C library.
  ///   - pid: the process that was started; the others are its descendants.
  func serving(library: String?, pid: Int32) -> Serving {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
    var processes: [String: Set<String>] = [:]
    for name in names {
      guard let bytes = readProc("\(directory)/\(name)"), let dot = name.lastIndex(of: ".") else {
        continue
      }
      processes[String(name[name.index(after: dot)...])] = Self.mallocServers(
        in: String(decoding: bytes, as: UTF8.self))
    }
    return Self.judge(processes, first: String(pid), library: library)
  }

  /// - Parameter processes: by PID, the libraries that malloc was bound to.
  static func judge(_ processes: [String: Set<String>], first: String, library: String?) -> Serving
  {
    guard let own = processes[first] else {
      return Serving(
        state: .unknown, detail: "the linker wrote no bindings for it (static program?)")
    }
    if own.isEmpty { return Serving(state: .unknown, detail: "it never bound malloc") }
    let servers = processes.values.reduce(into: Set()) { $0.formUnion($1) }
    let strangers = servers.filter { !isSame($0, library) }
    if strangers.isEmpty { return Serving(state: .verified, detail: nil) }
    return Serving(state: .other, detail: strangers.sorted().joined(separator: ", "))
  }

  private static func isSame(_ path: String, _ library: String?) -> Bool {
    guard let library else { return isCLibrary(path) }
    return realPath(path) == realPath(library)
  }

  static func isCLibrary(_ path: String) -> Bool {
    let name = path.split(separator: "/").last ?? ""
    return name.hasPrefix("libc.so") || name.hasPrefix("libc-") || name.hasPrefix("ld-musl")
  }

  private static func realPath(_ path: String) -> String {
    guard let resolved = realpath(path, nil) else { return path }
    defer { free(resolved) }
    return String(cString: resolved)
  }

  /// The libraries that `malloc` of one process was bound to.
  /// Bindings made by an allocator itself (to the C library beneath it) and by
  /// the linker do not count.
  ///
  /// A record ends where the next one begins, not with its line: the linker writes the
  /// version of a symbol and the line's end apart, and threads come in between.
  static func mallocServers(in log: String) -> Set<String> {
    var servers: Set<String> = []
    for record in log.components(separatedBy: "binding file ").dropFirst() {
      guard let binding = parseBinding(record), binding.symbol == "malloc",
        binding.user != binding.server || isCLibrary(binding.server),
        !binding.user.contains("/ld-linux")
      else { continue }
      servers.insert(binding.server)
    }
    return servers
  }

  /// `USER [0] to SERVER [0]: normal symbol `malloc' [VERSION]`
  private static func parseBinding(
    _ record: String
  ) -> (user: String, server: String, symbol: Substring)? {
    guard let middle = record.range(of: " [0] to "),
      let end = record.range(of: " [0]: normal symbol `"), middle.upperBound <= end.lowerBound,
      let quote = record[end.upperBound...].firstIndex(of: "'")
    else { return nil }
    return (
      String(record[..<middle.lowerBound]), String(record[middle.upperBound..<end.lowerBound]),
      record[end.upperBound..<quote]
    )
  }
}
