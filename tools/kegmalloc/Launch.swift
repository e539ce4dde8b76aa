// Launch.swift: the pieces of `kegmalloc run` that only compute: where the
// library is, what the child's environment becomes, where the command is.

import Foundation

enum Launch {
  static let libraryName = "libkegmalloc.so"
  static let debugLibraryName = "libkegmalloc-debug.so"

  /// Where an installed library may be, after the place beside the command.
  static var installedDirectories: [String] {
    #if arch(arm64)
      let triplet = "aarch64-linux-gnu"
    #else
      let triplet = "x86_64-linux-gnu"
    #endif
    return [
      "/usr/local/lib", "/usr/local/lib/\(triplet)", "/usr/lib/\(triplet)", "/usr/lib64", "/usr/lib",
    ]
  }

  /// The absolute path of the library to preload.
  /// - Parameters:
  ///   - name: the file name of the library.
  ///   - chosen: the value of `--lib`, if given.
  ///   - command: the absolute path of this command.
  static func library(
    named name: String = libraryName, chosen: String?, command: String,
    installed: [String] = installedDirectories
  ) throws(Refusal) -> String {
    if let chosen {
      guard let path = realpathString(chosen) else {
        throw Refusal(line: "no library at \(chosen)")
      }
      return try preloadable(path)
    }
    let prefix = ((command as NSString).deletingLastPathComponent as NSString)
      .deletingLastPathComponent
    let directories = [prefix + "/lib"] + installed
    for directory in directories {
      let path = directory + "/" + name
      if access(path, R_OK) == 0 { return try preloadable(path) }
    }
    throw Refusal(
      line: "\(name) not found in \(directories.joined(separator: ", ")); name it with --lib")
  }

  /// The path of the running program.
  static var ownPath: String {
    var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
    let length = readlink("/proc/self/exe", &buffer, buffer.count)
    // Without /proc only the installed places remain.
    guard length > 0 else { return "/usr/local/bin/kegmalloc" }
    return String(decoding: buffer.prefix(length).map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// LD_PRELOAD separates its entries by colons and blanks and has no escape.
  private static func preloadable(_ path: String) throws(Refusal) -> String {
    guard !path.contains(where: { $0 == ":" || $0 == " " }) else {
      throw Refusal(line: "\(path) cannot be preloaded: its path has a colon or a blank in it")
    }
    return path
  }

  private static func realpathString(_ path: String) -> String? {
    guard let resolved = realpath(path, nil) else { return nil }
    defer { free(resolved) }
    return String(cString: resolved)
  }

  /// `library` first, then what was there before, without other copies of it.
  static func preload(_ library: String, before existing: String?) -> String {
    let name = (library as NSString).lastPathComponent
    let others = (existing ?? "").split { $0 == ":" || $0 == " " }
      .map(String.init)
      .filter { ($0 as NSString).lastPathComponent != name }
    return ([library] + others).joined(separator: ":")
  }

  /// The options after those already set: of two settings of a key the last counts.
  static func configuration(_ settings: [String], after existing: String?) -> String? {
    let all = [existing ?? ""].filter { !$0.isEmpty } + settings
    return all.isEmpty ? nil : all.joined(separator: ",")
  }

  /// The file execvp would run for `command`.
  static func locate(_ command: String, path: String?) throws(Refusal) -> String {
    if command.isEmpty { throw Refusal(line: "empty command name", exitCode: Refusal.notFound) }
    if command.contains("/") { return try executable(command) }
    var denied: Refusal?
    for directory in (path ?? "/usr/local/bin:/bin:/usr/bin").split(
      separator: ":", omittingEmptySubsequences: false)
    {
      let candidate = (directory.isEmpty ? "." : String(directory)) + "/" + command
      do {
        return try executable(candidate)
      } catch where error.exitCode == Refusal.notExecutable {
        denied = denied ?? error
      } catch {
        continue
      }
    }
    throw denied ?? Refusal(line: "\(command): command not found", exitCode: Refusal.notFound)
  }

  private static func executable(_ path: String) throws(Refusal) -> String {
    var status = stat()
    guard stat(path, &status) == 0 else {
      guard errno == EACCES else {
        throw Refusal(line: "\(path): no such file", exitCode: Refusal.notFound)
      }
      throw Refusal(line: "\(path): permission denied", exitCode: Refusal.notExecutable)
    }
    guard status.st_mode & S_IFMT == S_IFREG, access(path, X_OK) == 0 else {
      throw Refusal(line: "\(path) is not executable", exitCode: Refusal.notExecutable)
    }
    return path
  }
}
