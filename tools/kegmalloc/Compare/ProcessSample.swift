// ProcessSample.swift: what /proc/PID says about a running process.
//
// These figures are samples: a peak between two looks is missed, and a process
// that lives for less than one interval has none. The exact peak RSS comes from
// wait4. Runs whose time counts are not sampled, because reading the list of
// mappings stops the process from changing it.
import Foundation

struct ProcessSample: Codable, Equatable {
  var seconds: Double
  var residentBytes: Int
  /// Mappings, and bytes in those that are not PROT_NONE.
  var mappingCount: Int
  var mappedBytes: Int

  /// The state of a process now; nil when it is gone (or became a zombie).
  init?(pid: Int32, seconds: Double) {
    guard let statm = readProc("/proc/\(pid)/statm"),
      let maps = readProc("/proc/\(pid)/maps"), !maps.isEmpty
    else { return nil }
    let fields = statm.split(separator: UInt8(ascii: " "))
    guard fields.count > 1, let pages = Int(String(decoding: fields[1], as: UTF8.self)) else {
      return nil
    }
    self.seconds = seconds
    residentBytes = pages * Int(sysconf(Int32(_SC_PAGESIZE)))
    (mappingCount, mappedBytes) = Self.countMappings(maps)
  }

  /// Counts the lines of a maps file and the bytes of accessible mappings.
  static func countMappings(_ maps: [UInt8]) -> (count: Int, bytes: Int) {
    var count = 0
    var bytes = 0
    for line in maps.split(separator: UInt8(ascii: "\n")) {
      count += 1
      let fields = line.split(separator: UInt8(ascii: " "), maxSplits: 2)
      guard fields.count > 1, !fields[1].prefix(3).allSatisfy({ $0 == UInt8(ascii: "-") }) else {
        continue
      }
      let ends = fields[0].split(separator: UInt8(ascii: "-")).compactMap {
        UInt64(String(decoding: $0, as: UTF8.self), radix: 16)
      }
      if ends.count == 2 { bytes += Int(ends[1] &- ends[0]) }
    }
    return (count, bytes)
  }

  /// Milliseconds until the next look: often at first, seldom in long runs.
  static func interval(after seconds: Double) -> Int32 {
    seconds < 0.1 ? 1 : seconds < 2 ? 5 : 20
  }
}

/// A /proc file, whose size cannot be asked for; nil when it cannot be read.
func readProc(_ path: String) -> [UInt8]? {
  let fd = open(path, O_RDONLY | O_CLOEXEC)
  guard fd >= 0 else { return nil }
  defer { close(fd) }
  var bytes: [UInt8] = []
  var chunk = [UInt8](repeating: 0, count: 16_384)
  while true {
    let count = read(fd, &chunk, chunk.count)
    if count < 0 { return nil }
    if count == 0 { return bytes }
    bytes += chunk[..<count]
  }
}
