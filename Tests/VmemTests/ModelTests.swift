// ModelTests.swift: random operations against a model that looks at every integer.
//
// The model is one state per integer of a small arena. An allocation must find
// a place exactly when the model has one, and a segment that claims to be clean
// must be so in the model.

import Testing
import Vmem

private enum Cell: Equatable {
  case outside, clean, dirty, busy, withdrawn
  var isFree: Bool { self == .clean || self == .dirty }
}

private struct Request {
  var size = 1
  var alignment = 1
  var phase = 0
  var nocross = 0
  var minimum = 0
  var maximum = Int.max

  func allows(_ start: Int) -> Bool {
    start % alignment == phase && start >= minimum && start + size - 1 <= maximum
      && (nocross == 0 || start / nocross == (start + size - 1) / nocross)
  }
}

private struct Model {
  static let cellCount = 80
  static let spans = [3..<35, 40..<75]
  let arena: TestArena
  var cells = [Cell](repeating: .outside, count: cellCount)
  var busy: [TagPointer] = []
  var withdrawn: [TagPointer] = []
  var generator: SeededGenerator
  var time: UInt64 = 1

  init(_ arena: TestArena, seed: UInt64) {
    self.arena = arena
    generator = SeededGenerator(seed: seed)
    for span in Model.spans {
      if !arena.addSpan(UInt(span.lowerBound), UInt(span.count)) { Issue.record("span") }
      for cell in span { cells[cell] = .clean }
    }
  }

  mutating func random(_ bound: Int) -> Int { Int(generator.next() % UInt64(bound)) }

  /// Whether the model has room; `uniform`: in free integers of one kind.
  func hasRoom(_ request: Request, uniform: Bool) -> Bool {
    var run = 0
    for cell in 0..<Model.cellCount {
      let goesOn = cells[cell].isFree && cell > 0 && (!uniform || cells[cell] == cells[cell - 1])
      run = !cells[cell].isFree ? 0 : goesOn ? run + 1 : 1
      if run >= request.size, request.allows(cell - request.size + 1) { return true }
    }
    return false
  }

  func range(_ tag: TagPointer) -> Range<Int> { Int(tag.pointee.start)..<Int(tag.pointee.end) }

  mutating func allocate(_ request: Request, _ tag: TagPointer?) -> Bool {
    guard let tag else { return !hasRoom(request, uniform: false) }
    let place = range(tag)
    if place.count != request.size || !request.allows(place.lowerBound) { return false }
    let wasUniform = hasRoom(request, uniform: true)
    for cell in place {
      if !cells[cell].isFree || (!tag.pointee.isDirty && cells[cell] == .dirty) { return false }
      cells[cell] = .busy
    }
    busy.append(tag)
    // Joining neighbours of both kinds makes the clean ones count as dirty.
    return wasUniform || tag.pointee.isDirty && adoptDirt()
  }

  /// Takes over which free integers count as dirty; none may turn clean.
  mutating func adoptDirt() -> Bool {
    var isRight = true
    arena.walk { tag in
      guard tag.pointee.kind == .free else { return }
      for cell in range(tag) {
        if cells[cell] == .dirty, !tag.pointee.isDirty { isRight = false }
        if tag.pointee.isDirty { cells[cell] = .dirty }
      }
    }
    return isRight
  }

  mutating func constrained() -> Bool {
    var request = Request(size: 1 + random(12))
    request.alignment = 1 << random(5)
    if random(2) == 0 { request.phase = random(request.alignment) }
    if random(3) == 0 { request.nocross = 16 << random(2) }
    if random(3) == 0 { request.minimum = random(60) }
    if random(3) == 0 { request.maximum = request.minimum + random(60) }
    let tag = arena.allocate(
      UInt(request.size), alignment: UInt(request.alignment), phase: UInt(request.phase),
      nocross: UInt(request.nocross), minimum: UInt(request.minimum),
      maximum: UInt(request.maximum), fit: random(2) == 0 ? .instant : .best)
    return allocate(request, tag)
  }

