// ThreadTests.swift: threads at their edges, processes made from them.

import Testing

@Suite("Threads", .libraryPresent)
struct ThreadTests {
  @Test(
    "a thread's memory outlives it and comes back",
    arguments: [
      "exit-returns", "tsd", "first-call-is-free", "first-touch", "producer-consumer", "swapping",
    ])
  func memory(name: String) throws { try expectOK("threads", [name]) }

  @Test("unusual stacks", arguments: ["small-stacks", "contexts"])
  func stacks(name: String) throws { try expectOK("threads", [name]) }

  @Test("unusual ends", arguments: ["cancellation", "exit-while-running", "main-leaves-first"])
  func ends(name: String) throws { try expectOK("threads", [name]) }

  @Test("many idle threads keep little, and the heap does not grow for each", .ours)
  func idle() throws { try expectOK("idle_threads") }

  @Test("threads that free what they allocated do not pass it on to each other", .ours)
  func ownItems() throws {
    let outcome = try run(
      [try Fixture.build("own_items")], environment: ["KEGMALLOC_CONF": "stats:exit"])
    outcome.expect(outcome.succeeded)
    // ITEM SIZE LIMIT USED FREE REQ FAIL SLEEP XDOMAIN SLABS BUCKET
    let row = outcome.stderr.split(separator: "\n").first { $0.hasPrefix("malloc-32:") }
    let columns = (row ?? "").split(separator: " ").dropFirst().compactMap { Int($0) }
    #expect(columns.count == 10 && columns[4] > 5_000_000 && columns[7] < columns[4] / 50, "\(columns)")
  }

  @Test("C++ thread_local destructors allocate and free")
  func threadLocals() throws { try expectOK("thread_locals") }
}

@Suite("Fork", .libraryPresent)
struct ForkTests {
  @Test("a storm of forks among four allocating threads")
  func storm() throws { try expectOK("fork_storm", ["200"], timeout: 120) }

  @Test("the same with a background thread from the start", .ours)
  func stormWithBackground() throws {
    let options = ["KEGMALLOC_CONF": "background:on,decay_ms:10"]
    try expectOK("fork_storm", ["100"], environment: options, timeout: 120)
  }

  @Test("a fork of a process of one thread copies hardly more pages than without the library", .ours)
  func pages() throws {
    let fixture = try Fixture.build("fork_pages")
    let outcomes = try [false, true].map { try run([fixture], preload: $0) }
    let faults = outcomes.compactMap { Int($0.stdout.dropLast()) }
    #expect(faults.count == 2 && faults[1] <= faults[0] + 12, "without and with it: \(outcomes)")
  }

  @Test("children of _Fork and raw clone have a working heap", arguments: ["_Fork", "clone"])
  func raw(kind: String) throws { try expectOK("fork_kinds", [kind]) }

  @Test("children of _Fork and raw clone beside busy threads allocate and end", .ours)
  func orphans() throws { try expectOK("fork_kinds", ["orphans"], timeout: 300) }

  @Test(
    "other programs are started while threads allocate",
    arguments: ["vfork", "posix_spawn", "system", "popen"])
  func spawned(kind: String) throws { try expectOK("fork_kinds", [kind]) }
}
