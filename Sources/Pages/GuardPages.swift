// GuardPages.swift: pages that fault, inside a mapping that stays one.
//
// MADV_GUARD_INSTALL (Linux 6.13) marks pages in the page tables: no line of
// /proc/self/maps more, however many there are. Older kernels get mprotect, which
// splits mappings.

import Base
import Platform

package enum GuardPages {
  /// Makes whole pages fault; their contents are gone. False: the kernel refused.
  package static func install(_ address: UInt, _ size: UInt) -> Bool {
    if advise(address, size, 102 /* MADV_GUARD_INSTALL */) { return true }
    _ = advise(address, size, 4 /* MADV_DONTNEED */)
    return protect(address, size, 0)
  }

  /// Makes such pages usable again; they are zero.
  package static func remove(_ address: UInt, _ size: UInt) -> Bool {
    // Without guard pages the advice is unknown, and the protection is what counts.
    advise(address, size, 103 /* MADV_GUARD_REMOVE */) || protect(address, size, 3)
  }

  private static func advise(_ address: UInt, _ size: UInt, _ advice: Int) -> Bool {
    keg_syscall6(
      Int(KEG_SYS_madvise), Int(bitPattern: address), Int(bitPattern: size), advice, 0, 0, 0) == 0
  }

  private static func protect(_ address: UInt, _ size: UInt, _ protection: Int) -> Bool {
    keg_syscall6(
      Int(KEG_SYS_mprotect), Int(bitPattern: address), Int(bitPattern: size), protection, 0, 0, 0)
      == 0
  }
}