  mutating func free() -> Bool {
    let tag = busy.remove(at: random(busy.count))
    let isDirty = random(2) == 0
    for cell in range(tag) { cells[cell] = isDirty ? .dirty : .clean }
    time += 1
    arena.free(tag, dirty: isDirty, stamp: time)
    return true
  }

  mutating func grow() -> Bool {
    let tag = busy[random(busy.count)]
    let old = range(tag)
    let size = old.count + random(8)
    let added = old.upperBound..<(old.lowerBound + size)
    let fits = added.upperBound <= Model.cellCount && added.allSatisfy { cells[$0].isFree }
    let growth = arena.grow(tag, to: UInt(size))
    guard fits else { return growth == .failed && range(tag) == old }
    let isDirty = added.contains { cells[$0] == .dirty }
    for cell in added { cells[cell] = .busy }
    return growth == (isDirty ? .dirty : .clean) && range(tag).count == size
  }

  mutating func shrink() -> Bool {
    let tag = busy[random(busy.count)]
    let old = range(tag)
    guard old.count > 1 else { return true }
    let size = 1 + random(old.count - 1)
    let isDirty = random(2) == 0
    time += 1
    for cell in (old.lowerBound + size)..<old.upperBound { cells[cell] = isDirty ? .dirty : .clean }
    return arena.shrink(tag, to: UInt(size), dirty: isDirty, stamp: time)
  }

  mutating func withdraw() -> Bool {
    let limit = 1 + random(6)
    let latest = UInt64(random(Int(time) + 2))
    guard let tag = arena.withdrawDirty(notAfter: latest, atMost: UInt(limit)) else {
      return latest < time || !cells.contains(.dirty)
    }
    let place = range(tag)
    let isRight = place.count <= limit && place.allSatisfy { cells[$0] == .dirty }
    for cell in place { cells[cell] = .withdrawn }
    withdrawn.append(tag)
    return isRight && tag.pointee.stamp <= latest
  }

  mutating func returnPurged() -> Bool {
    let tag = withdrawn.remove(at: random(withdrawn.count))
    let isClean = random(3) != 0
    for cell in range(tag) { cells[cell] = isClean ? .clean : .dirty }
    time += 1
    arena.returnPurged(tag, clean: isClean, stamp: time)
    return true
  }

  mutating func step() -> Bool {
    switch random(16) {
    case 0..<4:
      let request = Request(size: 1 + random(14))
      return allocate(request, arena.allocate(UInt(request.size)))
    case 4..<6: return constrained()
    case 6..<11: return busy.isEmpty || free()
    case 11: return busy.isEmpty || grow()
    case 12: return busy.isEmpty || shrink()
    case 13, 14: return withdraw()
    default: return withdrawn.isEmpty || returnPurged()
    }
  }

  /// Whether the arena's segments are the model's.
  func matches() -> Bool {
    var isRight = true
    var covered = 0
    arena.walk { tag in
      if tag.pointee.isSpan { return }
      let state: Cell =
        switch tag.pointee.kind {
        case .free: tag.pointee.isDirty ? .dirty : .clean
        case .busy: .busy
        default: .withdrawn
        }
      for cell in range(tag) where cells[cell] != state { isRight = false }
      covered += Int(tag.pointee.size)
    }
    return isRight && covered == Model.spans.reduce(0) { $0 + $1.count }
  }
}

@Suite struct ModelTests {
  let fixture = Fixture()

  @Test("A02, A04: 100,000 random operations agree with a model of every integer")
  func randomWalk() {
    let seed = UInt64.random(in: 0 ... .max)
    print("seed \(seed)")
    var model = Model(fixture.arena(), seed: seed)
    for count in 0..<100_000 {
      let isRight = model.step()
      model.arena.checkInvariants()
      if !isRight || !model.matches() {
        Issue.record("operation \(count) of seed \(seed) differs from the model")
        return
      }
    }
    #expect(model.arena.tagCount == fixture.tags.pointee.usedCount)
  }
}
