// LeakReport.swift: what a check found, by kind and stack, largest first, each with the
// oldest of its items; and the line with the totals.
//
//   kegmalloc: ERROR: leak: definite: 48 bytes in 2 blocks, oldest at 0x7f…
//     process 12, thread 12: 24 bytes by malloc, 3 ms after start
//     allocated by thread 12:
//       #0 0x55… main+0x1f (/bin/x+0x1139)
//   kegmalloc: leaks of process 12: definite 48 bytes in 2 blocks, indirect 0 …

import Base
import DebugPlatform
import Keg
import Leaks
import Malloc
import Platform

/// Where a report of leaks goes.
struct LeakTarget {
  /// -1: where all reports go.
  var descriptor: Int32 = -1
  /// Whether the totals are wanted also when nothing was found.
  var isRequested = false
}

extension LeakKind {
  var name: StaticString {
    switch self {
    case .lost: "lost"
    case .reachable: "reachable"
    case .system: "system"
    case .stack: "stack"
    case .definite: "definite"
    case .indirect: "indirect"
    case .cycle: "cycle"
    }
  }

  /// Whether such an item is lost for good.
  var isLeak: Bool { self == .definite || self == .indirect || self == .cycle }
}

/// Items of one kind that were allocated by one stack.
struct LeakGroup {
  var count: UInt = 0
  var bytes: UInt = 0
  var stack: StackID = 0
  var kind: LeakKind = .lost
  var call: AllocationKind = .malloc
  /// The oldest of them.
  var thread: UInt32 = 0
  var time: UInt32 = 0
  var address: UInt = 0
  var size: UInt = 0
}

/// A hash table that becomes a sorted list.
struct LeakGroups {
  private var memory: UInt = 0
  private var capacity = 0
  private(set) var count = 0
  /// Items that no group had room for.
  private(set) var dropped: UInt = 0

  init() {}

  /// - Parameter capacity: a power of two.
  init?(capacity: Int, scratch: inout LeakScratch) {
    memory = scratch.take(UInt(bitPattern: capacity &* MemoryLayout<LeakGroup>.stride))
    guard memory != 0 else { return nil }
    self.capacity = capacity
  }

  private var groups: UnsafeMutablePointer<LeakGroup> { memory.pointer(to: LeakGroup.self) }

  subscript(_ index: Int) -> LeakGroup { groups[index] }

  mutating func add(_ item: LeakItem, _ kind: LeakKind, _ record: RecordPointer) {
    let stack = record.pointee.allocationStack
    let hash = (UInt(stack) &* 8 &+ UInt(kind.rawValue)) &* 0x9E37_79B9_7F4A_7C15
    var slot = Int(bitPattern: hash &>> 40) & (capacity &- 1)
    while groups[slot].count > 0, groups[slot].stack != stack || groups[slot].kind != kind {
      slot = (slot &+ 1) & (capacity &- 1)
    }
    if groups[slot].count == 0 {
      if count > capacity / 2 {
        dropped &+= 1
        return
      }
      count &+= 1
      groups[slot].stack = stack
      groups[slot].kind = kind
    }
    groups[slot].count &+= 1
    groups[slot].bytes &+= item.size
    let isOlder =
      record.pointee.allocationTime < groups[slot].time
      || record.pointee.allocationTime == groups[slot].time && item.start < groups[slot].address
    if groups[slot].count == 1 || isOlder {
      groups[slot].call = record.kind
      groups[slot].thread = record.allocationThread
      groups[slot].time = record.pointee.allocationTime
      groups[slot].address = item.start
      groups[slot].size = item.size
    }
  }

  /// Puts the groups to the front of the table, in the order they are reported.
  mutating func sort() {
    var used = 0
    var i = 0
    while i < capacity {
      if groups[i].count > 0 {
        let group = groups[i]
        groups[i].count = 0
        groups[used] = group
        used &+= 1
      }
      i &+= 1
    }
    // Heap sort: there may be a hundred thousand.
    var start = used / 2
    while start > 0 {
      start &-= 1
      sift(start, used)
    }
    var end = used
    while end > 1 {
      end &-= 1
      let first = groups[0]
      groups[0] = groups[end]
      groups[end] = first
      sift(0, end)
    }
  }

  private func sift(_ start: Int, _ end: Int) {
    var parent = start
    while true {
      var child = parent &* 2 &+ 1
      if child >= end { return }
      if child &+ 1 < end, comesBefore(groups[child], groups[child &+ 1]) { child &+= 1 }
      if !comesBefore(groups[parent], groups[child]) { return }
      let group = groups[parent]
      groups[parent] = groups[child]
      groups[child] = group
      parent = child
    }
  }

  private func comesBefore(_ a: LeakGroup, _ b: LeakGroup) -> Bool {
    if a.kind != b.kind { return rank(a.kind) < rank(b.kind) }
    if a.bytes != b.bytes { return a.bytes > b.bytes }
    return a.address < b.address
  }

  private func rank(_ kind: LeakKind) -> UInt8 {
    switch kind {
    case .definite: 0
    case .cycle: 1
    case .indirect: 2
    case .stack: 3
    default: 4
    }
  }
}

/// Counts every item, and groups those that are reported. The world stands still.
func collect(
  _ scan: borrowing LeakScan, _ question: LeakQuestion, _ groups: inout LeakGroups,
  _ totals: inout LeakTotals
) {
  var i = 0
  while i < scan.items.count {
    let item = scan.items.items[i]
    let kind = scan.kind(i)
    i &+= 1
    guard case .item(let place) = place(of: item.start) else { continue }
    if question.sinceMark, place.record.epoch != debug.pointee.epoch & 0xFFFF { continue }
    totals.add(kind, item.size)
    if isShown(kind) { groups.add(item, kind, place.record) }
  }
  groups.sort()
}

