// TransferTests.swift: memory that system calls read and write for the program: what
// the kernel would only answer with EFAULT, or not at all, is reported.

import Foundation
import Testing

@Suite("Transfers", .enabled(if: DebugLibrary.isUsable, "the debug library is not built"))
struct TransferTests {
  static let sending = [
    "write", "pwrite", "send", "sendto", "sendmsg", "sendmmsg", "writev", "pwritev", "pwritev2", "fwrite",
    "fwrite_unlocked",
  ]
  static let receiving = [
    "read", "__read_chk", "pread", "__pread_chk", "__pread64_chk", "recv", "__recv_chk", "recvfrom",
    "__recvfrom_chk", "recvmsg", "recvmmsg", "readv", "preadv", "preadv2", "getrandom", "fread",
    "fread_unlocked", "__fread_chk", "__fread_unlocked_chk",
  ]
  /// Of paths, which are short.
  static let paths = [
    "readlink", "__readlink_chk", "readlinkat", "__readlinkat_chk", "getcwd", "__getcwd_chk",
  ]
  static func sizes(_ call: String) -> [String] { paths.contains(call) ? ["48"] : ["48", "20000"] }

  func transfer(_ call: String, _ bug: String, _ size: String, conf: String) throws -> Outcome {
    try run(
      [try Fixture.build("transfers"), call, bug, size],
      environment: ["LD_PRELOAD": DebugLibrary.path, "KEGMALLOC_CONF": conf])
  }

  /// One report of that class, with its functions.
  func expect(_ outcome: Outcome, _ kind: String, _ access: String, _ what: String, freed: Bool) {
    outcome.expect(outcome.stderr.contains("kegmalloc: ERROR: \(kind): \(access) "), what)
    outcome.expect(outcome.stderr.components(separatedBy: "ERROR").count == 2, what)
    for function in ["transferring", "allocating"] + (freed ? ["freeing"] : []) {
      outcome.expect(outcome.stderr.contains(" \(function)+0x"), "\(what): \(function)")
    }
  }

  static let classes = [("over", "overflow"), ("under", "underflow"), ("freed", "use-after-free")]

  @Test("what is sent is looked at in every mode", arguments: sending, ["", "guard:right", "guard:left"])
  func sent(call: String, conf: String) throws {
    for size in Self.sizes(call) {
      for (bug, kind) in Self.classes {
        let outcome = try transfer(call, bug, size, conf: conf)
        expect(outcome, kind, "read", "\(call) \(bug) \(size) \(conf)", freed: bug == "freed")
      }
    }
  }

  @Test("what is received and meets a guard page", arguments: receiving + paths)
  func received(call: String) throws {
    for size in Self.sizes(call) {
      for (bug, kind) in Self.classes {
        let side = bug == "under" ? "left" : "right"
        let outcome = try transfer(call, bug, size, conf: "guard:\(side)")
        expect(outcome, kind, "write", "\(call) \(bug) \(size)", freed: bug == "freed")
      }
    }
  }

  @Test("what fits comes and goes without a word, errno and all", arguments: sending + receiving + paths)
  func fits(call: String) throws {
    for conf in ["", "guard:right", "guard:left", "sample:2"] {
      for size in Self.sizes(call) {
        let outcome = try transfer(call, "fits", size, conf: conf)
        outcome.expect(
          outcome.succeeded && outcome.stdout == "ok\n" && outcome.stderr == "", "\(call) \(conf) \(size)")
      }
    }
  }
}
