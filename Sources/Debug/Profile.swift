// Profile.swift: who holds memory, and who allocated how much: the option `profile`.
//
//   note() ─▶ table: stack ─▶ allocations, bytes      counted as they happen
//   end    ─▶ walk over the live items ─▶ live, bytes ─▶ file
//
// The file is the text form of heap profiles that pprof and its kin read:
//
//   heap profile:  live: bytes [ allocations: bytes ] @ heapprofile
//        2:      224 [     7:      784 ] @ 0x55… 0x55…      one line a stack
//   MAPPED_LIBRARIES:
//   55…-55… r-xp …                                           /proc/self/maps
//
// Counting takes no lock: a slot of the table is claimed by compare-and-swap. With
// `sample:N` a counted item stands for N.

import Base
import DebugPlatform
import Keg
import Malloc
import Pages
import Platform
import Synchronization

struct ProfileEntry: ~Copyable {
  /// 0: free. Claimed once, never changed.
  let stack: Atomic<UInt32>
  let allocations: Atomic<UInt>
  let allocatedBytes: Atomic<UInt>
  /// Of the walk at the end, by the thread that makes it.
  var live: UInt
  var liveBytes: UInt
}

/// All zero until `bootProfile`.
struct Profile: ~Copyable {
  /// Enough for programs with many stacks, small enough to be reserved always.
  static var capacity: Int { 1 << 18 }
  /// A table this full of neighbours is full.
  static var longestProbe: Int { 256 }

  private var entries: UnsafeMutablePointer<ProfileEntry>?
  /// Allocations whose stack found no room.
  private let dropped: Atomic<UInt>

  init() {
    entries = nil
    dropped = Atomic(0)
  }

  var isOn: Bool { entries != nil }

  /// Takes memory for the table; pages that no stack lies in cost nothing.
  mutating func start(_ source: PageSource) {
    let size = UInt(bitPattern: Self.capacity &* MemoryLayout<ProfileEntry>.stride)
    let memory = source.reserve(size)
    guard memory != 0 else { return }
    if source.commit(memory, size) {
      entries = memory.pointer(to: ProfileEntry.self)
    } else {
      _ = source.release(memory, size)
    }
  }

  /// Counts an allocation.
  func count(_ stack: StackID, _ size: UInt) {
    guard let entry = entry(for: stack) else {
      dropped.wrappingAdd(1, ordering: .relaxed)
      return
    }
    entry.pointee.allocations.wrappingAdd(1, ordering: .relaxed)
    entry.pointee.allocatedBytes.wrappingAdd(size, ordering: .relaxed)
  }

  /// Counts an item that lives at the end.
  func countLive(_ stack: StackID, _ size: UInt) {
    guard let entry = entry(for: stack) else { return }
    entry.pointee.live &+= 1
    entry.pointee.liveBytes &+= size
  }

  /// The stack's slot, claimed if it has none; nil when the table is full.
  /// - Complexity: O(1) unless the table is nearly full.
  private func entry(for stack: StackID) -> UnsafeMutablePointer<ProfileEntry>? {
    guard let entries else { return nil }
    // Unknown stacks, whose id is 0, share the last id there can be.
    let key = stack == 0 ? UInt32.max : stack
    var slot = Int(truncatingIfNeeded: UInt(key) &* 0x9E37_79B9_7F4A_7C15 &>> 40)
    var probes = 0
    while probes < Self.longestProbe {
      let entry = entries + (slot & (Self.capacity &- 1))
      let found = entry.pointee.stack.load(ordering: .relaxed)
      if found == key { return entry }
      if found == 0 {
        let claim = entry.pointee.stack.compareExchange(
          expected: 0, desired: key, ordering: .relaxed)
        if claim.exchanged || claim.original == key { return entry }
      }
      slot &+= 1
      probes &+= 1
    }
    return nil
  }

  /// Calls `body` with the stack and figures of every slot in use.
  func forEach(_ body: (StackID, UnsafeMutablePointer<ProfileEntry>) -> Void) {
    guard let entries else { return }
    var slot = 0
    while slot < Self.capacity {
      let stack = entries[slot].stack.load(ordering: .relaxed)
      if stack != 0 { body(stack == UInt32.max ? 0 : stack, entries + slot) }
      slot &+= 1
    }
  }
}

private var profile: UnsafeMutablePointer<Profile> {
  withUnsafeMutablePointer(to: &debug.pointee.profile) { $0 }
}

