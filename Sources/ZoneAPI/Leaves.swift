// Leaves.swift: the names of keg_ctl and what each stands for (U44, U45).
//
// UMA's sysctl tree, vm.uma.<zone>.…, leaf for leaf; there is one domain, 0.

import Base
import Keg
import Pages
import Synchronization
import Zone

enum Leaf: Int {
  case size = 0
  case flags, bucketSize, bucketSizeMax
  case kegName, itemStride, pagesPerSlab, itemsPerSlab, alignment, reserve, efficiency
  case pages, freeItems, freeSlabs
  case limitItems, limitMax, sleepers, sleeps, bucketMax
  case depotItems, greatest, least, leastSinceGreatest, workingSet, idleItems, idleTicks
  case current, allocs, frees, fails, exchanged
  case meanFailures

  static var count: Int { 32 }

  /// What follows `zone.<name>.`.
  var key: StaticString {
    switch self {
    case .size: "size"
    case .flags: "flags"
    case .bucketSize: "bucket_size"
    case .bucketSizeMax: "bucket_size_max"
    case .kegName: "keg.name"
    case .itemStride: "keg.rsize"
    case .pagesPerSlab: "keg.ppera"
    case .itemsPerSlab: "keg.ipers"
    case .alignment: "keg.align"
    case .reserve: "keg.reserve"
    case .efficiency: "keg.efficiency"
    case .pages: "keg.domain.0.pages"
    case .freeItems: "keg.domain.0.free_items"
    case .freeSlabs: "keg.domain.0.free_slabs"
    case .limitItems: "limit.items"
    case .limitMax: "limit.max_items"
    case .sleepers: "limit.sleepers"
    case .sleeps: "limit.sleeps"
    case .bucketMax: "limit.bucket_max"
    case .depotItems: "domain.0.nitems"
    case .greatest: "domain.0.imax"
    case .least: "domain.0.imin"
    case .leastSinceGreatest: "domain.0.bimin"
    case .workingSet: "domain.0.wss"
    case .idleItems: "domain.0.limin"
    case .idleTicks: "domain.0.timin"
    case .current: "stats.current"
    case .allocs: "stats.allocs"
    case .frees: "stats.frees"
    case .fails: "stats.fails"
    case .exchanged: "stats.xdomain"
    case .meanFailures: "mtbf"
    }
  }

  var isText: Bool { self == .flags || self == .kegName }
}

/// What the zone lock and the keg lock protect, read at once.
struct Inside {
  var workingSet = WorkingSet()
  var most = 0
  var bucketMax = 0
  var itemsOut = 0
  var depotMax = 0
  var reserve: UInt = 0
  var freeSlabs: UInt = 0
  var layout = SlabLayout(size: 8, alignment: 8)
  var hasKeg = false
}

extension UnsafeMutablePointer where Pointee == Handle {
  /// The number that a leaf stands for. Outside sections.
  func value(of leaf: Leaf) -> UInt64 {
    let all = figures()
    let inside = look()
    let value: UInt
    switch leaf {
    case .size: value = all.size
    case .bucketSize: value = all.bucketSize
    case .bucketSizeMax: value = clamp(inside.bucketMax)
    case .itemStride: value = all.stride
    case .pagesPerSlab: value = all.slabs == 0 && !inside.hasKeg ? 0 : slabBytes(all, inside) / 4096
    case .itemsPerSlab: value = all.slabItems
    // UMA's is a mask.
    case .alignment: value = all.stride == 0 ? 0 : all.stride & (0 &- all.stride) &- 1
    case .reserve: value = inside.reserve
    case .efficiency: value = inside.hasKeg ? inside.layout.efficiency : 100
    case .pages: value = all.slabBytes / 4096
    case .freeItems: value = all.freeItems
    case .freeSlabs: value = inside.freeSlabs
    case .limitItems: value = clamp(inside.itemsOut)
    case .limitMax: value = all.mostItems
    case .sleepers: value = all.sleepers
    case .sleeps: value = all.sleeps
    case .bucketMax: value = clamp(inside.depotMax)
    case .depotItems: value = clamp(inside.workingSet.items)
    case .greatest: value = clamp(inside.workingSet.greatest)
    case .least: value = clamp(inside.workingSet.least)
    case .leastSinceGreatest: value = clamp(inside.workingSet.leastSinceGreatest)
    case .workingSet: value = clamp(inside.workingSet.size)
    case .idleItems: value = clamp(inside.workingSet.idleItems)
    case .idleTicks: value = clamp(inside.workingSet.idleTicks)
    case .current: value = all.used
    case .allocs: value = all.imported
    case .frees: value = all.imported &- all.used
    case .fails: value = all.failures
    case .exchanged: value = all.exchanged
    case .meanFailures: value = UInt(pointee.meanFailures.load(ordering: .relaxed))
    case .flags, .kegName: value = 0
    }
    return UInt64(value)
  }

  /// Never a negative figure (source 001).
  private func clamp(_ value: Int) -> UInt { UInt(bitPattern: max(value, 0)) }

  private func slabBytes(_ all: ZoneFigures, _ inside: Inside) -> UInt {
    inside.hasKeg ? inside.layout.byteCount : all.slabBytes / max(all.slabs, 1)
  }

  private func look() -> Inside {
    var inside = Inside()
    lookInside {
      let zone = pointee.zone
      zone.pointee.lock.lock()
      inside.workingSet = zone.pointee.workingSet
      inside.bucketMax = zone.pointee.mostEntries
      inside.depotMax = zone.pointee.mostItems
      inside.itemsOut = zone.itemsOut
      zone.pointee.lock.unlock()
      guard let keg else { return }
      inside.hasKeg = true
      inside.layout = keg.pointee.layout
      inside.reserve = keg.reserve
      inside.freeSlabs = keg.totals().freeSlabs
    }
    return inside
  }

  /// Writes a leaf's text.
  func write(_ leaf: Leaf, to text: inout Text) {
    if leaf == .kegName {
      text.append(cString: keg?.pointee.name ?? pointee.backed?.pointee.name ?? name)
      return
    }
    let flags = pointee.flags
    var isFirst = true
    func add(_ flag: HandleFlags, _ word: StaticString, _ text: inout Text) {
      guard flags.contains(flag) else { return }
      if !isFirst { text.append(" ") }
      isFirst = false
      text.append(word)
    }
    add(.ofMalloc, "MALLOC", &text)
    add(.secondary, "SECONDARY", &text)
    add(.cache, "CACHE", &text)
    add(.zeroInit, "ZINIT", &text)
    add(.noFree, "NOFREE", &text)
    add(.allFini, "ALLFINI", &text)
    add(.noTouch, "NOTOUCH", &text)
    add(.noBucket, "NOBUCKET", &text)
    add(.maxBucket, "MAXBUCKET", &text)
    add(.counted, "REFCNT", &text)
    add(.noDump, "NODUMP", &text)
    if pointee.zone.isLimited {
      if !isFirst { text.append(" ") }
      text.append("LIMIT")
    }
  }
}
