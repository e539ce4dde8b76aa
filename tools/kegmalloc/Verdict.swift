// Verdict.swift: can LD_PRELOAD reach this program at all?
//
// The dynamic loader is what preloads. A program without it (static), with
// another one (musl), of another architecture, or started with elevated rights
// (the loader then ignores LD_PRELOAD) would silently run without us, and a
// sanitizer brings its own malloc. Each of these is refused with its reason.

import Foundation

enum Verdict {
  /// The machine this command was built for.
  #if arch(arm64)
    static let machine = ELFFile.aarch64
  #else
    static let machine = ELFFile.x86_64
  #endif

  /// The kernel follows at most this many `#!` lines.
  static let maximumScriptDepth = 5

  /// Throws the reason why `path` cannot run under a preloaded allocator.
  /// A script is judged by its interpreter.
  static func check(_ path: String) throws(Refusal) {
    var file = path
    for _ in 0..<maximumScriptDepth {
      let contents = try read(file)
      guard let interpreter = scriptInterpreter(contents.prefix(256)) else {
        if let why = reason(against: contents, rights: rights(of: file)) {
          throw Refusal(line: "\(file) \(why)")
        }
        return
      }
      guard access(interpreter, F_OK) == 0 else {
        throw Refusal(
          line: "\(file): interpreter \(interpreter) not found", exitCode: Refusal.notFound)
      }
      guard access(interpreter, X_OK) == 0 else {
        throw Refusal(
          line: "\(file): interpreter \(interpreter) is not executable",
          exitCode: Refusal.notExecutable)
      }
      file = interpreter
    }
    throw Refusal(line: "\(path): too many levels of script interpreters")
  }

  /// What of a file's rights makes the loader ignore LD_PRELOAD.
  struct Rights: Equatable {
    var setsUser = false
    var setsGroup = false
    var hasCapabilities = false
  }

  /// Why this program cannot be served, as the end of a sentence; nil if it can.
  static func reason(against contents: Data, rights: Rights) -> String? {
    if rights.setsUser { return "is set-user-ID: the loader ignores LD_PRELOAD for it" }
    if rights.setsGroup { return "is set-group-ID: the loader ignores LD_PRELOAD for it" }
    if rights.hasCapabilities { return "has file capabilities: the loader ignores LD_PRELOAD for it" }
    do {
      return reason(against: try ELFFile(contents))
    } catch .notELF {
      return "is neither an ELF program nor a script"
    } catch {
      return "is a damaged ELF file"
    }
  }

  static func reason(against file: ELFFile) -> String? {
    guard file.is64Bit else { return "is a 32-bit program; the library is 64-bit" }
    guard file.isLittleEndian, file.machine == machine else {
      return "is built for another architecture"
    }
    guard file.type == 2 || file.type == 3 else { return "is not an executable ELF file" }
    guard let interpreter = file.interpreter else {
      return file.isDynamic
        ? "is statically linked (static-pie): nothing can be preloaded into it"
        : "is statically linked: nothing can be preloaded into it"
    }
    if (interpreter as NSString).lastPathComponent.hasPrefix("ld-musl") {
      return "is linked against musl; the library needs glibc"
    }
    if let runtime = sanitizer(in: file) {
      return "is built with a sanitizer (\(runtime)), which brings its own malloc"
    }
    return nil
  }

  private static let sanitizerLibraries = [
    "libasan.", "libtsan.", "liblsan.", "libmsan.", "libhwasan.",
    "libclang_rt.asan", "libclang_rt.tsan", "libclang_rt.msan", "libclang_rt.hwasan",
  ]
  private static let sanitizerSymbols = [
    "__asan_init", "__tsan_init", "__msan_init", "__lsan_init", "__hwasan_init",
    "__sanitizer_malloc_hook",  // all that -static-libasan leaves visible
  ]

  private static func sanitizer(in file: ELFFile) -> String? {
    file.needed.first { name in sanitizerLibraries.contains { name.hasPrefix($0) } }
      ?? sanitizerSymbols.first { file.mentionsSymbol($0) }
  }

  /// The interpreter named by a `#!` line; nil if this is no script.
  static func scriptInterpreter(_ start: Data) -> String? {
    guard start.starts(with: Array("#!".utf8)) else { return nil }
    let line = start.dropFirst(2).prefix { $0 != UInt8(ascii: "\n") && $0 != 0 }
    let blank = [UInt8(ascii: " "), UInt8(ascii: "\t")]
    let path = line.drop { blank.contains($0) }.prefix { !blank.contains($0) }
    return path.isEmpty ? nil : String(decoding: path, as: UTF8.self)
  }

  private static func read(_ path: String) throws(Refusal) -> Data {
    do {
      return try Data(contentsOf: URL(fileURLWithPath: path), options: .mappedIfSafe)
    } catch {
      // A program may be executable but not readable; the kernel would run it.
      throw Refusal(line: "\(path) cannot be read, so it cannot be judged")
    }
  }

  static func rights(of path: String) -> Rights {
    var status = stat()
    guard stat(path, &status) == 0 else { return Rights() }
    let groupBits = S_ISGID | S_IXGRP  // without S_IXGRP the bit means record locking
    return Rights(
      setsUser: status.st_mode & S_ISUID != 0,
      setsGroup: status.st_mode & groupBits == groupBits,
      hasCapabilities: attributeByteCount(path, "security.capability", nil, 0) > 0)
  }

  private typealias GetAttribute = @convention(c) (
    UnsafePointer<CChar>, UnsafePointer<CChar>, UnsafeMutableRawPointer?, Int
  ) -> Int

  /// getxattr(2), which Foundation does not pass on.
  private static let attributeByteCount: GetAttribute = {
    guard let symbol = dlsym(nil, "getxattr") else { return { _, _, _, _ in -1 } }
    return unsafeBitCast(symbol, to: GetAttribute.self)
  }()
}
