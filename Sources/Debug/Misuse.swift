// Misuse.swift: the phrases for what checks find, one function for each kind of bug.

import Base
import DebugPlatform
import Keg
import Malloc
import Platform

/// Bytes that somebody wrote where he should not have.
func reportDamage(
  _ kind: FindingClass, _ damage: Damage, _ item: Item, _ occasion: Occasion
) {
  var finding = Finding(kind, phrase(kind, item), at: damage.start, item)
  finding.access = .write
  finding.damage = damage
  report(finding)
}

private func phrase(_ kind: FindingClass, _ item: Item) -> StaticString {
  switch kind {
  case .underflow: "write before the start of a block"
  case .overflow: "write past the end of a block"
  default: "write to a freed block"
  }
}

/// A free of what is not live, or not the start of an item.
@inline(never)
func reportBadFree(_ address: UInt, _ slotItem: Item, _ claim: Claim) {
  let item = itemMeant(by: address, slotItem)
  let state = item.record.state
  if item.user == address, state != .untouched, item.record.freeThread != 0 || state == .busy {
    report(Finding(.doubleFree, doubleFreePhrase(claim.call), at: address, item))
    return
  }
  let isKnown = state == .live || item.record.allocationThread != 0
  let phrase: StaticString
  switch claim.call {
  case .realloc: phrase = "realloc of a pointer that is not the start of a block"
  case .delete, .deleteArray: phrase = "delete of a pointer that is not the start of a block"
  default: phrase = "free of a pointer that is not the start of a block"
  }
  report(Finding(.invalidFree, phrase, at: address, isKnown ? item : nil))
}

/// The item in whose slot `address` lies; or, if that is behind its end, the next one
/// when that is nearer: who frees a little before a block means a header of his own.
private func itemMeant(by address: UInt, _ item: Item) -> Item {
  if address <= item.userEnd { return item }
  let behind = item.isGuarded ? debug.pointee.guardArena.next(after: item) : item.slotBehind
  guard let behind, behind.record.state == .live,
    behind.user &- address < address &- item.userEnd
  else { return item }
  return behind
}

private func doubleFreePhrase(_ call: FreeKind) -> StaticString {
  switch call {
  case .realloc: "realloc of a freed block"
  case .delete, .deleteArray: "delete of a freed block"
  default: "second free of a block"
  }
}

/// A free of what was never an item.
@inline(never)
func reportInvalidFree(_ address: UInt, _ claim: Claim) {
  if case .gone = place(of: address) {
    report(Finding(.doubleFree, doubleFreePhrase(claim.call), at: address))
    return
  }
  if keg_debug_is_trash_pointer(address) {
    report(Finding(.useAfterFree, "free of a pointer that was read from a freed block", at: address))
    return
  }
  let phrase: StaticString =
    switch claim.call {
    case .realloc: "realloc of a pointer that no allocation returned"
    case .delete, .deleteArray: "delete of a pointer that no allocation returned"
    default: "free of a pointer that no allocation returned"
    }
  report(Finding(.invalidFree, phrase, at: address, blockJustBehind(address)))
}

/// Memory that goes by another call than its kind wants.
@inline(never)
func reportMismatch(_ item: Item, _ claim: Claim) {
  let kind = item.record.kind
  if isOperatorOfProgram(item, kind) { return }
  let phrase: StaticString =
    switch (kind, claim.call) {
    case (.malloc, .delete): "memory of malloc given to delete"
    case (.malloc, .deleteArray): "memory of malloc given to delete[]"
    case (.malloc, _): "memory of malloc given to free_aligned_sized"
    case (.memalign, .delete): "memory of memalign given to delete"
    case (.memalign, .deleteArray): "memory of memalign given to delete[]"
    case (.memalign, _): "memory of memalign given to free_sized"
    case (.new, .deleteArray), (.alignedNew, .deleteArray): "memory of new given to delete[]"
    case (.new, .realloc), (.alignedNew, .realloc): "memory of new given to realloc"
    case (.new, _), (.alignedNew, _): "memory of new given to free"
    case (.newArray, .delete), (.alignedNewArray, .delete): "memory of new[] given to delete"
    case (.newArray, .realloc), (.alignedNewArray, .realloc): "memory of new[] given to realloc"
    default: "memory of new[] given to free"
    }
  report(Finding(.mismatch, phrase, at: item.user, item))
}

/// Compares size and alignment of a sized call with the item's.
@inline(never)
func checkClaim(_ item: Item, _ claim: Claim) {
  let record = item.record
  if let size = claim.size, size != record.size {
    var finding = Finding(.badSize, "sized free with a wrong size", at: item.user, item)
    finding.number = size
    report(finding)
  }
  let isAligned =
    record.kind == .alignedNew || record.kind == .alignedNewArray
    || record.kind == .memalign && claim.call == .freeAlignedSized
  if let alignment = claim.alignment {
    if isAligned ? max(alignment, 16) != record.alignment : record.kind != .malloc {
      var finding = Finding(.badSize, "aligned free with a wrong alignment", at: item.user, item)
      finding.number = alignment
      report(finding)
    }
  } else if isAligned, claim.call == .delete || claim.call == .deleteArray {
    report(Finding(.badSize, "delete without the alignment that new was given", at: item.user, item))
  }
}

/// A size above PTRDIFF_MAX: a negative number that became a size.
@inline(never)
func reportNegativeSize(_ size: UInt, _ kind: AllocationKind) {
  var finding = Finding(.badSize, "allocation of a size that looks negative", at: 0)
  finding.number = size
  finding.stack = captureStack()
  // After ours has failed the C++ library's operator new tries once more.
  if kind == .malloc, isOperatorNew(finding.stack) { return }
  report(finding)
}

/// realloc or malloc_usable_size of what is not live.
func reportBadPointer(_ address: UInt, _ item: Item?, _ isRealloc: Bool) {
  if isRealloc {
    if let item { return reportBadFree(address, item, Claim(call: .realloc)) }
    return reportInvalidFree(address, Claim(call: .realloc))
  }
  if let item, item.user == address, item.record.freeThread != 0 {
    report(Finding(.useAfterFree, "malloc_usable_size of a freed block", at: address, item))
  } else {
    report(Finding(.invalidFree, "malloc_usable_size of a pointer that no allocation returned", at: address))
  }
}

/// A call of malloc or free by a signal handler over one.
func noteNested() {
  guard keg_debug_is_running(), keg_debug_thread().pointee.state == KEG_DEBUG_INSIDE
  else { return }
  // What the report needs may be what the handler interrupted: no lock is waited for.
  nesting {
    report(Finding(.signal, "allocation by a signal handler that interrupted the allocator", at: 0))
  }
}

/// Whether the memory came from an operator new of the program that calls malloc: one
/// linked statically, or the C++ library's own, called when ours had none.
private func isOperatorOfProgram(_ item: Item, _ kind: AllocationKind) -> Bool {
  if kind != .malloc, kind != .memalign { return false }
  return isOperatorNew(item.record.pointee.allocationStack)
}

/// Whether the innermost function of a stack is an operator new.
private func isOperatorNew(_ stack: StackID) -> Bool {
  var isOperator = false
  var isFirst = true
  forEachFrameAndJump(stack) { pc in
    if !isFirst { return }
    isFirst = false
    describeFrame(pc) { frame in
      guard let name = frame.function else { return }
      // _Znw…, _Zna…: operator new and new[].
      isOperator =
        name[0] == 0x5F && name[1] == 0x5A && name[2] == 0x6E && (name[3] == 0x77 || name[3] == 0x61)
    }
  }
  return isOperator
}