/// Called once, at boot of the layer.
func bootProfile() {
  if Core.option(.profile) == ProfileMode.alloc { profile.pointee.start(PageSource.kernel()) }
}

/// Writes the profile, at the end of the process.
func writeProfile() {
  guard profile.pointee.isOn else { return }
  let option = Core.option(.profileFile)
  let name: StaticString = "kegmalloc.%p.heap"
  let path =
    option != 0
    ? option.pointer(to: CChar.self)
    : UInt(bitPattern: name.utf8Start).pointer(to: CChar.self)
  let file = keg_debug_open_report(path, Int32(bitPattern: debug.pointee.pid))
  guard file >= 0 else {
    var text = Text(to: errorOutput())
    text.append("kegmalloc: cannot write the profile ")
    text.append(cString: path)
    text.append("\n")
    text.flush()
    return
  }
  _ = keg_syscall6(77 /* ftruncate */, Int(file), 0, 0, 0, 0, 0)
  let isStill = withOthersOutside {
    forEachLiveItem { profile.pointee.countLive($0.stack, $0.size) }
  }
  if !isStill {
    var text = Text(to: errorOutput())
    text.append("kegmalloc: a thread stays in a call of malloc: the profile has no live blocks\n")
    text.flush()
  }
  write(to: file)
  copyMappings(to: file)
  _ = keg_syscall6(3 /* close */, Int(file), 0, 0, 0, 0, 0)
}

private func write(to file: Int32) {
  var total = (live: UInt(0), liveBytes: UInt(0), allocations: UInt(0), allocatedBytes: UInt(0))
  profile.pointee.forEach { _, entry in
    total.live &+= entry.pointee.live
    total.liveBytes &+= entry.pointee.liveBytes
    total.allocations &+= entry.pointee.allocations.load(ordering: .relaxed)
    total.allocatedBytes &+= entry.pointee.allocatedBytes.load(ordering: .relaxed)
  }
  var text = Text(to: file)
  text.append("heap profile: ")
  writeFigures(total.live, total.liveBytes, total.allocations, total.allocatedBytes, &text)
  text.append(" @ heapprofile\n")
  withUnsafeMutablePointer(to: &text) { text in
    profile.pointee.forEach { stack, entry in
      writeFigures(
        entry.pointee.live, entry.pointee.liveBytes,
        entry.pointee.allocations.load(ordering: .relaxed),
        entry.pointee.allocatedBytes.load(ordering: .relaxed), &text.pointee)
      text.pointee.append(" @")
      forEachFrame(stack) { pc in
        text.pointee.append(" ")
        // Readers of this form expect return addresses.
        text.pointee.append(hexadecimal: pc &+ 1)
      }
      text.pointee.append("\n")
    }
  }
  text.append("\nMAPPED_LIBRARIES:\n")
  text.flush()
}

private func writeFigures(
  _ live: UInt, _ liveBytes: UInt, _ allocations: UInt, _ allocatedBytes: UInt, _ text: inout Text
) {
  let scale = UInt(bitPattern: Int(debug.pointee.sampleEvery))
  text.append(decimal: live &* scale)
  text.append(": ")
  text.append(decimal: liveBytes &* scale)
  text.append(" [")
  text.append(decimal: allocations &* scale)
  text.append(": ")
  text.append(decimal: allocatedBytes &* scale)
  text.append("]")
}

/// Appends /proc/self/maps, by which addresses become places in files.
private func copyMappings(to file: Int32) {
  let path: StaticString = "/proc/thread-self/maps"
  let maps = keg_syscall6(
    257 /* openat */, -100, Int(bitPattern: path.utf8Start), 0o2000000 /* RDONLY CLOEXEC */, 0, 0, 0)
  guard maps >= 0 else { return }
  var buffer = InlineArray<4096, UInt8>(repeating: 0)
  var span = buffer.mutableSpan
  span.withUnsafeMutableBufferPointer { bytes in
    // Never nil: 4096 bytes.
    let start = Int(bitPattern: bytes.baseAddress.unsafelyUnwrapped)
    while true {
      let count = keg_syscall6(0 /* read */, maps, start, 4096, 0, 0, 0)
      if count <= 0 { break }
      _ = keg_syscall6(Int(KEG_SYS_write), Int(file), start, count, 0, 0, 0)
    }
  }
  _ = keg_syscall6(3 /* close */, maps, 0, 0, 0, 0, 0)
}
