// Keg+Give.swift: items on their way back to their slabs.
//
// What was allocated together is often freed together, and then lies side by side; what
// was not lies anywhere, each item in a slab whose header is not in the cache. Both come
// by the bucket:
//
//   items   a0 a1 a2 a3 | q7 | c3 | a9 a4 a6 | …
//           a row       | one, one          | of one word of slab a's bitmap
//
// A row is marked a word of the bitmap at a time; of items that lie alone the slabs of
// the next eight are looked up and fetched ahead.
//
// Lock: the keg's, taken here.

import Base
import Pages
import Platform
import Vmem

extension UnsafeMutablePointer where Pointee == Keg {
  /// Gives items back. Dies on one that is free already, or no item of this keg.
  ///
  /// Those of each domain go at once; `items` is in another order afterwards.
  package func give(_ items: UnsafeMutablePointer<UInt>, _ count: Int) {
    var left = count
    while left > 0 { left = slab(of: items[0]).pointee.keg.giveOwn(items, left) }
  }

  /// Gives back the items of this domain.
  /// - Returns: how many were others'; they are the first of `items` then.
  private func giveOwn(_ items: UnsafeMutablePointer<UInt>, _ count: Int) -> Int {
    lockCountingWaits()
    let bytes = pointee.layout.itemCount &* pointee.layout.stride
    var ahead = InlineArray<8, UInt>(repeating: 0)
    var known = 0
    var reach = 1
    var i = 0
    var others = 0
    while i < count {
      known = max(known, i)
      while known < min(i &+ reach, count) {
        ahead[known & 7] = fetchSlab(of: items[known])
        known &+= 1
      }
      let slab = slab(of: items[i], word: ahead[i & 7])
      if _slowPath(slab.pointee.keg != self) {
        items[others] = items[i]
        others &+= 1
        i &+= 1
        continue
      }
      if i &+ 1 < count, items[i &+ 1] &- slab.pointee.base < bytes {
        let length = give(items + i, count &- i, to: slab)
        i &+= length
        // A long row is likely followed by another: nothing to fetch.
        reach = length > 4 ? 1 : 8
      } else {
        giveSingle(items[i], slab)
        i &+= 1
        reach = 8
      }
      relist(slab)
    }
    pointee.freeCount &+= UInt(bitPattern: count &- others)
    let surplus = detachSurplus()
    unlockAndDivide()
    returnSlabs(surplus)
    return others
  }

  @inline(__always)
  private func giveSingle(_ item: UInt, _ slab: UnsafeMutablePointer<Slab>) {
    let index = index(of: item, in: slab)
    mark(item, isItem: true, index, &slab.openWord(index / 64).pointee)
    slab.pointee.freeCount &+= 1
  }

  /// Marks the items free that lie in `slab`, up to the first that does not: a row, up or
  /// down, a word of the bitmap at a time, others of one word in a register.
  /// - Returns: how many there were, one at least.
  private func give(
    _ items: UnsafeMutablePointer<UInt>, _ count: Int, to slab: UnsafeMutablePointer<Slab>
  ) -> Int {
    let (base, stride) = (slab.pointee.base, pointee.layout.stride)
    let end = pointee.layout.itemCount &* stride
    var i = 0
    while i < count {
      let offset = items[i] &- base
      if offset >= end { break }
      let length = runLength(items + i, count &- i, slab)
      if length > 0 {
        giveRun(from: min(items[i], items[i &+ length &- 1]), length, slab)
        i &+= length
        continue
      }
      let word = ((offset &* pointee.reciprocal) &>> 40) / 64
      let start = word &* 64 &* stride
      i &+= mark(
        items + i, count &- i, from: base &+ start, bytes: min(64 &* stride, end &- start),
        slab.openWord(word))
    }
    if i == 0 { die("invalid free of", at: items[0], zone: pointee.name) }
    slab.pointee.freeCount &+= UInt32(truncatingIfNeeded: i)
    return i
  }

  /// Marks the items free that lie in the `bytes` from `base` on, up to the first that
  /// does not: those of one word of a bitmap.
  /// - Returns: how many there were.
  @inline(never)
  private func mark(
    _ items: UnsafeMutablePointer<UInt>, _ count: Int, from base: UInt, bytes: UInt,
    _ word: UnsafeMutablePointer<UInt64>
  ) -> Int {
    let (stride, reciprocal) = (pointee.layout.stride, pointee.reciprocal)
    var bits = word.pointee
    var i = 0
    while i < count {
      let offset = items[i] &- base
      if offset >= bytes { break }
      let index = (offset &* reciprocal) &>> 40
      mark(items[i], isItem: index &* stride == offset, index, &bits)
      i &+= 1
    }
    word.pointee = bits
    return i
  }

