import Foundation
import Testing

@testable import kegmalloc

/// `kegmalloc leaks` against a library that answers as the debug library does, with one
/// made-up leak: the call into the process, and what the process notices of it.
@Suite("kegmalloc leaks", .serialized)
struct LeaksCommandTests {
  static let library = """
    #include <fcntl.h>
    #include <string.h>
    #include <unistd.h>
    int calls;
    int keg_leak_request(const char *file) {
      const char *leak = RECORDS;
      int descriptor = open(file, O_WRONLY | O_APPEND);
      if (descriptor < 0 || write(descriptor, leak, strlen(leak)) < 0) return -1;
      calls++;
      return close(descriptor);
    }
    """
  /// Waits in a system call; says what it returned, what it has computed and whether
  /// a signal came.
  static let program = """
    #include <errno.h>
    #include <poll.h>
    #include <signal.h>
    #include <stdio.h>
    #include <string.h>
    #include <unistd.h>
    extern int calls;
    static int signals;
    static void count(int number) { signals++; }
    int main(int argc, char **argv) {
      for (int number = 1; number < 32; number++) if (number != SIGTERM) signal(number, count);
      puts("up");
      fflush(stdout);
      int result = -1;
      volatile double sum = 0.5;
      if (!strcmp(argv[1], "poll")) result = poll(0, 0, 5000);
      else if (!strcmp(argv[1], "sleep")) result = usleep(5000000);
      else if (!strcmp(argv[1], "read")) { char byte; result = (int)read(0, &byte, 1) - 1; }
      else for (result = 0; !__atomic_load_n(&calls, __ATOMIC_RELAXED);) sum *= 1;
      printf("%d %d %d %d %.1f\\n", result, result < 0 ? errno : 0, calls, signals, sum);
    }
    """

  let scratch: Scratch

  init() throws {
    scratch = try Scratch()
  }

  /// A program under a library of that name.
  private func build(_ name: String) throws {
    let stack = Canned.stack([Canned.frame("/none", 0x10, "_Z4makev")])
    let records = (Canned.leak(stack: stack) + "\n" + Canned.summary() + "\n")
      .replacingOccurrences(of: "\"", with: "\\\"").replacingOccurrences(of: "\n", with: "\\n")
    let source = Self.library.replacingOccurrences(of: "RECORDS", with: "\"\(records)\"")
    let library = try scratch.file("library.c", source, mode: 0o644)
    let program = try scratch.file("program.c", Self.program, mode: 0o644)
    let made = try capture(
      "/bin/sh",
      ["-c", "cd \(scratch.path) && cc -shared -fPIC \(library) -o \(name) && cc -O1 \(program) ./\(name) -o program"])
    try #require(made.status == 0, "\(made.errors)")
  }

