// Support.swift: scratch directories, small ELF files made by the C compiler,
// and the command as a subprocess.

import Foundation
import Testing

/// A directory that lasts as long as this object.
final class Scratch {
  let path: String

  init() throws {
    path = "/tmp/kegmalloc-test-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  /// Writes a file with these permissions and returns its path. What can be executed is
  /// written by another process: a descriptor of ours that is open for writing would be in
  /// the children that tests beside this one start, and until those are past their execve
  /// the kernel refuses to execute the file (ETXTBSY).
  func file(_ name: String, _ contents: Data, mode: Int = 0o755) throws -> String {
    let file = path + "/" + name
    guard mode & 0o111 != 0 else {
      try contents.write(to: URL(fileURLWithPath: file))
      try setMode(mode, of: file)
      return file
    }
    let text = try self.file(name + ".text", contents, mode: 0o644)
    let copied = try capture("/usr/bin/install", ["-m", String(mode, radix: 8), text, file])
    try #require(copied.status == 0, "\(copied.errors)")
    return file
  }

  func file(_ name: String, _ contents: String, mode: Int = 0o755) throws -> String {
    try file(name, Data(contents.utf8), mode: mode)
  }

  func setMode(_ mode: Int, of file: String) throws {
    try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: file)
  }

  /// Compiles a program that does nothing; nil if the compiler rejects the flags.
  func program(_ name: String, flags: [String]) throws -> String? {
    let source = try file(name + ".c", "int main(void) { return 0; }\n", mode: 0o644)
    let output = path + "/" + name
    let result = try capture("/usr/bin/cc", flags + [source, "-o", output])
    return result.status == 0 ? output : nil
  }
}

struct Captured {
  var status: Int32
  var output: String
  var errors: String
}

/// Runs a program to its end.
func capture(
  _ program: String, _ arguments: [String], environment: [String: String]? = nil
) throws -> Captured {
  let process = Process()
  process.executableURL = URL(fileURLWithPath: program)
  process.arguments = arguments
  if let environment { process.environment = environment }
  let output = Pipe()
  let errors = Pipe()
  process.standardOutput = output
  process.standardError = errors
  process.standardInput = FileHandle.nullDevice
  try process.run()
  // The outputs of these tests are far below the capacity of a pipe.
  process.waitUntilExit()
  func text(_ pipe: Pipe) -> String {
    String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
  }
  return Captured(status: process.terminationStatus, output: text(output), errors: text(errors))
}

/// The command as built beside the test bundle.
let commandPath: String = {
  let bundle = URL(fileURLWithPath: CommandLine.arguments[0])
  return bundle.deletingLastPathComponent().appendingPathComponent("kegmalloc").path
}()

/// A library that is safe to preload anywhere; what it does is not tested here.
let harmlessLibrary: String? = [
  "/lib/x86_64-linux-gnu/libm.so.6", "/lib/aarch64-linux-gnu/libm.so.6", "/lib64/libm.so.6",
].first { FileManager.default.fileExists(atPath: $0) }

/// The first 64 bytes of an ELF file, as the kernel would see them.
func elfHeader(bits: Int = 64, littleEndian: Bool = true, type: UInt16 = 3, machine: UInt16) -> Data
{
  var header = Data(count: 64)
  header.replaceSubrange(0..<4, with: [0x7f, 0x45, 0x4c, 0x46])
  header[4] = bits == 64 ? 2 : 1
  header[5] = littleEndian ? 1 : 2
  header[6] = 1
  for (offset, value) in [(16, type), (18, machine)] {
    header[offset] = UInt8(littleEndian ? value & 0xff : value >> 8)
    header[offset + 1] = UInt8(littleEndian ? value >> 8 : value & 0xff)
  }
  return header
}
