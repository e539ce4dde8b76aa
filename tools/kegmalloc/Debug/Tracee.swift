// Tracee.swift: one call of a function inside another process, by ptrace(2).
//
//   seize a thread, stop it ─▶ save registers, signal mask ─▶ let it call ─▶ restore, go on
//
// Stopped by PTRACE_INTERRUPT a thread gets no signal, and a system call that it
// waits in is restarted afterwards as if nothing had been. The call returns to
// address 0; the fault is reported to us alone. All other signals are blocked while it
// lasts. x86-64 only, as the library.

import Foundation

struct Tracee {
  enum Failure: Error, Equatable {
    case noSuchProcess
    case noPermission
    /// No thread could be stopped in time.
    case doesNotStop
    case failed(String)
  }

  private let thread: pid_t
  private let memory: Int32

  /// Calls `function(text)` in a thread of the process, with a C string.
  /// - Returns: what it returned, all 64 bits.
  static func call(
    _ function: UInt64, text: String, process: pid_t
  ) throws(Failure) -> UInt64 {
    let tracee = try Tracee(process: process)
    defer { tracee.leave() }
    return try tracee.call(function, text: text)
  }

  /// Seizes and stops the first thread that lets itself be stopped.
  private init(process: pid_t) throws(Failure) {
    let names = try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(process)/task")
    let threads = (names ?? []).compactMap { pid_t($0) }.sorted { ($0 == process ? 0 : $0) < $1 }
    guard !threads.isEmpty else { throw .noSuchProcess }
    let memory = open("/proc/\(process)/mem", O_RDWR | O_CLOEXEC)
    guard memory >= 0 else { throw errno == ENOENT ? .noSuchProcess : .noPermission }
    for thread in threads {
      guard Self.ptrace(Request.seize, thread) == 0 else {
        if errno == EPERM || errno == EACCES {
          close(memory)
          throw .noPermission
        }
        continue
      }
      if Self.ptrace(Request.interrupt, thread) == 0, Self.waitForStop(thread) != nil {
        self.thread = thread
        self.memory = memory
        return
      }
    }
    close(memory)
    throw .doesNotStop
  }

  private func leave() {
    Self.ptrace(Request.detach, thread)
    close(memory)
  }

  private func call(_ function: UInt64, text: String) throws(Failure) -> UInt64 {
    let before = try registers()
    let vectors = try vectorRegisters()
    let mask = try signalMask()
    // Below the red zone: the text, then the return address.
    let bytes = Array(text.utf8) + [0]
    let textAddress = (before[Register.rsp] - 128 - UInt64(bytes.count)) & ~15
    let stack = textAddress - 16 - 8
    var saved = [UInt8](repeating: 0, count: Int(textAddress - stack) + bytes.count)
    guard pread(memory, &saved, saved.count, off_t(stack)) == saved.count else {
      throw .failed("its stack cannot be read")
    }
    defer { pwrite(memory, saved, saved.count, off_t(stack)) }
    let zeros = [UInt8](repeating: 0, count: Int(textAddress - stack))
    guard pwrite(memory, zeros + bytes, saved.count, off_t(stack)) == saved.count else {
      throw .failed("its stack cannot be written")
    }
    var during = before
    during[Register.rip] = function
    during[Register.rdi] = textAddress
    during[Register.rsp] = stack
    during[Register.rax] = 0
    // The system call that was interrupted must not be restarted inside the call.
    during[Register.callNumber] = .max
    try set(registers: during)
    try set(signalMask: ~(1 << UInt64(SIGSEGV - 1)))
    defer {
      try? set(signalMask: mask)
      try? set(vectorRegisters: vectors)
      try? set(registers: before)
    }
    return try result()
  }

  /// Lets the thread run until it returns to address 0.
  private func result() throws(Failure) -> UInt64 {
    while true {
      Self.ptrace(Request.go, thread)
      guard let signal = Self.waitForStop(thread) else { throw .doesNotStop }
      guard signal == SIGSEGV else { continue }
      let registers = try registers()
      guard registers[Register.rip] == 0 else { throw .failed("the call faulted") }
      return registers[Register.rax]
    }
  }
}

