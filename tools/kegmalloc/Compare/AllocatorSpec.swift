// AllocatorSpec.swift: one entrant of the race, and the ways to name it.

/// An allocator: a library to preload, and settings for it.
struct AllocatorSpec: Codable, Equatable, Sendable {
  var name: String
  /// The library to preload; nil leaves the program as it was linked.
  var library: String?
  var environment: [String: String] = [:]

  /// The variables for the command.
  var variables: [String: String] {
    guard let library else { return environment }
    return environment.merging(["LD_PRELOAD": library]) { _, preload in preload }
  }

  /// glibc needs no library as long as nothing else serves the program.
  static let glibc = AllocatorSpec(name: "glibc", library: nil)

  /// Parses `name=path[,VARIABLE=value]...`. The path may be a bare file name
  /// (looked up in the linker's cache) or empty (nothing is preloaded).
  static func parse(_ text: String, cache: LinkerCache) throws(RunError) -> AllocatorSpec {
    let parts = text.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
    guard let first = parts.first, let equals = first.firstIndex(of: "="),
      equals != first.startIndex
    else { throw .setup("--allocator \(text): expected NAME=PATH[,VARIABLE=VALUE]") }
    let path = String(first[first.index(after: equals)...])
    var spec = AllocatorSpec(name: String(first[..<equals]), library: nil)
    if !path.isEmpty { spec.library = try cache.locate(path, for: spec.name) }
    for part in parts.dropFirst() {
      guard let equals = part.firstIndex(of: "="), equals != part.startIndex else {
        throw .setup("--allocator \(text): \(part) is not VARIABLE=VALUE")
      }
      spec.environment[String(part[..<equals])] = String(part[part.index(after: equals)...])
    }
    return spec
  }

  /// kegmalloc with options: `-o purge:0,thp:1` races as `kegmalloc(purge:0,thp:1)`.
  func variant(options: String) -> AllocatorSpec {
    var copy = self
    copy.name = "\(name)(\(options))"
    copy.environment["KEGMALLOC_CONF"] = options
    return copy
  }
}
