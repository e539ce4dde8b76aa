// swift-tools-version: 6.2
// The hosted build: every layer as an ordinary Swift module, its tests and the
// command. The shared libraries that programs preload come from the Makefile,
// which compiles the same sources as Embedded Swift; see docs/building.md.
import PackageDescription

// INVARIANTS turns on checkInvariants() and the lock-rank checker.
let layerSettings: [SwiftSetting] = [
  .define("INVARIANTS", .when(configuration: .debug)),
  .unsafeFlags(["-enforce-exclusivity=unchecked"]),
]

/// One layer of the allocator. `below` is every layer it may import; the build
/// rejects any other import (--explicit-target-dependency-import-check error).
func layer(_ name: String, below: [String]) -> Target {
  .target(
    name: name, dependencies: below.map { .byName(name: $0) },
    path: "Sources/\(name)", swiftSettings: layerSettings)
}

func tests(of name: String, using: [String], exclude: [String] = []) -> Target {
  .testTarget(
    name: "\(name)Tests", dependencies: using.map { .byName(name: $0) },
    path: "Tests/\(name)Tests", exclude: exclude, swiftSettings: layerSettings)
}

/// The layers that the shipping library consists of, and what their tests have in common.
let core: [Target] = [
  .target(name: "Platform", path: "shim/Platform"),
  layer("Base", below: ["Platform"]),
  layer("Pages", below: ["Platform", "Base"]),
  layer("Vmem", below: ["Base", "Pages"]),
  layer("Keg", below: ["Platform", "Base", "Pages", "Vmem"]),
  layer("SizeClass", below: ["Base"]),
  layer("Zone", below: ["Platform", "Base", "Pages", "Vmem", "Keg"]),
  layer("Stats", below: ["Base", "Pages", "Vmem", "Keg", "SizeClass", "Zone"]),
  layer("Malloc", below: ["Platform", "Base", "Pages", "Vmem", "Keg", "SizeClass", "Zone", "Stats"]),
  layer(
    "ZoneAPI",
    below: ["Platform", "Base", "Pages", "Vmem", "Keg", "SizeClass", "Zone", "Stats", "Malloc"]),
  // Fake pages, rigs of heap, keg and zone, threads: shared by the tests.
  .target(
    name: "TestSupport", dependencies: ["Platform", "Base", "Pages", "Vmem", "Keg", "Zone"],
    path: "Tests/TestSupport", swiftSettings: layerSettings),
  tests(of: "Base", using: ["Base", "TestSupport"]),
  tests(of: "Vmem", using: ["Base", "Pages", "Vmem", "TestSupport"]),
  tests(of: "Keg", using: ["Base", "Pages", "Vmem", "Keg", "TestSupport"]),
  tests(of: "Zone", using: ["Base", "Pages", "Vmem", "Keg", "Zone", "TestSupport"]),
  tests(
    of: "ZoneAPI", using: ["Platform", "Base", "Pages", "Vmem", "Keg", "Zone", "Malloc", "ZoneAPI", "TestSupport"]),
]

let others: [Target] = [
  .target(name: "DebugPlatform", dependencies: ["Platform"], path: "shim/Debug"),
  layer("Suppressions", below: []),
  layer("Leaks", below: ["Platform", "Base", "Pages"]),
  layer(
    "Debug",
    below: [
      "Platform", "DebugPlatform", "Base", "Pages", "Vmem", "Keg", "SizeClass", "Malloc",
      "Leaks",
    ]),
  // Zones for Swift programs, over the installed library: pkg-config says where it is.
  .systemLibrary(name: "CKegmalloc", path: "shim/CKegmalloc", pkgConfig: "kegmalloc"),
  .target(name: "KegZones", dependencies: ["CKegmalloc"], path: "Sources/KegZones"),
  .executableTarget(
    name: "kegmalloc",
    dependencies: ["Base", "Suppressions", .product(name: "ArgumentParser", package: "swift-argument-parser")],
    path: "tools/kegmalloc"),
  // Starts and measures one command for `kegmalloc compare`. It must stay as small
  // as a C program gets (see its head comment): no Swift runtime is linked into it.
  .executableTarget(
    name: "kegmalloc-launch", path: "shim/Launch",
    linkerSettings: [.unsafeFlags(["-nostartfiles", "-static-executable"])]),
  tests(of: "Pages", using: ["Base", "Pages", "TestSupport"]),
  tests(of: "SizeClass", using: ["Base", "SizeClass"]),
  tests(
    of: "Stats", using: ["Base", "Pages", "Vmem", "Keg", "Zone", "Stats", "TestSupport"]),
  // What the layer calls of shim/Exports and shim/DebugExports, whose names are those of
  // the C library, is not linked here; no test comes there.
  .testTarget(
    name: "DebugTests",
    dependencies: ["Base", "Pages", "DebugPlatform", "Debug", "TestSupport"].map { .byName(name: $0) },
    path: "Tests/DebugTests", swiftSettings: layerSettings,
    linkerSettings: [.unsafeFlags(["-Xlinker", "--unresolved-symbols=ignore-all"])]),
  tests(of: "Suppressions", using: ["Suppressions"]),
  tests(of: "Leaks", using: ["Base", "Pages", "Leaks"]),
  tests(of: "kegmalloc", using: ["kegmalloc"]),
  tests(of: "Codegen", using: [], exclude: ["fastpath.golden"]),
  tests(of: "Preload", using: [], exclude: ["Fixtures", "Programs", "exports.golden", "exports-debug.golden"]),
]

/// What `make test-tsan` builds: the rest would be most of its time.
let isCoreOnly = Context.environment["KEGMALLOC_CORE_ONLY"] != nil

let package = Package(
  name: "kegmalloc",
  products: isCoreOnly
    ? []
    : [
      .executable(name: "kegmalloc", targets: ["kegmalloc"]),
      .library(name: "KegZones", targets: ["KegZones"]),
    ],
  // Of the core alone nothing uses it; without it Package.resolved would be removed.
  dependencies: [.package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0")],
  targets: isCoreOnly ? core : core + others
)
