import Base
import Keg
import Pages
import Testing
import TestSupport
import Vmem

/// What an owner entry says, comparable.
enum OwnerKind: Equatable {
  case nobody
  case slab(UInt)
  case span(UInt)
  case freed
  case emergency

  init(_ owner: Owner) {
    switch owner {
    case .nobody: self = .nobody
    case .slab(let slab): self = .slab(slab.address)
    case .span(let span): self = .span(span.address)
    case .freed: self = .freed
    case .emergency: self = .emergency
    }
  }
}

extension UnsafeMutablePointer where Pointee == Heap {
  func owner(of address: UInt) -> OwnerKind? {
    guard let map = pageMap(for: address) else { return nil }
    return OwnerKind(map.owner(at: map.index(of: address)))
  }
  func bin(of address: UInt) -> UInt16? {
    guard let map = pageMap(for: address) else { return nil }
    return map.bin(at: map.index(of: address))
  }
}

@Suite struct PageMapTests {
  @Test("every address of a slab's chunks knows slab and bin; nothing does once it is gone")
  func slabs() {
    Rig.use { rig in
      // Several chunks a slab.
      let keg = rig.keg(size: 40_000, bin: 64)
      let layout = keg.layout
      #expect(layout.chunkCount > 1)
      let item = keg.takeAll(1)[0]
      guard case .slab(let slab)? = rig.heap.owner(of: item) else {
        Issue.record("no slab at \(item)")
        return
      }
      for chunk in 0..<layout.chunkCount {
        for offset in [0, 8, Chunk.size - 1] {
          let address = item + chunk * Chunk.size + offset
          #expect(rig.heap.owner(of: address) == .slab(slab))
          #expect(rig.heap.bin(of: address) == 64)
        }
      }
      keg.give(item)
      keg.drain()
      for chunk in 0..<layout.chunkCount {
        #expect(rig.heap.owner(of: item + chunk * Chunk.size) == .nobody)
        #expect(rig.heap.bin(of: item + chunk * Chunk.size) == 0)
      }
    }
  }

  @Test("a large block is known by its first chunk, then as freed until the chunk is used again")
  func spans() {
    Rig.use { rig in
      let span = rig.heap.allocateSpan(5 * Chunk.size)!
      let start = span.pointee.start
      let map = rig.heap.pageMap(ofOwn: start)
      map.enter(span, at: start)
      #expect(rig.heap.owner(of: start) == .span(span.address))
      #expect(rig.heap.owner(of: start + 100) == .span(span.address))
      #expect(rig.heap.bin(of: start) == 0)
      #expect(map.markFreed(span, at: start))
      #expect(rig.heap.owner(of: start) == .freed)
      rig.heap.freeSpan(span)
      let keg = rig.keg(size: 64)
      let item = keg.takeAll(1)[0]
      #expect(item == start)
      guard case .slab? = rig.heap.owner(of: start) else {
        Issue.record("the freed mark outlived its block")
        return
      }
    }
  }

  @Test("the emergency pool's chunks are marked and cleared as told")
  func emergency() {
    Rig.use { rig in
      let span = rig.heap.allocateSpan(3 * Chunk.size)!
      let start = span.pointee.start
      let map = rig.heap.pageMap(ofOwn: start)
      map.enterEmergencyPool(at: start, chunkCount: 2)
      #expect(
        (0..<3).map { rig.heap.owner(of: start + $0 * Chunk.size) }
          == [.emergency, .emergency, .nobody])
      map.clear(at: start, chunkCount: 2)
      #expect(rig.heap.owner(of: start) == .nobody)
    }
  }

  @Test("U18: addresses that are not ours are known not to be, without being read")
  func foreign() {
    Rig.use { rig in
      _ = rig.keg(size: 64).takeAll(1)
      var local: UInt = 0
      let stack = withUnsafeMutablePointer(to: &local) { $0.address }
      let (start, top) = (rig.heap.pointee.reservation.heapStart, rig.heap.pointee.reservation.heapTop)
      for address in [0, 1, stack, start - 1, top, .max, UInt(bitPattern: staticAddress)] {
        #expect(rig.heap.owner(of: address) == nil)
      }
      #expect(rig.heap.owner(of: start) != nil)
      #expect(rig.heap.owner(of: top - 1) != nil)
    }
  }
}

/// Something in .data of this program.
nonisolated(unsafe) private var word: UInt = 1
private var staticAddress: UnsafeMutablePointer<UInt> { withUnsafeMutablePointer(to: &word) { $0 } }
