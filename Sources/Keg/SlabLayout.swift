// SlabLayout.swift: how many chunks and items a slab has; a pure function (U16).
//
// A slab is 1 … 64 chunks that hold nothing but items; its header and bitmap lie in
// metadata. The layout takes the fewest chunks of which the items fill at least 90 %, or
// the best found. The rest at a slab's end is never touched, so it costs address space
// and no memory.
//
// The debug library has a margin before the first item: as much as keeps its alignment.
// Who wants more than one large item in a slab says so: making and giving back a slab
// costs as much as ten items do.

import Base
import Pages

package struct SlabLayout: Equatable {
  /// Distance from item to item in bytes: the size rounded up to the alignment.
  package let stride: UInt
  package let chunkCount: UInt
  package let itemCount: UInt
  /// Bytes before the first item.
  package let margin: UInt
  /// Share of the slab that items fill, in per cent, rounded down.
  package let efficiency: UInt

  package static var mostChunks: UInt { 64 }
  package static var mostAlignment: UInt { 65536 }

  /// - Parameters:
  ///   - size: of an item in bytes, at least 1, at most 64 chunks.
  ///   - alignment: a power of two, at most `mostAlignment`.
  ///   - hasMargin: whether the first item has at least 16 bytes before it.
  ///   - leastItems: what a slab shall hold, as far as that is 64 chunks.
  package init(size: UInt, alignment: UInt, hasMargin: Bool = false, leastItems: UInt = 1) {
    let stride = max(size, 8).roundedUp(to: max(alignment, 8))
    let margin = hasMargin ? max(16, stride & (0 &- stride)) : 0
    let least = (margin &+ max(leastItems, 1) &* stride &+ Chunk.size &- 1) &>> Chunk.shift
    var best = SlabLayout(stride: stride, chunkCount: least, margin: margin)
    var chunkCount = best.chunkCount
    while best.efficiency < 90, chunkCount < Self.mostChunks {
      chunkCount &+= 1
      let candidate = SlabLayout(stride: stride, chunkCount: chunkCount, margin: margin)
      if candidate.efficiency > best.efficiency { best = candidate }
    }
    self = best
  }

  private init(stride: UInt, chunkCount: UInt, margin: UInt) {
    self.stride = stride
    self.chunkCount = chunkCount
    self.margin = margin
    let bytes = chunkCount &* Chunk.size
    itemCount = (bytes &- margin) / stride
    efficiency = itemCount &* stride &* 100 / bytes
  }

  /// Of the first chunk: items whose size is a multiple of a power of two, up to
  /// `mostAlignment`, are aligned to it.
  package var alignment: UInt { max(Chunk.size, min(stride & (0 &- stride), Self.mostAlignment)) }
  package var byteCount: UInt { chunkCount &* Chunk.size }
  package var bitmapWords: UInt { (itemCount &+ 63) / 64 }
}
