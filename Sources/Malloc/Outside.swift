// Outside.swift: pointers that are not into our heap.
//
// Some are legal: blocks of the C library's own malloc, which a plugin loaded with
// RTLD_DEEPBIND calls (G05), go back to it. Everything else is a bug in the program: where
// it has an operator delete of its own, its blocks go there (shim/Exports/program.c).

import Base
import Platform

/// free of an address outside our heap.
@inline(never)
func freeOutside(_ address: UInt) {
  if emergencyUnmap(address) { return }
  if isForeign(address) {
    keg_foreign_free(UnsafeMutableRawPointer(bitPattern: address))
    return
  }
  die("invalid free of", at: address, zone: nil)
}

/// Whether `address` is a block of the C library's malloc.
func isForeign(_ address: UInt) -> Bool {
  keg_is_foreign(UnsafeMutableRawPointer(bitPattern: address)) != 0
}