  /// Marks an item free whose bit is `index` modulo 64 of a word of the bitmap.
  @inline(__always)
  private func mark(_ item: UInt, isItem: Bool, _ index: UInt, _ bits: inout UInt64) {
    if _slowPath(!isItem) { die("invalid free of", at: item, zone: pointee.name) }
    let mask: UInt64 = 1 &<< UInt64(index)
    if _slowPath(bits & mask != 0) { die("double free of", at: item, zone: pointee.name) }
    bits |= mask
  }

  /// How many of the first items are neighbours in one slab, each above or each below
  /// the one before; 0: fewer than three.
  @inline(__always)
  private func runLength(
    _ items: UnsafeMutablePointer<UInt>, _ count: Int, _ slab: UnsafeMutablePointer<Slab>
  ) -> Int {
    if count < 3 { return 0 }
    let stride = pointee.layout.stride
    let step = items[1] &- items[0]
    if step != stride, step != 0 &- stride { return 0 }
    let index = slot(of: items[0], in: slab)
    let room = step == stride ? pointee.layout.itemCount &- index : index &+ 1
    let most = min(count, Int(bitPattern: room))
    var next = items[1] &+ step
    var length = 2
    // Four at a time.
    while length &+ 4 <= most {
      let four = items + length
      let (second, third) = (next &+ step, next &+ 2 &* step)
      if (four[0] ^ next) | (four[1] ^ second) | (four[2] ^ third) | (four[3] ^ (third &+ step)) != 0 {
        break
      }
      length &+= 4
      next = next &+ 4 &* step
    }
    while length < most, items[length] == next {
      length &+= 1
      next = next &+ step
    }
    return length < 3 ? 0 : length
  }

  /// Marks `length` items from the lowest on free.
  private func giveRun(from lowest: UInt, _ length: Int, _ slab: UnsafeMutablePointer<Slab>) {
    if let freed = slab.give(index(of: lowest, in: slab), UInt(bitPattern: length)) {
      die(
        "double free of", at: slab.pointee.base &+ freed &* pointee.layout.stride,
        zone: pointee.name)
    }
  }

  /// Gives one item back.
  @inline(never)
  package func give(_ item: UInt) {
    var item = item
    withUnsafeMutablePointer(to: &item) { give($0, 1) }
  }

  /// Starts to load the header and the bitmap word of an item's slab.
  /// - Returns: the slab's address; 0: not known.
  @inline(__always)
  private func fetchSlab(of item: UInt) -> UInt {
    let heap = pointee.heap
    guard heap.pointee.reservation.contains(item) else { return 0 }
    let map = heap.pointee.pageMap
    guard case .slab(let slab) = map.owner(at: map.index(of: item)) else { return 0 }
    keg_prefetch(slab.address)
    let offset = item & (Chunk.size &- 1)
    keg_prefetch(
      slab.address &+ Slab.headerBytes &+ (offset &* pointee.reciprocal) &>> 46 &* 8)
    return slab.address
  }

  /// The slab that `item` lies in. Dies when there is none of this keg or its domains.
  /// - Parameter word: what `fetchSlab` said.
  @inline(__always)
  private func slab(of item: UInt, word: UInt) -> UnsafeMutablePointer<Slab> {
    if _fastPath(word != 0) {
      let slab = word.pointer(to: Slab.self)
      if _fastPath(slab.pointee.keg == self) { return slab }
    }
    return slab(of: item)
  }

  /// The slab that `item` lies in. Dies when there is none of this keg or its domains.
  @inline(never)
  private func slab(of item: UInt) -> UnsafeMutablePointer<Slab> {
    if let map = pointee.heap.pageMap(for: item),
      case .slab(let slab) = map.owner(at: map.index(of: item)), owns(slab)
    {
      return slab
    }
    die("invalid free of", at: item, zone: pointee.name)
  }

  @inline(__always)
  private func index(of item: UInt, in slab: UnsafeMutablePointer<Slab>) -> UInt {
    let offset = item &- slab.pointee.base
    let index = (offset &* pointee.reciprocal) &>> 40
    if index &* pointee.layout.stride != offset || index >= pointee.layout.itemCount {
      die("invalid free of", at: item, zone: pointee.name)
    }
    return index
  }
}
