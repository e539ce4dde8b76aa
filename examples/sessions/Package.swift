// swift-tools-version: 6.2
// A Swift program on KegZones, as a package of its own: `swift run` beside the library.
// pkg-config tells SwiftPM where the header and the library are; where the dynamic
// linker does not look, the program must be told too (-Xlinker -rpath …).
import PackageDescription

let package = Package(
  name: "sessions",
  dependencies: [.package(name: "kegmalloc", path: "../..")],
  targets: [
    .executableTarget(
      name: "sessions", dependencies: [.product(name: "KegZones", package: "kegmalloc")]),
    .testTarget(
      name: "KegZonesTests", dependencies: [.product(name: "KegZones", package: "kegmalloc")]),
  ])
