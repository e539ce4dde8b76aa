import Base
import Keg
import Pages
import Testing

@Suite struct SlabLayoutTests {
  /// Larger sizes may have no run of 64 chunks that is 90 % items: a slab of 64 chunks is
  /// 1 MiB, and above a third of that little can be done.
  private static let worstSize: UInt = 340_000

  @Test("U16: every size up to 1 MiB has at least one item a slab, and fills it")
  func everySize() {
    var worst: (size: UInt, efficiency: UInt) = (0, 100)
    // All the small ones, then steps that are no multiple of anything.
    let sizes = (UInt(1)...4096).map { $0 } + Array(stride(from: UInt(4097), through: 1 << 20, by: 61))
    for size in sizes {
      let layout = SlabLayout(size: size, alignment: 16)
      let bytes = layout.chunkCount * Chunk.size
      if layout.itemCount < 1 || layout.chunkCount < 1 || layout.chunkCount > 64
        || layout.stride < size || layout.stride % 16 != 0 || layout.stride - size >= 16 + 16
        || layout.itemCount * layout.stride > bytes
        || (layout.itemCount + 1) * layout.stride <= bytes
        || layout.efficiency != layout.itemCount * layout.stride * 100 / bytes
        || layout.byteCount != bytes
      {
        Issue.record("size \(size): \(layout)")
      }
      if layout.efficiency < worst.efficiency { worst = (size, layout.efficiency) }
      if size <= Self.worstSize, layout.efficiency < 90 {
        Issue.record("size \(size) fills only \(layout.efficiency) %")
      }
    }
    // The worst: one byte more than half of 64 chunks.
    #expect(worst.efficiency >= 50)
  }

  @Test("a layout takes the fewest chunks that reach 90 %, or the best there is")
  func fewestChunks() {
    for size in stride(from: UInt(16), through: 1 << 20, by: 4080) {
      let layout = SlabLayout(size: size, alignment: 16)
      var best: UInt = 0
      for chunks in max(1, (layout.stride + Chunk.size - 1) / Chunk.size)...64 {
        let bytes = chunks * Chunk.size
        let efficiency = bytes / layout.stride * layout.stride * 100 / bytes
        if chunks < layout.chunkCount { #expect(efficiency < 90) }
        best = max(best, efficiency)
      }
      if layout.efficiency < 90 { #expect(layout.efficiency == best) }
    }
  }

  @Test(
    "the stride is the size rounded up to the alignment, at least 8",
    arguments: [(1, 8, 8), (8, 8, 8), (9, 8, 16), (1, 16, 16), (100, 64, 128), (64, 64, 64)]
      as [(UInt, UInt, UInt)])
  func strides(size: UInt, alignment: UInt, stride: UInt) {
    #expect(SlabLayout(size: size, alignment: alignment).stride == stride)
  }

  @Test("a margin keeps the items' alignment, and costs no more than one of them")
  func margins() {
    for size in stride(from: UInt(16), through: 4096, by: 16) {
      let plain = SlabLayout(size: size, alignment: 16)
      let layout = SlabLayout(size: size, alignment: 16, hasMargin: true)
      #expect(plain.margin == 0)
      #expect(layout.margin >= 16 && layout.margin <= size)
      #expect(layout.margin % (size & (0 &- size)) == 0)
      #expect(layout.margin + layout.itemCount * layout.stride <= layout.byteCount)
      #expect(layout.margin + (layout.itemCount + 1) * layout.stride > layout.byteCount)
    }
  }

  @Test("who asks for four items gets them, however large, and smaller items are as before")
  func leastItems() {
    for size in [16, 1000, 4096, 4097, 16384, 65536, 100_000, 400_000, 1 << 20] as [UInt] {
      let layout = SlabLayout(size: size, alignment: 16, leastItems: 4)
      #expect(layout.itemCount >= 4 && layout.itemCount * layout.stride <= layout.byteCount)
      if size <= 4096 { #expect(layout == SlabLayout(size: size, alignment: 16)) }
    }
  }

  @Test("small slabs are one chunk, and the bitmap has a bit for every item")
  func bitmaps() {
    for (size, items) in [(8, 2048), (16, 1024), (64, 256), (1024, 16), (16384, 1)] as [(UInt, UInt)] {
      let layout = SlabLayout(size: size, alignment: 8)
      #expect(layout.chunkCount == 1)
      #expect(layout.itemCount == items)
      #expect(layout.efficiency == 100)
      #expect(layout.bitmapWords == (items + 63) / 64)
    }
  }
}
