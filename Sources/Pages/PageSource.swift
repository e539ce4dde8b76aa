// PageSource.swift: what the allocator asks of virtual memory.
//
// This module is the only caller of mmap, munmap, mprotect and madvise.
// What it offers upwards is a table of functions, so that unit tests can put
// fake pages in its place: pages that count, that fail on demand, and that have
// any size.
//
//   reserve ──▶ address space nobody else gets, not accessible, in no core file
//   commit  ──▶ accessible, known zero, in core files
//   purge   ──▶ accessible still, contents gone, memory back with the kernel
//   release ──▶ address space back with the kernel
//   isFree  ──▶ whether untouched committed pages cost nothing
//
// Every function takes page-aligned addresses and sizes in bytes above 0.

import Base
import Platform

package struct PageSource {
  /// Address space of `size` bytes near no particular place, or 0.
  package var reserve: @convention(c) (_ size: UInt) -> UInt
  /// Makes reserved space readable and writable. False: no memory (ENOMEM).
  package var commit: @convention(c) (_ address: UInt, _ size: UInt) -> Bool
  /// Gives the contents back. True: the pages are known zero from now on.
  /// False: they are as they were (mlockall, G25).
  package var purge: @convention(c) (_ address: UInt, _ size: UInt) -> Bool
  /// Gives the address space back. False: the kernel would have had to split a
  /// mapping and could not; the space stays ours.
  package var release: @convention(c) (_ address: UInt, _ size: UInt) -> Bool
  /// Whether committed pages that nobody has touched cost nothing. False: they count,
  /// under strict overcommit for the whole machine, under RLIMIT_DATA for the process.
  ///
  /// Asks with reserved pages that nobody uses, and leaves them as they are.
  package var isFree: @convention(c) (_ address: UInt, _ size: UInt) -> Bool

  package init(
    reserve: @escaping @convention(c) (UInt) -> UInt,
    commit: @escaping @convention(c) (UInt, UInt) -> Bool,
    purge: @escaping @convention(c) (UInt, UInt) -> Bool,
    release: @escaping @convention(c) (UInt, UInt) -> Bool,
    isFree: @escaping @convention(c) (UInt, UInt) -> Bool
  ) {
    self.reserve = reserve
    self.commit = commit
    self.purge = purge
    self.release = release
    self.isFree = isFree
  }
}

extension PageSource {
  /// The kernel's pages.
  package static func kernel() -> PageSource {
    PageSource(
      reserve: { size in
        let address = kernelMap(size, protection: 0)
        // gdb's gcore reads what is inaccessible, too, and would be at it for hours.
        if address != 0 { adviseDump(address, size, false) }
        return address
      },
      commit: { address, size in
        let isCommitted = keg_syscall6(
          Int(KEG_SYS_mprotect), Int(bitPattern: address), Int(bitPattern: size), 3, 0, 0, 0) == 0
        if isCommitted { adviseDump(address, size, true) }
        return isCommitted
      },
      purge: { address, size in
        keg_syscall6(
          Int(KEG_SYS_madvise), Int(bitPattern: address), Int(bitPattern: size),
          4 /* MADV_DONTNEED */, 0, 0, 0) == 0
      },
      release: { address, size in
        keg_syscall6(
          Int(KEG_SYS_munmap), Int(bitPattern: address), Int(bitPattern: size), 0, 0, 0, 0) == 0
      },
      isFree: { address, size in
        // Asked so because a file in /proc may be out of reach, and opening it forbidden.
        // Of locked pages (mlockall) each one would be there at once: they tell by this
        // advice, which they do not take.
        let (address, size) = (Int(bitPattern: address), Int(bitPattern: size))
        if keg_syscall6(Int(KEG_SYS_madvise), address, size, 4 /* MADV_DONTNEED */, 0, 0, 0) != 0 {
          return false
        }
        let result = keg_syscall6(Int(KEG_SYS_mprotect), address, size, 3, 0, 0, 0)
        return keg_syscall6(Int(KEG_SYS_mprotect), address, size, 0, 0, 0, 0) == 0 && result == 0
      })
  }
}

/// Maps `size` bytes of private anonymous memory, without swap reservation.
/// - Returns: the address, or 0.
private func kernelMap(_ size: UInt, protection: Int) -> UInt {
  let result = keg_syscall6(
    Int(KEG_SYS_mmap), 0, Int(bitPattern: size), protection,
    0x4022 /* MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE */, -1, 0)
  return result < 0 && result >= -4095 ? 0 : UInt(bitPattern: result)
}

// MARK: - Advice

/// Makes pages resident in advance (MADV_POPULATE_WRITE, Linux 5.14).
/// - Returns: false when the kernel could not; the memory is as before.
package func populatePages(_ address: UInt, _ size: UInt) -> Bool {
  keg_syscall6(
    Int(KEG_SYS_madvise), Int(bitPattern: address), Int(bitPattern: size),
    23 /* MADV_POPULATE_WRITE */, 0, 0, 0) == 0
}

/// Says whether core files shall contain these pages.
package func adviseDump(_ address: UInt, _ size: UInt, _ isDumped: Bool) {
  _ = keg_syscall6(
    Int(KEG_SYS_madvise), Int(bitPattern: address), Int(bitPattern: size),
    isDumped ? 17 /* MADV_DODUMP */ : 16 /* MADV_DONTDUMP */, 0, 0, 0)
}
