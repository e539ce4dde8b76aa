// LeakRoots.swift: where a program can hold what it allocated: every mapping that can
// be read, is not ours and may have been written to, cut into pieces that are scanned as
// one kind of root each, or not at all.
//
//   main's stack    |  below SP: dead  | SP ·· frames: stack | argv, environment: system |
//   thread's stack  |  below SP: dead  | SP ·· frames: stack | static TLS, thread block: program |
//   ended thread's  |  all dead; its dynamic TLS and its result live                     |
//   C library       |  data, bss (the loader says how far): system                       |
//   read-only file, private  |  pages that were written to before: program (RELRO, sealed data)  |
//   our reservation, our data, the check's own memory: nothing
//   all else        |  program                                                           |
//
// Pure: mappings, threads and cuts go in, pieces come out (LeakRootsTests).

import Base

/// A piece of memory to scan. `.lost`: not to be scanned.
package struct LeakPiece {
  package var start: UInt
  package var end: UInt
  package var kind: LeakKind
  /// Of a file: only the pages that are no longer the file's count.
  package var isFile: Bool

  package init(start: UInt, end: UInt, kind: LeakKind, isFile: Bool = false) {
    self.start = start
    self.end = end
    self.kind = kind
    self.isFile = isFile
  }
}

/// A growing list of pieces in scratch memory.
package struct LeakPieces {
  private let memory: UnsafeMutablePointer<LeakPiece>
  private let capacity: Int
  package private(set) var count = 0

  package init?(capacity: Int, scratch: inout LeakScratch) {
    let start = scratch.take(UInt(bitPattern: capacity &* MemoryLayout<LeakPiece>.stride))
    guard start != 0 else { return nil }
    memory = start.pointer(to: LeakPiece.self)
    self.capacity = capacity
  }

  package subscript(_ index: Int) -> LeakPiece { memory[index] }

  package mutating func append(
    _ start: UInt, _ end: UInt, _ kind: LeakKind, isFile: Bool = false
  ) {
    guard start < end, count < capacity else { return }
    memory[count] = LeakPiece(start: start, end: end, kind: kind, isFile: isFile)
    count &+= 1
  }

  /// By address; few, or nearly in order.
  package func sort() {
    var i = 1
    while i < count {
      let piece = memory[i]
      var j = i
      while j > 0, memory[j &- 1].start > piece.start {
        memory[j] = memory[j &- 1]
        j &-= 1
      }
      memory[j] = piece
      i &+= 1
    }
  }

  /// The first piece that ends above `address`; `count` when there is none. Sorted.
  package func firstIndex(above address: UInt) -> Int {
    var low = 0
    var high = count
    while low < high {
      let middle = (low &+ high) / 2
      if memory[middle].end > address { high = middle } else { low = middle &+ 1 }
    }
    return low
  }
}

/// A thread as the scan sees it.
package struct LeakThread {
  package var tid: Int32
  /// 0: not known, the thread runs on; its stack is scanned whole.
  package var stackPointer: UInt
  package var threadPointer: UInt
  /// Only the thread block is alive: main after it has left by pthread_exit.
  package var hasEnded = false

  package init(tid: Int32, stackPointer: UInt, threadPointer: UInt, hasEnded: Bool = false) {
    self.tid = tid
    self.stackPointer = stackPointer
    self.threadPointer = threadPointer
    self.hasEnded = hasEnded
  }
}

/// What the C library's layout is; see leak_libc.c.
package struct LeakLayout {
  package var stackEnd: UInt
  package var staticTLS: UInt
  package var tidOffset: UInt
  package var resultOffset: UInt
  /// In the child of a fork: the stacks of threads that only the parent has may hold
  /// what is the program's. They count as stacks.
  package var isForked: Bool

  package init(
    stackEnd: UInt, staticTLS: UInt, tidOffset: UInt, resultOffset: UInt, isForked: Bool
  ) {
    self.stackEnd = stackEnd
    self.staticTLS = staticTLS
    self.tidOffset = tidOffset
    self.resultOffset = resultOffset
    self.isForked = isForked
  }

  /// How far from the end of its mapping a thread block is looked for.
  package static var blockReach: UInt { 8192 }
}

