// LimitTests.swift: the limit of a zone, and back ends, without threads' arrays.

import Base
import Keg
import Testing
import TestSupport
import Zone

@Suite struct LimitTests {
  @Test("U36: what leaves the keg is counted, cached or not, and a bucket gets what there is room for")
  func counts() {
    Rig.use { rig in
      let zone = rig.zone(size: 64)
      zone.setLimit(10)
      let bin = rig.bin()
      var items: [UInt] = []
      for _ in 0..<10 { items.append(bin.allocate(zone)) }
      #expect(!items.contains(0) && Set(items).count == 10)
      #expect(bin.allocate(zone) == 0)
      #expect(zone.itemsOutNow == 10)
      bin.free(items.removeLast(), zone)
      #expect(zone.itemsOutNow == 10 && bin.allocate(zone) != 0)
    }
  }

  @Test("U37: room goes to the first waiter, and to nobody who comes later")
  func grants() {
    Rig.use { rig in
      let zone = rig.zone(size: 64)
      zone.setLimit(1)
      let item = zone.allocateItem()
      var first = Waiter()
      var second = Waiter()
      withUnsafeMutablePointer(to: &first) { first in
        withUnsafeMutablePointer(to: &second) { second in
          #expect(!zone.enqueue(first) && !zone.enqueue(second))
          #expect(zone.waiterCount == 2)
          zone.freeItem(item)
          #expect(first.isGranted && !second.isGranted)
          #expect(zone.allocateItem() == 0, "the room is the first waiter's")
          let granted = zone.allocateItem(.granted)
          #expect(granted != 0)
          #expect(!zone.dequeue(second), "not granted: it leaves the queue")
          #expect(zone.waiterCount == 0 && zone.itemsOutNow == 1)
          zone.freeItem(granted)
        }
      }
      #expect(zone.itemsOutNow == 0)
    }
  }

  @Test("a grant that finds no memory is given on")
  func failedGrant() {
    Rig.use { rig in
      let zone = rig.zone(size: 64, flags: .noBucket)
      zone.setLimit(1)
      var first = Waiter()
      var second = Waiter()
      withUnsafeMutablePointer(to: &first) { first in
        withUnsafeMutablePointer(to: &second) { second in
          #expect(zone.enqueue(first), "there is room at once")
          #expect(!zone.enqueue(second))
          // The keg has no slab, and may not make one.
          #expect(zone.allocateItem(TakeFlags.granted.union(.noGrowth)) == 0)
          #expect(second.isGranted)
          #expect(zone.allocateItem(.granted) != 0)
        }
      }
    }
  }

  @Test("M06: raising the limit grants as many waiters as there is room for")
  func raise() {
    Rig.use { rig in
      let zone = rig.zone(size: 64)
      zone.setLimit(1)
      _ = zone.allocateItem()
      var first = Waiter()
      var second = Waiter()
      var third = Waiter()
      withUnsafeMutablePointer(to: &first) { first in
        withUnsafeMutablePointer(to: &second) { second in
          withUnsafeMutablePointer(to: &third) { third in
            _ = zone.enqueue(first)
            _ = zone.enqueue(second)
            _ = zone.enqueue(third)
            zone.setLimit(3)
            #expect(first.isGranted && second.isGranted && !third.isGranted)
            zone.setLimit(0)
            #expect(third.isGranted)
          }
        }
      }
    }
  }

  @Test("in a forked child nobody waits any more")
  func forget() {
    Rig.use { rig in
      let zone = rig.zone(size: 64)
      zone.setLimit(1)
      let item = zone.allocateItem()
      var waiter = Waiter()
      withUnsafeMutablePointer(to: &waiter) { _ = zone.enqueue($0) }
      zone.forgetWaiters()
      zone.freeItem(item)
      #expect(zone.waiterCount == 0 && zone.allocateItem() != 0)
    }
  }

  @Test("U34: the reserve is left alone, and a drain keeps the slabs for it")
  func reserve() {
    Rig.use { rig in
      let keg = rig.keg(size: 1024)
      let all = Int(keg.layout.itemCount)
      keg.setReserve(3)
      var items = [UInt](repeating: 0, count: all)
      items.withUnsafeMutableBufferPointer { buffer in
        let out = buffer.baseAddress!
        #expect(keg.take(all, into: out) == all - 3)
        #expect(keg.take(1, into: out + all - 3, mayGrow: false) == 0)
        #expect(keg.take(3, into: out + all - 3, mayGrow: false, useReserve: true) == 3)
        keg.give(out, all)
      }
      keg.drain()
      #expect(keg.slabCount == 1)
      keg.setReserve(0)
      keg.drain()
      #expect(keg.slabCount == 0)
      keg.checkInvariants()
    }
  }

  @Test("U35, U41: slabs made in advance wait on the free list until a drain")
  func preallocate() {
    Rig.use { rig in
      let keg = rig.keg(size: 64)
      #expect(keg.preallocate(5000, populate: false))
      let made = keg.slabsMade
      #expect(keg.freeCount >= 5000)
      let items = keg.takeAll(5000)
      keg.giveAll(items)
      #expect(keg.slabsMade == made && keg.freeCount >= 5000)
      keg.drain()
      #expect(keg.slabCount == 0)
    }
  }
}

extension UnsafeMutablePointer where Pointee == Zone {
  fileprivate var itemsOutNow: Int { pointee.lock.withLock { itemsOut } }
}
