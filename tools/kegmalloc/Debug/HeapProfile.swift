// HeapProfile.swift: the profile of the debug library, read back with its addresses
// turned into places in files, and written as collapsed stacks for flame graphs.
//
//   2:      224 [     7:      784 ] @ 0x55… 0x55…    held: bytes [ allocated: bytes ] @ stack
//   MAPPED_LIBRARIES:
//   55d000000000-55d000001000 r--p 00000000 08:01 11  /bin/prog

import Foundation

struct HeapProfile {
  struct Figures: Equatable {
    var held = 0
    var heldBytes = 0
    var allocations = 0
    var allocatedBytes = 0

    static func + (one: Figures, other: Figures) -> Figures {
      Figures(
        held: one.held + other.held, heldBytes: one.heldBytes + other.heldBytes,
        allocations: one.allocations + other.allocations,
        allocatedBytes: one.allocatedBytes + other.allocatedBytes)
    }
  }

  /// One stack, innermost place first.
  struct Sample {
    var places: [FrameRecord]
    var figures: Figures
  }

  private(set) var samples: [Sample] = []

  /// - Parameter isFixed: whether a file is linked to fixed addresses.
  init(_ text: String, isFixed: (String) -> Bool = HeapProfile.isLinkedFixed) {
    let parts = text.components(separatedBy: "\nMAPPED_LIBRARIES:\n")
    let modules = Modules(maps: parts.count > 1 ? parts[1] : "", isFixed: isFixed)
    for line in parts[0].split(separator: "\n").dropFirst() {
      guard let at = line.firstIndex(of: "@") else { continue }
      let numbers = line[..<at].split { !$0.isNumber }.compactMap { Int($0) }
      guard numbers.count == 4 else { continue }
      let places = line[at...].split(separator: " ").dropFirst()
        // Return addresses: the call is before them.
        .compactMap { UInt64(hexadecimal: String($0)) }.map { modules.place(of: $0 &- 1) }
      samples.append(
        Sample(
          places: places,
          figures: Figures(
            held: numbers[0], heldBytes: numbers[1], allocations: numbers[2],
            allocatedBytes: numbers[3])))
    }
  }

  /// Whether a file is an executable of the kind that is not moved when loaded.
  static func isLinkedFixed(_ path: String) -> Bool {
    let url = URL(fileURLWithPath: path)
    guard let contents = try? Data(contentsOf: url, options: .mappedIfSafe) else { return false }
    return (try? ELFFile(contents).type) == 2
  }

  /// The modules of a process, by their mappings.
  private struct Modules {
    private var ranges: [(range: Range<UInt64>, path: String)] = []
    private var bases: [String: UInt64] = [:]

    init(maps: String, isFixed: (String) -> Bool) {
      for line in maps.split(separator: "\n") {
        let fields = line.split(separator: " ", maxSplits: 5)
        guard fields.count == 6 else { continue }
        let path = String(fields[5].drop { $0 == " " })
        let ends = fields[0].split(separator: "-").compactMap { UInt64($0, radix: 16) }
        guard path.hasPrefix("/"), ends.count == 2, ends[0] < ends[1] else { continue }
        ranges.append((ends[0]..<ends[1], path))
        if bases[path] == nil { bases[path] = isFixed(path) ? 0 : ends[0] }
      }
    }

    func place(of address: UInt64) -> FrameRecord {
      let pc = "0x" + String(address, radix: 16)
      guard let path = ranges.first(where: { $0.range.contains(address) })?.path,
        let base = bases[path]
      else { return FrameRecord(pc: pc) }
      return FrameRecord(pc: pc, module: path, offset: "0x" + String(address - base, radix: 16))
    }
  }
}

/// The profiles of all processes of a run, with names.
struct NamedProfile {
  /// A stack of locations, each with its inlined frames, innermost first.
  struct Sample {
    var locations: [[Frame]]
    var figures: HeapProfile.Figures
  }

  private(set) var samples: [Sample] = []

  init(_ profiles: [HeapProfile], symbolizer: Symbolizer) {
    for sample in profiles.flatMap(\.samples) {
      let locations = sample.places.map { symbolizer.frames($0) }
      let isStart = { (frames: [Frame]) in frames.allSatisfy(AllocatorFrames.isStart) }
      var shown = locations[...]
      while let last = shown.last, isStart(last) { shown.removeLast() }
      samples.append(
        Sample(locations: Array(shown.isEmpty ? locations[...] : shown), figures: sample.figures))
    }
  }

  /// `main;lose;fresh 560`: a line for each stack of functions, the outermost first,
  /// with the bytes it holds, or has allocated in all.
  func folded(_ bytes: KeyPath<HeapProfile.Figures, Int>) -> String {
    var totals: [String: Int] = [:]
    for sample in samples where sample.figures[keyPath: bytes] > 0 {
      let names = sample.locations.joined().reversed().map { frame in
        (frame.function ?? frame.module ?? frame.pc).replacingOccurrences(of: ";", with: ":")
      }
      let stack = names.isEmpty ? "unknown" : names.joined(separator: ";")
      totals[stack, default: 0] += sample.figures[keyPath: bytes]
    }
    return totals.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)\n" }.joined()
  }
}
