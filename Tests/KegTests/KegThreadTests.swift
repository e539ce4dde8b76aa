import Base
import Keg
import Testing
import TestSupport

@Suite struct KegThreadTests {
  @Test("U41: 64 threads that touch a keg first at once make at most a slab each too many")
  func firstTouch() {
    Rig.use { rig in
      let keg = Shared(rig.keg(size: 64))
      let barrier = Barrier(64)
      let taken = Collected<[UInt]>()
      rig.inParallel(64) { _ in
        barrier.wait()
        taken.append(keg.pointer.takeAll(10))
      }
      let items = taken.values.flatMap { $0 }
      #expect(items.count == 640 && Set(items).count == 640)
      let needed = (640 + keg.pointer.layout.itemCount - 1) / keg.pointer.layout.itemCount
      #expect(keg.pointer.slabCount <= needed + 64)
      #expect(keg.pointer.slabCount == keg.pointer.slabsMade - keg.pointer.slabsReturned)
      keg.pointer.checkInvariants()
      // The slabs of lost races are free, and go.
      keg.pointer.drain()
      keg.pointer.giveAll(items)
      keg.pointer.drain()
      #expect(keg.pointer.slabCount == 0 && rig.heap.inUseBytes == 0)
    }
  }

  @Test("four threads over one keg lose no item and get none twice", arguments: [64, 4096] as [UInt])
  func walk(size: UInt) {
    Rig.use { rig in
      let keg = Shared(rig.keg(size: size))
      let left = Collected<[UInt]>()
      rig.inParallel(4) { index in
        var random = SeededGenerator(seed: UInt64(index))
        var held: [UInt] = []
        for step in 0..<300 {
          if held.count < 50 || random.below(2) == 0 {
            for item in keg.pointer.takeAll(random.below(100)) {
              item.word = UInt(index)
              held.append(item)
            }
          } else {
            held.shuffle(using: &random)
            let gone = Array(held.suffix(random.below(held.count)))
            held.removeLast(gone.count)
            if gone.contains(where: { $0.word != UInt(index) }) {
              die("test: one item for two threads")
            }
            keg.pointer.giveAll(gone)
          }
          if step % 100 == 99 { keg.pointer.drain() }
        }
        left.append(held)
      }
      let held = left.values.flatMap { $0 }
      #expect(keg.pointer.usedCount == UInt(held.count))
      keg.pointer.checkInvariants()
      keg.pointer.giveAll(held)
      keg.pointer.drain()
      #expect(keg.pointer.slabCount == 0 && rig.heap.inUseBytes == 0)
      rig.heap.checkInvariants()
    }
  }

  @Test("while another thread gives free slabs back, a refill that finds few items finds some")
  func drainedMeanwhile() {
    Rig.use { rig in
      // Eight items in a slab: less than half of what is asked for, so it looks for another.
      let keg = Shared(rig.keg(size: 2048))
      let (heap, taken) = (Shared(rig.heap!), Collected<Int>())
      rig.inParallel(2) { index in
        if index == 0 {
          taken.append((0..<5000).count { _ in
            let items = keg.pointer.takeAll(31)
            keg.pointer.giveAll(items)
            return items.isEmpty
          })
        } else {
          while taken.values.isEmpty {
            keg.pointer.drain()
            _ = heap.pointer.flushRecent()
          }
        }
      }
      #expect(taken.values == [0])
    }
  }

  @Test("threads over several kegs of one heap, inside and outside the reservation")
  func severalKegs() {
    Rig.use(wanted: 1 << 22) { rig in
      let kegs = ([64, 1000, 4096, 65536] as [UInt]).map { Shared(rig.keg(size: $0)) }
      rig.inParallel(4) { index in
        let keg = kegs[index].pointer
        for _ in 0..<20 {
          let items = keg.takeAll(200)
          for item in items { item.word = UInt(index) }
          if items.contains(where: { $0.word != UInt(index) }) { die("test: kegs overlap") }
          keg.giveAll(items)
          keg.drain()
        }
      }
      for keg in kegs { keg.pointer.checkInvariants() }
      #expect(rig.heap.inUseBytes == 0)
      #expect(rig.pages.violations == [])
    }
  }
}