package struct LeakRoots {
  package let layout: LeakLayout
  package let threads: UnsafeMutablePointer<LeakThread>
  package let threadCount: Int
  /// Sorted: what is not scanned, or as another kind.
  package let cuts: LeakPieces
  package let read: LeakReader
  package var pieces: LeakPieces
  /// Words to visit alone: pointers to tables of dynamic TLS of threads that ended.
  package var tables: LeakPieces
  private var previous = Mapping()

  package init(
    layout: LeakLayout, threads: UnsafeMutablePointer<LeakThread>, threadCount: Int,
    cuts: LeakPieces, read: @escaping LeakReader, pieces: LeakPieces, tables: LeakPieces
  ) {
    self.read = read
    self.layout = layout
    self.threads = threads
    self.threadCount = threadCount
    self.cuts = cuts
    self.pieces = pieces
    self.tables = tables
  }

  /// Takes the next mapping; they come in the order of their addresses.
  package mutating func take(_ mapping: Mapping) {
    if mapping.isReadable, mapping.name != .untouchable {
      if mapping.isWritable { takeData(mapping) } else { takeReadOnly(mapping) }
    }
    previous = mapping
  }

  /// What the program, or the loader, filled and then made read-only. Of a file's pages
  /// those count that were written to, as relocations and sealed variables are.
  private mutating func takeReadOnly(_ mapping: Mapping) {
    let isFile = mapping.inode != 0 && mapping.name != .none
    if isFile, mapping.isShared { return }
    add(
      mapping.start, mapping.end, mapping.name == .system ? .system : .reachable, isFile: isFile)
  }

  private mutating func takeData(_ mapping: Mapping) {
    let isMain =
      mapping.name == .stack
      || layout.stackEnd > mapping.start && layout.stackEnd < mapping.end
    if isMain, layout.stackEnd > mapping.start, layout.stackEnd < mapping.end {
      return takeMainStack(mapping)
    }
    if mapping.inode == 0, !mapping.isShared, takeThreadStack(mapping) { return }
    add(mapping.start, mapping.end, mapping.name == .system ? .system : .reachable)
  }

  private mutating func takeMainStack(_ mapping: Mapping) {
    var lowest = mapping.start
    var i = 0
    while i < threadCount {
      let thread = threads[i]
      if thread.stackPointer >= mapping.start, thread.stackPointer < layout.stackEnd {
        lowest = thread.stackPointer
      }
      if thread.hasEnded, thread.stackPointer == 0 { lowest = layout.stackEnd }
      if thread.stackPointer >= layout.stackEnd, thread.stackPointer < mapping.end {
        lowest = layout.stackEnd
      }
      i &+= 1
    }
    add(lowest, layout.stackEnd, .stack)
    add(layout.stackEnd, mapping.end, .system)
  }

  /// False: not the stack of a thread that the C library made.
  private mutating func takeThreadStack(_ mapping: Mapping) -> Bool {
    // A stack has a page below it that faults.
    if previous.end == mapping.start, previous.isReadable { return false }
    let block = threadBlock(in: mapping)
    if block == 0 { return false }
    let tid = layout.tidOffset == 0 ? 0 : Int32(truncatingIfNeeded: word(block &+ layout.tidOffset) & 0xFFFF_FFFF)
    let tls = max(mapping.start, mapping.end &- min(layout.staticTLS, mapping.end &- mapping.start))
    var i = 0
    while i < threadCount {
      let thread = threads[i]
      let isHere = thread.stackPointer >= mapping.start && thread.stackPointer < mapping.end
      if isHere || thread.threadPointer == block || thread.tid == tid && tid > 0 {
        // On another stack at the moment, or not stopped: all of it may be alive.
        let lowest = isHere ? thread.stackPointer : mapping.start
        add(lowest, tls, .stack)
        add(max(lowest, tls), mapping.end, .reachable)
        return true
      }
      i &+= 1
    }
    if layout.tidOffset == 0 { return false }
    tables.append(block &+ 8, block &+ 16, .system)
    if layout.isForked {
      add(mapping.start, mapping.end, .stack)
    } else if tid == 0, layout.resultOffset != 0 {
      // Somebody may still join it.
      add(block &+ layout.resultOffset, block &+ layout.resultOffset &+ 8, .reachable)
    }
    return true
  }

  /// The C library's thread block near the end of a mapping: its first word and its
  /// third are its own address. 0: there is none.
  private func threadBlock(in mapping: Mapping) -> UInt {
    let size = mapping.end &- mapping.start
    if size < 16384 { return 0 }
    var address = mapping.end &- 2048
    while address >= mapping.end &- LeakLayout.blockReach {
      if word(address) == address, word(address &+ 16) == address { return address }
      address = address &- 64
    }
    return 0
  }

  /// The word at an address; 0 when it cannot be read.
  private func word(_ address: UInt) -> UInt {
    var word: UInt = 0
    return withUnsafeMutablePointer(to: &word) { read($0, address, 1) } == 1 ? word : 0
  }

  /// Adds [start, end), less the cuts.
  private mutating func add(
    _ start: UInt, _ end: UInt, _ kind: LeakKind, isFile: Bool = false
  ) {
    var address = start
    var i = cuts.firstIndex(above: start)
    while i < cuts.count, cuts[i].start < end {
      let cut = cuts[i]
      if cut.start > address { pieces.append(address, cut.start, kind, isFile: isFile) }
      if cut.kind != .lost {
        pieces.append(max(cut.start, address), min(cut.end, end), cut.kind, isFile: isFile)
      }
      address = max(address, cut.end)
      i &+= 1
    }
    if address < end { pieces.append(address, end, kind, isFile: isFile) }
  }
}