  private func start(_ mode: String) throws -> (Process, input: Pipe, output: FileHandle) {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: scratch.path + "/program")
    process.currentDirectoryURL = URL(fileURLWithPath: scratch.path)
    process.arguments = [mode]
    let (input, output) = (Pipe(), Pipe())
    process.standardInput = input
    process.standardOutput = output
    try process.run()
    #expect(output.fileHandleForReading.availableData == Data("up\n".utf8))
    // Into the system call.
    usleep(50_000)
    return (process, input, output.fileHandleForReading)
  }

  @Test(
    "a process is asked wherever it is, and goes on as if nothing had been",
    arguments: ["poll", "sleep", "read", "compute"])
  func asked(mode: String) throws {
    try build("libkegmalloc-debug.so")
    let (process, input, output) = try start(mode)
    defer { process.terminate() }
    let result = try capture(commandPath, ["leaks", String(process.processIdentifier)])
    try #require(result.status == 99, "\(result.errors)")
    #expect(result.errors.hasPrefix("kegmalloc: ERROR: leak: definite: 100 bytes in 2 blocks, oldest at"))
    #expect(result.errors.contains("#0 0x550000000010 make() (/none+0x10)"))
    if mode == "read" { input.fileHandleForWriting.write(Data("x".utf8)) }
    process.waitUntilExit()
    #expect(String(decoding: output.readDataToEndOfFile(), as: UTF8.self) == "0 0 1 0 0.5\n")
    #expect(process.terminationStatus == 0)
  }

  @Test("suppressed leaks make no exit code, and JSON is written")
  func suppressed() throws {
    try build("libkegmalloc-debug.so")
    let (process, _, _) = try start("sleep")
    defer { process.terminate() }
    let rules = try scratch.file("rules", "leak:^make()$\n", mode: 0o644)
    let json = scratch.path + "/json"
    let result = try capture(
      commandPath,
      ["leaks", "--suppressions", rules, "--json", json, String(process.processIdentifier)])
    #expect(result.status == 0 && result.errors.contains("1 suppressed"))
    #expect(try String(contentsOfFile: json, encoding: .utf8).split(separator: "\n").count == 2)
  }

  @Test("who cannot be asked is named with the reason")
  func refusals() throws {
    try build("libkegmalloc.so")
    let (fast, _, _) = try start("sleep")
    defer { fast.terminate() }
    for (pid, reason) in [
      (String(fast.processIdentifier), "runs under \(scratch.path)/libkegmalloc.so, which knows no leaks"),
      (String(getpid()), "does not run under the debug library"), ("4194305", "no process 4194305"),
    ] {
      let result = try capture(commandPath, ["leaks", pid])
      #expect(result.status == 2 && result.errors.contains(reason), "\(result.errors)")
      #expect(result.errors.split(separator: "\n").count == 1)
    }
    for bad in ["0", "x", ""] {
      #expect(try capture(commandPath, ["leaks", bad]).status == 2)
    }
  }

  @Test("a process that another one traces cannot be asked")
  func traced() throws {
    try build("libkegmalloc-debug.so")
    let (process, _, _) = try start("sleep")
    defer { process.terminate() }
    let pid = process.processIdentifier
    // PTRACE_SEIZE by this process; it ends with the test.
    typealias Seize = @convention(c) (Int, pid_t, UInt, UInt) -> Int
    let ptrace = unsafeBitCast(try #require(dlsym(nil, "ptrace")), to: Seize.self)
    try #require(ptrace(0x4206, pid, 0, 0) == 0)
    let result = try capture(commandPath, ["leaks", String(pid)])
    #expect(result.status == 2 && result.errors.contains("may not be traced"), "\(result.errors)")
  }

  @Test("the library is found among the mappings, the debug library first")
  func maps() {
    let maps = """
      55d000000000-55d000001000 r--p 00000000 08:01 11  /bin/prog
      7f0000000000-7f0000001000 r--p 00000000 08:01 12  /opt/a b/libkegmalloc.so
      7f0000001000-7f0000002000 r-xp 00001000 08:01 12  /opt/a b/libkegmalloc.so
      7f0000010000-7f0000011000 r-xp 00004000 08:01 13  /opt/libkegmalloc-debug.so
      7f000000c000-7f0000010000 r--p 00000000 08:01 13  /opt/libkegmalloc-debug.so
      7f0000020000-7f0000021000 rw-p 00000000 00:00 0
      """
    let found = LoadedLibrary.find(inMaps: maps)
    #expect(found == LoadedLibrary(path: "/opt/libkegmalloc-debug.so", base: 0x7f00_0000_c000))
    let fast = maps.replacingOccurrences(of: "-debug", with: "-other")
    #expect(LoadedLibrary.find(inMaps: fast)?.path == "/opt/a b/libkegmalloc.so")
    #expect(LoadedLibrary.find(inMaps: "") == nil)
  }

  @Test("the value of an exported symbol is that of nm; damage is no answer")
  func symbols() throws {
    try build("libkegmalloc-debug.so")
    let file = scratch.path + "/libkegmalloc-debug.so"
    let contents = try Data(contentsOf: URL(fileURLWithPath: file))
    let listing = try capture("/usr/bin/nm", ["-D", "--defined-only", file]).output
    let line = try #require(listing.split(separator: "\n").first { $0.hasSuffix(" keg_leak_request") })
    #expect(ELFFile.value(of: "keg_leak_request", in: contents) == UInt64(line.prefix { $0 != " " }, radix: 16))
    #expect(ELFFile.value(of: "keg_leak", in: contents) == nil)
    #expect(ELFFile.value(of: "write", in: contents) == nil, "imported only")
    for length in stride(from: 0, to: contents.count, by: 997) {
      _ = ELFFile.value(of: "keg_leak_request", in: contents.prefix(length))
    }
  }
}