// MARK: - The calls

extension Tracee {
  private enum Request {
    static let go = 7
    static let getRegisters = 12
    static let setRegisters = 13
    static let detach = 17
    static let getRegisterSet = 0x4204
    static let setRegisterSet = 0x4205
    static let seize = 0x4206
    static let interrupt = 0x4207
    static let getSignalMask = 0x420a
    static let setSignalMask = 0x420b
  }

  /// Places in `struct user_regs_struct` of <sys/user.h>.
  private enum Register {
    static let rax = 10
    static let rdi = 14
    static let callNumber = 15
    static let rip = 16
    static let rsp = 19
    static let count = 27
  }

  /// The x87, SSE, AVX and later registers, as XSAVE writes them (NT_X86_XSTATE of
  /// <elf.h>): a thread that computes has values in them that a call may overwrite.
  private static let vectorRegisterSet: UInt = 0x202

  private typealias Ptrace = @convention(c) (Int, pid_t, UInt, UnsafeMutableRawPointer?) -> Int

  /// ptrace(2), whose C declaration takes any arguments and so is none for Swift.
  private static let function: Ptrace? = dlsym(nil, "ptrace").map {
    unsafeBitCast($0, to: Ptrace.self)
  }

  @discardableResult
  private static func ptrace(
    _ request: Int, _ thread: pid_t, _ address: UInt = 0, _ data: UnsafeMutableRawPointer? = nil
  ) -> Int {
    function?(request, thread, address, data) ?? -1
  }

  /// The signal with which the thread stopped; nil if it ended or does not stop
  /// within ten seconds.
  private static func waitForStop(_ thread: pid_t) -> Int32? {
    for _ in 0..<10_000 {
      var status: Int32 = 0
      let found = waitpid(thread, &status, WNOHANG | Int32(bitPattern: 0x4000_0000 /* __WALL */))
      if found == thread { return status & 0xff == 0x7f ? status >> 8 & 0xff : nil }
      if found < 0 && errno != EINTR { return nil }
      usleep(1000)
    }
    return nil
  }

  private func registers() throws(Failure) -> [UInt64] {
    var registers = [UInt64](repeating: 0, count: Register.count)
    guard Self.ptrace(Request.getRegisters, thread, 0, &registers) == 0 else {
      throw .failed("its registers cannot be read")
    }
    return registers
  }

  private func set(registers: [UInt64]) throws(Failure) {
    var registers = registers
    guard Self.ptrace(Request.setRegisters, thread, 0, &registers) == 0 else {
      throw .failed("its registers cannot be set")
    }
  }

  /// As many bytes as the processor has state, which is 11 KiB with AMX.
  private func vectorRegisters() throws(Failure) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 64 << 10)
    let length = bytes.withUnsafeMutableBytes { transfer($0, by: Request.getRegisterSet) }
    guard let length else { throw .failed("its vector registers cannot be read") }
    return Array(bytes.prefix(length))
  }

  private func set(vectorRegisters: [UInt8]) throws(Failure) {
    var bytes = vectorRegisters
    guard bytes.withUnsafeMutableBytes({ transfer($0, by: Request.setRegisterSet) }) != nil else {
      throw .failed("its vector registers cannot be set")
    }
  }

  /// - Returns: how many bytes there were; nil if the kernel refused.
  private func transfer(_ bytes: UnsafeMutableRawBufferPointer, by request: Int) -> Int? {
    var piece = iovec(iov_base: bytes.baseAddress, iov_len: bytes.count)
    return Self.ptrace(request, thread, Self.vectorRegisterSet, &piece) == 0 ? piece.iov_len : nil
  }

  private func signalMask() throws(Failure) -> UInt64 {
    var mask: UInt64 = 0
    guard Self.ptrace(Request.getSignalMask, thread, 8, &mask) == 0 else {
      throw .failed("its signal mask cannot be read")
    }
    return mask
  }

  private func set(signalMask: UInt64) throws(Failure) {
    var mask = signalMask
    guard Self.ptrace(Request.setSignalMask, thread, 8, &mask) == 0 else {
      throw .failed("its signal mask cannot be set")
    }
  }
}
