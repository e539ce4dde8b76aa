// SmallProcessTests.swift: what the library costs a process that hardly uses it.
//
// The memory map of a `sleep` that sleeps: the library's pages, and what the process holds
// in private pages with and without it. Which pages of files are resident depends on where
// the kernel puts them, 16 at a time, hence a median.

import Foundation
import Testing

/// The lines of /proc/PID/smaps of an idle `sleep`.
private func idleMap(preload: Bool) throws -> [Substring] {
  let outcome = try run(
    [
      "sh", "-c",
      // 230: clock_nanosleep
      "sleep 30 & until grep -q '^230 ' /proc/$!/syscall; do :; done; cat /proc/$!/smaps; kill $!",
    ], preload: preload)
  outcome.expect(outcome.succeeded)
  return outcome.stdout.split(separator: "\n")
}

/// Resident KiB: private pages, and those of the library.
private func residentKiB(preload: Bool) throws -> (anonymous: Int, library: Int) {
  var isLibrary = false
  var anonymous = 0
  var library = 0
  for line in try idleMap(preload: preload) {
    let fields = line.split(separator: " ")
    if !fields[0].hasSuffix(":") { isLibrary = line.contains("libkegmalloc") }
    guard fields.count > 1, let value = Int(fields[1]) else { continue }
    if fields[0] == "Anonymous:" { anonymous += value }
    if isLibrary, fields[0] == "Rss:" { library += value }
  }
  return (anonymous, library)
}

@Suite(
  "A small process", .libraryPresent, .ours,
  .enabled(if: Library.path.hasSuffix("/out/lib/libkegmalloc.so"), "the layout is that of the shipping library"))
struct SmallProcessTests {
  @Test("costs at most 200 KiB more of resident memory than with the C library's malloc")
  func resident() throws {
    let without = try residentKiB(preload: false)
    #expect(without.library == 0)
    // The library's own file pages, and all private pages but those of a process without it;
    // the relocated page is in both.
    let costs = try (0..<9).map { _ in
      let with = try residentKiB(preload: true)
      #expect(with.library > 0)
      return with.library + with.anonymous - without.anonymous - 4
    }
    #expect(costs.sorted()[4] <= 200, "\(costs), \(without)")
  }

  @Test("is charged at most 4 MiB more where the kernel promises no memory that it has not got")
  func charged() throws {
    // Strict overcommit charges private memory that may be written, touched or not.
    func writableKiB(preload: Bool) throws -> Int {
      var isCharged = false
      var sum = 0
      for line in try idleMap(preload: preload) {
        let fields = line.split(separator: " ")
        if !fields[0].hasSuffix(":") { isCharged = fields[1].hasSuffix("p") && fields[1].contains("w") }
        if isCharged, fields[0] == "Size:" { sum += Int(fields[1]) ?? 0 }
      }
      return sum
    }
    let (with, without) = (try writableKiB(preload: true), try writableKiB(preload: false))
    #expect(without > 0 && with <= without + 4096, "\(with) KiB with the library, \(without) without")
  }

  @Test("has no page of the file copied but the one that is relocated")
  func copied() throws {
    var isLibrary = false
    var mappings = 0
    var copied = 0
    for line in try idleMap(preload: true) {
      let fields = line.split(separator: " ")
      if !fields[0].hasSuffix(":") {
        isLibrary = line.contains("libkegmalloc")
        mappings += isLibrary ? 1 : 0
      }
      if isLibrary, fields[0] == "Anonymous:" { copied += Int(fields[1]) ?? 0 }
    }
    #expect(mappings == 2)
    #expect(copied == 4)
  }
}
