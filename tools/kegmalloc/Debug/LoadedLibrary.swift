// LoadedLibrary.swift: which kegmalloc library a running process has, and where in it
// a function of that library is.

import Foundation

struct LoadedLibrary: Equatable {
  /// The path as the process sees it.
  var path: String
  /// What to add to an address of the file.
  var base: UInt64

  var isDebug: Bool { (path as NSString).lastPathComponent.contains("debug") }

  /// The library among the mappings of /proc/PID/maps; the debug library first.
  static func find(inMaps maps: String) -> LoadedLibrary? {
    var found: [LoadedLibrary] = []
    for line in maps.split(separator: "\n") {
      // start-end perms offset device inode path
      let fields = line.split(separator: " ", maxSplits: 5)
      guard fields.count == 6, fields[2].allSatisfy({ $0 == "0" }) else { continue }
      let path = fields[5].drop { $0 == " " }
      guard let name = path.split(separator: "/").last, name.hasPrefix("libkegmalloc"),
        let base = UInt64(fields[0].prefix { $0 != "-" }, radix: 16)
      else { continue }
      if !found.contains(where: { $0.path == path }) {
        found.append(LoadedLibrary(path: String(path), base: base))
      }
    }
    return found.first { $0.isDebug } ?? found.first
  }

  /// The address of an exported function in the process; nil if there is none.
  func address(of function: String, process: pid_t) -> UInt64? {
    let file = URL(fileURLWithPath: "/proc/\(process)/root\(path)")
    guard let contents = try? Data(contentsOf: file, options: .mappedIfSafe),
      let value = ELFFile.value(of: function, in: contents)
    else { return nil }
    return base + value
  }
}
