// Options+Parse.swift: `key:value,key:value` to values, by the table.

import Platform

extension Options {
  /// Takes over every entry of `text` that is valid.
  /// - Parameters:
  ///   - origin: where the text came from, for the message about a bad entry.
  ///   - descriptor: where that message goes; one line an entry.
  package mutating func parse(
    _ text: UnsafePointer<CChar>, origin: StaticString, reportTo descriptor: Int32 = 2
  ) {
    var entry = Slice(start: text, count: 0)
    while true {
      let character = entry.start[entry.count]
      if character != 0 && character != CChar(0x2C) {
        entry.count &+= 1
        continue
      }
      if entry.count > 0 { take(entry, origin: origin, reportTo: descriptor) }
      if character == 0 { return }
      entry = Slice(start: entry.start + entry.count + 1, count: 0)
    }
  }

  private mutating func take(_ entry: Slice, origin: StaticString, reportTo descriptor: Int32) {
    let colon = entry.index(of: UInt8(ascii: ":"))
    let key = Slice(start: entry.start, count: colon ?? entry.count)
    var i = 0
    while i < Option.count {
      let option = Option(rawValue: i).unsafelyUnwrapped  // consecutive raw values
      let description = option.description
      if key.equals(description.key) {
        if let colon,
          let value = Slice(
            start: entry.start + colon + 1, count: entry.count &- colon &- 1
          ).value(for: description)
        {
          self[option] = value
        } else {
          complain(entry, origin, "has a bad value; expected ", description.rangeText, descriptor)
        }
        return
      }
      i &+= 1
    }
    complain(entry, origin, "is not an option; see kegmalloc run --help-options", "", descriptor)
  }

  private func complain(
    _ entry: Slice, _ origin: StaticString, _ what: StaticString, _ range: StaticString,
    _ descriptor: Int32
  ) {
    var text = Text(to: descriptor)
    text.append("kegmalloc: ")
    text.append(origin)
    text.append(": '")
    var i = 0
    while i < min(entry.count, 100) {
      text.append(byte: UInt8(bitPattern: entry.start[i]))
      i &+= 1
    }
    text.append("' ")
    text.append(what)
    text.append(range)
    text.append("; ignored\n")
    text.flush()
  }
}

/// Some bytes of somebody's string.
private struct Slice {
  let start: UnsafePointer<CChar>
  var count: Int

  func index(of byte: UInt8) -> Int? {
    var i = 0
    while i < count {
      if UInt8(bitPattern: start[i]) == byte { return i }
      i &+= 1
    }
    return nil
  }

  func equals(_ other: StaticString) -> Bool {
    guard count == other.utf8CodeUnitCount else { return false }
    return equals(other.utf8Start)
  }

  func equals(_ bytes: UnsafePointer<UInt8>) -> Bool {
    var i = 0
    while i < count {
      if UInt8(bitPattern: start[i]) != bytes[i] { return false }
      i &+= 1
    }
    return true
  }

  /// The value these bytes stand for, or nil when the option does not take them.
  func value(for description: OptionDescription) -> UInt? {
    if description.isText { return kept() }
    return description.isWord ? word(in: description.rangeText) : number(description)
  }

  /// A copy of these bytes for good, or nil when there are none or too many.
  private func kept() -> UInt? {
    let copy = count > 0 ? keg_keep_text(start, count) : 0
    return copy == 0 ? nil : copy
  }

  private func number(_ description: OptionDescription) -> UInt? {
    guard count > 0, count < 19 else { return nil }
    var value: UInt = 0
    var i = 0
    while i < count {
      let digit = UInt8(bitPattern: start[i]) &- 48
      guard digit < 10 else { return nil }
      value = value &* 10 &+ UInt(digit)
      i &+= 1
    }
    return value >= description.least && value <= description.greatest ? value : nil
  }

  private func word(in words: StaticString) -> UInt? {
    let bytes = words.utf8Start
    let end = words.utf8CodeUnitCount
    var first = 0
    var index: UInt = 0
    while first <= end {
      var last = first
      while last < end, bytes[last] != UInt8(ascii: "|") { last &+= 1 }
      if count == last &- first, equals(bytes + first) { return index }
      index &+= 1
      first = last &+ 1
    }
    return nil
  }
}
