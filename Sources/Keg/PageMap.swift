// PageMap.swift: from any address to what lies there (U18).
//
// Two tables over the chunks of the heap, meeting at P (Pages/Reservation.swift):
//
//   P - 8(i+1): owner of chunk i        P + 2i: bin of chunk i
//
// The bin is the byte offset of the size class's bin in a thread's array, 0 when
// the chunk holds no items: free(3) reads nothing else. The owner is 0, or a
// pointer with its kind in the low bits. The tables are authoritative: nothing is
// ever read from the memory that an address points at.
//
// Entries of a chunk are written before its first item is handed out and cleared
// after its last one has come back; who frees an item that is live therefore sees
// the right entry without a lock.

import Base
import Pages
import Synchronization
import Vmem

package enum Owner {
  case nobody
  case slab(UnsafeMutablePointer<Slab>)
  /// A large block: the boundary tag of its span.
  case span(TagPointer)
  /// A large block started here and was freed.
  case freed
  /// Part of the emergency pool.
  case emergency
}

package struct PageMap {
  /// P of the picture; 0: no map yet.
  package let tables: UInt

  package init(tables: UInt) {
    self.tables = tables
  }

  /// - Precondition: `address` lies in the committed heap.
  @inline(__always)
  package func index(of address: UInt) -> UInt { (address &- tables) &>> Chunk.shift }

  @inline(__always)
  package func bin(at index: UInt) -> UInt16 {
    (tables &+ index &* 2).pointer(to: UInt16.self).pointee
  }

  @inline(__always)
  package func owner(at index: UInt) -> Owner {
    let word = (tables &- (index &+ 1) &* 8).word
    if word == 0 { return .nobody }
    switch word & 3 {
    case 0: return .slab(word.pointer(to: Slab.self))
    case 1: return .span((word & ~3).pointer(to: BoundaryTag.self))
    case 2: return .freed
    default: return .emergency
    }
  }

  /// Enters a slab of `chunkCount` chunks from `address` on.
  package func enter(_ slab: UnsafeMutablePointer<Slab>, bin: UInt16, at address: UInt, chunkCount: UInt) {
    fill(index(of: address), chunkCount, owner: slab.address, bin: bin)
  }

  /// Enters a large block; only its first chunk needs an entry.
  @inline(__always)
  package func enter(_ span: TagPointer, at address: UInt) {
    let index = index(of: address)
    (tables &- (index &+ 1) &* 8).word = span.address | 1
    (tables &+ index &* 2).pointer(to: UInt16.self).pointee = 0
  }

  /// Enters a large block by `chunkCount` chunks: addresses inside it are found too.
  package func enter(_ span: TagPointer, at address: UInt, chunkCount: UInt) {
    fill(index(of: address), chunkCount, owner: span.address | 1, bin: 0)
  }

  /// Notes that the large block at `address` is gone, so that a second free of it
  /// is known for what it is until the chunk is used again.
  /// - Returns: false when somebody else has freed it just now.
  @inline(__always)
  package func markFreed(_ span: TagPointer, at address: UInt) -> Bool {
    let entry = (tables &- (index(of: address) &+ 1) &* 8).pointer(to: Atomic<UInt>.self)
    return entry.pointee.exchange(2, ordering: .relaxed) == span.address | 1
  }

  package func enterEmergencyPool(at address: UInt, chunkCount: UInt) {
    fill(index(of: address), chunkCount, owner: 3, bin: 0)
  }

  package func clear(at address: UInt, chunkCount: UInt) {
    fill(index(of: address), chunkCount, owner: 0, bin: 0)
  }

  @inline(never)
  private func fill(_ first: UInt, _ count: UInt, owner: UInt, bin: UInt16) {
    var index = first
    while index < first &+ count {
      (tables &- (index &+ 1) &* 8).word = owner
      (tables &+ index &* 2).pointer(to: UInt16.self).pointee = bin
      index &+= 1
    }
  }
}
