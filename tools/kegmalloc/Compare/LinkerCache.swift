// LinkerCache.swift: which allocators are installed, by the dynamic linker's
// cache (`ldconfig -p`): what it lists is what LD_PRELOAD finds by name.
import Foundation

struct LinkerCache: Sendable {
  /// Path by file name; of several, the first listed, as the linker chooses.
  var paths: [String: String] = [:]

  /// Parses lines like `	libc.so.6 (libc6,x86-64, OS ABI: …) => /lib/…/libc.so.6`
  /// and keeps those of this machine's architecture.
  init(listing: String, architecture: String = LinkerCache.ownArchitecture) {
    for line in listing.split(separator: "\n") {
      let halves = line.components(separatedBy: " => ")
      guard halves.count == 2, let open = halves[0].firstIndex(of: "("),
        halves[0][open...].contains(architecture)
      else { continue }
      let name = halves[0][..<open].trimmingCharacters(in: .whitespaces)
      if paths[name] == nil { paths[name] = halves[1] }
    }
  }

  #if arch(arm64)
    static let ownArchitecture = "AArch64"
  #else
    static let ownArchitecture = "x86-64"
  #endif

  /// The cache of this machine; empty when ldconfig is not there.
  static func read() -> LinkerCache {
    let candidates: [String] = ["/sbin/ldconfig", "/usr/sbin/ldconfig"]
    let program = candidates.first { access($0, X_OK) == 0 }
    guard let program,
      let outcome = try? CommandRun(CommandRequest(command: [program, "-p"])).finish()
    else { return LinkerCache(listing: "") }
    return LinkerCache(listing: outcome.standardOutput.text)
  }

  /// The path of a library given by path or by file name.
  func locate(_ library: String, for name: String) throws(RunError) -> String {
    if library.contains("/") {
      guard access(library, R_OK) == 0 else { throw .setup("\(name): no library at \(library)") }
      return URL(fileURLWithPath: library).standardizedFileURL.path
    }
    guard let path = paths[library] else {
      throw .setup("\(name): no \(library) in the dynamic linker's cache")
    }
    return path
  }
}

/// The allocators that the tool knows by name.
struct AllocatorCatalog: Sendable {
  /// Names and file names, newest file name first.
  static let known: [(name: String, files: [String])] = [
    ("jemalloc", ["libjemalloc.so.2", "libjemalloc.so.1", "libjemalloc.so"]),
    ("mimalloc", ["libmimalloc.so.3", "libmimalloc.so.2", "libmimalloc.so"]),
    ("tcmalloc", ["libtcmalloc_minimal.so.4", "libtcmalloc.so.4", "libtcmalloc_minimal.so"]),
    ("scudo", ["libscudo.so", "libclang_rt.scudo_standalone-x86_64.so"]),
    ("hardened_malloc", ["libhardened_malloc.so", "libhardened_malloc-light.so"]),
    ("tbb", ["libtbbmalloc_proxy.so.2", "libtbbmalloc_proxy.so"]),
    ("snmalloc", ["libsnmallocshim.so", "libsnmalloc.so"]),
    ("rpmalloc", ["librpmalloc.so", "librpmallocwrap.so"]),
    ("hoard", ["libhoard.so"]),
  ]

  /// glibc, then kegmalloc if it is built, then what else is installed.
  var installed: [AllocatorSpec]

  init(cache: LinkerCache, kegmalloc: String?) {
    installed = [.glibc]
    if let path = kegmalloc ?? cache.paths["libkegmalloc.so.1"] ?? cache.paths["libkegmalloc.so"] {
      installed.append(AllocatorSpec(name: "kegmalloc", library: path))
    }
    for (name, files) in Self.known {
      if let path = files.lazy.compactMap({ cache.paths[$0] }).first {
        installed.append(AllocatorSpec(name: name, library: path))
      }
    }
  }

  /// The library of the build or installation that this tool belongs to.
  static func ownLibrary() -> String? {
    let candidates = [
      "../lib/libkegmalloc.so", "../../out/lib/libkegmalloc.so", "../../../out/lib/libkegmalloc.so",
    ]
    return candidates.map {
      URL(fileURLWithPath: "\(Launcher.ownDirectory)/\($0)").standardizedFileURL.path
    }
    .first { access($0, R_OK) == 0 }
  }

  func named(_ name: String) throws(RunError) -> AllocatorSpec {
    if name == "own" { return AllocatorSpec(name: "own", library: nil) }
    if let spec = installed.first(where: { $0.name == name }) { return spec }
    let names = installed.map(\.name).joined(separator: ", ")
    throw .setup(
      "no allocator \(name) is installed (found: \(names)); --allocator NAME=PATH adds one")
  }
}
