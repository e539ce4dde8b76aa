// Block.swift: one suppression of the form { name / kind / frames }.
//
// The frames are a pattern for the innermost part of a stack: a line is one frame,
// `...` any number of them, and what lies further out does not matter.
//
//   fun:  the function, as linked or as written      src:  the source file
//   obj:  the program or library                     ...   any frames
//
// Memcheck's stacks begin with malloc or free itself, ours with their caller:
// first lines that name an allocation function are skipped.

struct Block {
  let name: Bytes
  let error: StaticString?
  private let kind: Bytes
  private var leakKinds: Bytes
  /// At the first frame line.
  private var frames: Lines

  /// Reads a block whose `{` was read, up to and including its `}`.
  init(after lines: inout Lines) {
    let first = lines.next()
    let second = first == nil ? nil : lines.next()
    name = first ?? Bytes(start: nil, count: 0)
    kind = second ?? Bytes(start: nil, count: 0)
    leakKinds = Bytes(start: nil, count: 0)
    frames = lines
    var problem: StaticString? = second == nil ? "the block has no }" : nil
    if let second, problem == nil, !second.isKind { problem = "unknown kind" }
    var isInFrames = false
    var isClosed = false
    while problem == nil, let line = lines.next() {
      if line.isEqual(to: "}") {
        isClosed = true
        break
      }
      if !isInFrames && line.hasPrefix("match-leak-kinds:") {
        leakKinds = line.part(17, line.count)
        frames = lines
      } else if line.isFrame {
        if !isInFrames && line.isAllocationFunction { frames = lines } else { isInFrames = true }
      } else {
        problem = "expected fun:, obj:, src:, ... or }"
      }
    }
    if problem == nil && !isClosed { problem = "the block has no }" }
    error = problem
  }

  /// Whether the block is about findings of this class.
  func concerns(_ findingClass: Bytes, _ leakKind: Bytes) -> Bool {
    guard kind.covers(findingClass) else { return false }
    let kinds = leakKinds.trimmed
    guard kinds.count > 0, leakKind.count > 0, !kinds.isEqual(to: "all") else { return true }
    return kinds.lists(leakKind)
  }

  /// Whether the frame lines cover the innermost frames of the stack.
  func matches(_ stack: borrowing some FrameNames & ~Copyable) -> Bool {
    var at = frames
    var frame = 0
    // Where both go on when the last `...` takes one frame more.
    var afterDots: Lines?
    var dotsEnd = 0
    while true {
      var following = at
      // A block without an error ends with a `}` before its text does.
      let line = following.next() ?? Bytes(start: nil, count: 0)
      if line.count == 0 || line.isEqual(to: "}") { return true }
      if line.isEqual(to: "...") {
        at = following
        afterDots = at
        dotsEnd = frame
      } else if frame < stack.frameCount && Self.frame(frame, of: stack, matches: line) {
        at = following
        frame += 1
      } else {
        guard let after = afterDots, dotsEnd < stack.frameCount else { return false }
        dotsEnd += 1
        frame = dotsEnd
        at = after
      }
    }
  }

  private static func frame(
    _ frame: Int, of stack: borrowing some FrameNames & ~Copyable, matches line: Bytes
  ) -> Bool {
    let pattern = Pattern(whole: line.part(4, line.count))
    if line.hasPrefix("fun:") {
      return pattern.matches(stack.name(.function, of: frame))
        || pattern.matches(stack.name(.linkage, of: frame))
    }
    return pattern.matches(stack.name(line.hasPrefix("obj:") ? .object : .file, of: frame))
  }
}

extension UnsafeRawBufferPointer {
  fileprivate var isFrame: Bool {
    isEqual(to: "...") || hasPrefix("fun:") || hasPrefix("obj:") || hasPrefix("src:")
  }

  /// The kind without the names of the tools before its colon.
  private var withoutTools: Bytes {
    let colon = firstIndex(of: UInt8(ascii: ":"))
    return colon < 0 ? self : part(colon + 1, count).trimmed
  }

  /// Kinds of other tools, which a shared file may hold, are known but match nothing.
  fileprivate var isKind: Bool {
    let colon = firstIndex(of: UInt8(ascii: ":"))
    if colon > 0 && !part(0, colon).lists(Self.ownTool) { return true }
    return withoutTools.isKnownClass
  }

  private static var ownTool: Bytes {
    let word: StaticString = "kegmalloc"
    return Bytes(start: word.utf8Start, count: word.utf8CodeUnitCount)
  }

  private static var memcheck: Bytes {
    let word: StaticString = "Memcheck"
    return Bytes(start: word.utf8Start, count: word.utf8CodeUnitCount)
  }

  /// Whether a block of this kind is about `findingClass`.
  fileprivate func covers(_ findingClass: Bytes) -> Bool {
    let colon = firstIndex(of: UInt8(ascii: ":"))
    let word = withoutTools
    if colon < 0 || part(0, colon).lists(Self.ownTool) {
      return word.isEqual(to: findingClass) || word.isEqual(to: "*")
    }
    guard part(0, colon).lists(Self.memcheck) else { return false }
    if word.isEqual(to: "Leak") { return findingClass.isEqual(to: "leak") }
    if word.isEqual(to: "Free") {
      return findingClass.isEqual(to: "double-free") || findingClass.isEqual(to: "invalid-free")
        || findingClass.isEqual(to: "mismatch")
    }
    return word.hasPrefix("Addr")
      && (findingClass.isEqual(to: "use-after-free") || findingClass.isEqual(to: "overflow")
        || findingClass.isEqual(to: "underflow"))
  }

  /// A frame line that names a function of the malloc family.
  fileprivate var isAllocationFunction: Bool {
    guard hasPrefix("fun:") else { return false }
    let name = part(4, count)
    return name.isEqual(to: "malloc") || name.isEqual(to: "free") || name.isEqual(to: "calloc")
      || name.isEqual(to: "realloc") || name.isEqual(to: "memalign")
      || name.isEqual(to: "posix_memalign") || name.isEqual(to: "aligned_alloc")
      || name.isEqual(to: "*alloc") || name.hasPrefix("_Zn") || name.hasPrefix("_Zd")
      || name.hasPrefix("operator new") || name.hasPrefix("operator delete")
  }
}