/// Whether option `leak_show` wants items of a kind listed.
private func isShown(_ kind: LeakKind) -> Bool {
  switch kind {
  case .definite, .indirect, .cycle: true
  case .stack: Core.option(.debugLeakShow) >= LeakShowMode.stack || Core.option(.debugJSONFile) != 0
  case .reachable: Core.option(.debugLeakShow) >= LeakShowMode.reachable
  case .lost, .system: false
  }
}

func reportLeaks(_ result: LeakResult, _ question: LeakQuestion, _ target: LeakTarget) {
  let isJSON = target.descriptor >= 0 || Core.option(.debugJSONFile) != 0
  var i = 0
  while i < result.groups.count {
    let group = result.groups[i]
    send(target, isJSON) { if isJSON { writeJSON(group, &$0) } else { writeText(group, &$0) } }
    i &+= 1
  }
  let wantsTotals =
    target.isRequested || result.totals.leaks > 0 || Core.option(.debugLeakShow) != LeakShowMode.leaks
  if result.defiant > 0, !isJSON, wantsTotals {
    send(target, isJSON) { text in
      text.append("kegmalloc: leaks: ")
      text.append(decimal: result.defiant)
      text.append(" threads could not be stopped; their stacks were scanned whole; one is ")
      text.append(decimal: UInt(UInt32(bitPattern: result.firstDefiant)))
      text.append("\n")
    }
  }
  if !isJSON, wantsTotals {
    send(target, isJSON) { writeTotals(result, &$0) }
  }
  if target.descriptor >= 0 {
    var summary = Summary()
    summary.errors = debug.pointee.findings.errors
    summary.leaks = result.totals.leaks
    summary.leakedBytes = result.totals.leakedBytes
    send(target, isJSON) { writeSummaryJSON(summary, &$0) }
  }
}

func reportNoMemory(_ target: LeakTarget) {
  send(target, false) { $0.append("kegmalloc: leaks: no memory for a check\n") }
}

/// Puts one report together and sends it.
private func send(_ target: LeakTarget, _ isJSON: Bool, _ body: (inout ReportText) -> Void) {
  debug.pointee.reportLock.lock()
  var text = ReportText()
  body(&text)
  if target.descriptor >= 0 {
    text.send(to: target.descriptor)
  } else {
    text.send(to: openReport(isJSON ? .debugJSONFile : .debugLogFile))
  }
  debug.pointee.reportLock.unlock()
}

private func writeText(_ group: LeakGroup, _ text: inout ReportText) {
  text.append(group.kind.isLeak ? "kegmalloc: ERROR: leak: " : "kegmalloc: NOTE: leak: ")
  text.append(group.kind.name)
  text.append(": ")
  writeAmount(group.bytes, group.count, &text)
  text.append(group.count == 1 ? " at " : ", oldest at ")
  text.append(hexadecimal: group.address)
  text.append("\n  process ")
  text.append(decimal: UInt(debug.pointee.pid))
  text.append(", thread ")
  text.append(decimal: UInt(group.thread))
  text.append(": ")
  text.append(decimal: group.size)
  text.append(" bytes by ")
  text.append(group.call.name)
  text.append(", ")
  text.append(decimal: UInt(group.time))
  text.append(" ms after start\n")
  writeStack("  allocated by thread ", UInt(group.thread), group.stack, &text)
}

private func writeAmount(_ bytes: UInt, _ count: UInt, _ text: inout ReportText) {
  text.append(decimal: bytes)
  text.append(" bytes in ")
  text.append(decimal: count)
  text.append(count == 1 ? " block" : " blocks")
}

private func writeTotals(_ result: LeakResult, _ text: inout ReportText) {
  text.append("kegmalloc: leaks of process ")
  text.append(decimal: UInt(debug.pointee.pid))
  text.append(": definite ")
  writeAmount(result.totals.bytes(.definite), result.totals.count(.definite), &text)
  text.append(", indirect ")
  writeAmount(result.totals.bytes(.indirect), result.totals.count(.indirect), &text)
  text.append(", cycle ")
  writeAmount(result.totals.bytes(.cycle), result.totals.count(.cycle), &text)
  text.append("; not lost: stack ")
  writeAmount(result.totals.bytes(.stack), result.totals.count(.stack), &text)
  text.append(", reachable ")
  writeAmount(result.totals.bytes(.reachable), result.totals.count(.reachable), &text)
  text.append("\n")
}

private func writeJSON(_ group: LeakGroup, _ text: inout ReportText) {
  text.append("{")
  text.key("kind", first: true)
  text.quoted("leak")
  text.key("leak")
  text.quoted(group.kind.name)
  text.key("bytes")
  text.append(decimal: group.bytes)
  text.key("count")
  text.append(decimal: group.count)
  text.key("address")
  text.quoted(address: group.address)
  text.key("size")
  text.append(decimal: group.size)
  text.key("allocation")
  text.quoted(group.call.name)
  text.key("time_ms")
  text.append(decimal: UInt(group.time))
  text.key("pid")
  text.append(decimal: UInt(debug.pointee.pid))
  text.key("stacks")
  text.append("{")
  text.key("allocated", first: true)
  text.stack(UInt(group.thread), group.stack)
  text.append("}}\n")
}
