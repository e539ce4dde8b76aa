// Finding.swift: what a report says, and the table by which the same one is told once.

import Base
import DebugPlatform
import Keg
import Malloc
import Platform

/// The classes of the first line of a report.
enum FindingClass: UInt32 {
  case doubleFree = 0
  case invalidFree
  case useAfterFree
  case overflow
  case underflow
  case mismatch
  case badSize
  case leak
  case zone
  case signal

  var name: StaticString {
    switch self {
    case .doubleFree: "double-free"
    case .invalidFree: "invalid-free"
    case .useAfterFree: "use-after-free"
    case .overflow: "overflow"
    case .underflow: "underflow"
    case .mismatch: "mismatch"
    case .badSize: "bad-size"
    case .leak: "leak"
    case .zone: "zone"
    case .signal: "signal"
    }
  }
}

enum Access: UInt32 {
  case none = 0
  case read
  case write
}

struct Finding {
  let kind: FindingClass
  /// One phrase: what was done to what.
  let what: StaticString
  /// Where: the pointer that was passed, or the first damaged byte.
  let address: UInt
  /// The item that it is about.
  var item: Item? = nil
  var access: Access = .none
  /// The damaged bytes.
  var damage: Damage? = nil
  /// A second number that the phrase ends with, such as a size that was claimed.
  var number: UInt? = nil
  /// The zone of the item, when it is one of the program's own; and the zone that it was freed to.
  var zone: UnsafePointer<CChar>? = nil
  var givenTo: UnsafePointer<CChar>? = nil
  /// Where it came to light. 0: not known.
  var stack: StackID = 0

  init(_ kind: FindingClass, _ what: StaticString, at address: UInt, _ item: Item? = nil) {
    self.kind = kind
    self.what = what
    self.address = address
    self.item = item
  }
}

/// What was found, by class and stacks. A finding is reported in full once.
struct FindingTable: ~Copyable {
  struct Entry {
    var hash: UInt = 0
    var count: UInt = 0
    var kind: UInt32 = 0
  }
  static var capacity: Int { 512 }

  private var entries: InlineArray<512, Entry> = InlineArray(repeating: Entry())
  /// Findings, repeated ones included.
  private(set) var errors: UInt = 0
  /// Different ones.
  private(set) var distinct: UInt = 0

  init() {}

  /// Counts a finding. Called with the report lock held.
  /// - Returns: its number when it is new; nil when it is known.
  mutating func add(_ hash: UInt, _ kind: FindingClass) -> UInt? {
    errors &+= 1
    var i = 0
    while i < Self.capacity {
      if entries[i].count == 0 {
        entries[i] = Entry(hash: hash, count: 1, kind: kind.rawValue)
        distinct &+= 1
        return distinct
      }
      if entries[i].hash == hash {
        entries[i].count &+= 1
        return nil
      }
      i &+= 1
    }
    return nil
  }

  /// Calls `body` with number, class and count of findings seen more than once.
  func forEachRepeated(_ body: (UInt, FindingClass, UInt) -> Void) {
    var i = 0
    while i < Self.capacity, entries[i].count > 0 {
      if entries[i].count > 1, let kind = FindingClass(rawValue: entries[i].kind) {
        body(UInt(bitPattern: i &+ 1), kind, entries[i].count)
      }
      i &+= 1
    }
  }

  /// A forked child begins anew.
  mutating func clear() {
    var i = 0
    while i < Self.capacity {
      entries[i] = Entry()
      i &+= 1
    }
    errors = 0
    distinct = 0
  }
}

/// By its frames: two threads that store the same stack at once get two numbers for it.
private func mix(_ stack: StackID, into hash: inout UInt) {
  hash = hash &* 0x9E37_79B9_7F4A_7C15 &+ 1
  withUnsafeMutablePointer(to: &hash) { hash in
    forEachFrame(stack) { hash.pointee = (hash.pointee ^ $0) &* 0x9E37_79B9_7F4A_7C15 }
  }
}

/// Reports a finding, or counts it if its like was reported. The item must not change
/// meanwhile. No lock of the core may be held, nor `reportLock`.
func report(_ finding: Finding) {
  var finding = finding
  if finding.stack == 0 { finding.stack = captureStack() }
  // A handler may interrupt us anywhere: one report of that is enough.
  var hash = UInt(finding.kind.rawValue)
  if finding.kind != .signal { mix(finding.stack, into: &hash) }
  mix(finding.item?.record.pointee.allocationStack ?? 0, into: &hash)
  mix(finding.item?.record.pointee.freeStack ?? 0, into: &hash)
  if finding.stack == 0, finding.item == nil { hash = hash &+ finding.address }
  hash = hash &+ UInt(bitPattern: finding.what.utf8Start)
  let saved = keg_get_errno()
  debug.pointee.reportLock.lock()
  if let number = debug.pointee.findings.add(hash, finding.kind) {
    nesting { write(finding, number) }
  }
  debug.pointee.reportLock.unlock()
  keg_set_errno(saved)
  switch Core.option(.debugOnError) {
  case OnErrorMode.abort:
    writeSummary()
    keg_abort()
  case OnErrorMode.exit:
    writeSummary()
    endProcess(Int32(truncatingIfNeeded: Core.option(.debugExitCode)))
  default: break
  }
}

/// The phrases of the kinds of allocation, and of calls that free.
extension AllocationKind {
  var name: StaticString {
    switch self {
    case .malloc: "malloc"
    case .memalign: "memalign"
    case .new: "new"
    case .newArray: "new[]"
    case .alignedNew: "aligned new"
    case .alignedNewArray: "aligned new[]"
    case .zone: "keg_zone_alloc"
    }
  }
}

extension FreeKind {
  var name: StaticString {
    switch self {
    case .free: "free"
    case .delete: "delete"
    case .deleteArray: "delete[]"
    case .realloc: "realloc"
    case .freeSized: "free_sized"
    case .freeAlignedSized: "free_aligned_sized"
    }
  }
}
