// GuardPages.swift: pages that fault, inside a mapping that stays one.
//
// MADV_GUARD_INSTALL (Linux 6.13) marks pages in the page tables: no line of
// /proc/self/maps more, however many there are. Older kernels, and memory that is locked
// (mlockall), get mprotect, which splits mappings: two more for every island.

import Base
import Platform

package enum GuardPages {
  package enum Outcome {
    case installed
    /// By mprotect; the contents are gone, or not.
    case protected(isZero: Bool)
    case refused
  }

  /// Makes whole pages fault.
  package static func install(_ address: UInt, _ size: UInt) -> Outcome {
    if advise(address, size, 102 /* MADV_GUARD_INSTALL */) { return .installed }
    // The second is for locked memory (Linux 5.18).
    let isZero =
      advise(address, size, 4 /* MADV_DONTNEED */)
      || advise(address, size, 24 /* MADV_DONTNEED_LOCKED */)
    return protect(address, size, 0) ? .protected(isZero: isZero) : .refused
  }

  /// Makes such pages usable again; they are zero if `install` said so.
  /// - Parameter isProtected: whether any of them may have got mprotect.
  package static func remove(_ address: UInt, _ size: UInt, isProtected: Bool) -> Bool {
    let isRemoved = advise(address, size, 103 /* MADV_GUARD_REMOVE */)
    return isProtected ? protect(address, size, 3) : isRemoved
  }

  /// Makes pages readable that the program has protected.
  package static func openForReading(_ address: UInt, _ size: UInt) -> Bool { protect(address, size, 1) }

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
