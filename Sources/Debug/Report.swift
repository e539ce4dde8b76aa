// Report.swift: how a finding is written for people.
//
//   kegmalloc: ERROR: overflow: write past the end of a block at 0x7f…
//     thread 4711, 40 bytes by malloc at 0x7f…, offset 40, zone malloc-80
//     detected by thread 4711:
//       #0 0x55… main+0x1f (/bin/x+0x1139)
//     allocated by thread 4711: …
//     freed by thread 4711: …
//     bytes:
//       0x7f…  de ad …[00]…
//
// A report is put together in one buffer and goes out in one write, by the system
// call: never through the program's stdio. With `json_file` it is one line of JSON.

import Base
import DebugPlatform
import Keg
import Malloc
import Platform

/// Collects text in the report buffer, which the report lock protects.
struct ReportText: ~Copyable {
  var used = 0

  init() {}

  mutating func append(_ string: StaticString) {
    var i = 0
    while i < string.utf8CodeUnitCount {
      append(byte: string.utf8Start[i])
      i &+= 1
    }
  }

  mutating func append(byte: UInt8) {
    if used < Int(KEG_REPORT_BYTES) {
      keg_report_buffer()[used] = byte
      used &+= 1
    }
  }

  mutating func append(cString: UnsafePointer<CChar>) {
    var i = 0
    while cString[i] != 0, i < 4096 {
      append(byte: UInt8(bitPattern: cString[i]))
      i &+= 1
    }
  }

  mutating func append(decimal value: UInt) {
    if value >= 10 { append(decimal: value / 10) }
    append(byte: UInt8(truncatingIfNeeded: 48 &+ value % 10))
  }

  mutating func append(signed value: Int) {
    if value < 0 { append("-") }
    append(decimal: value.magnitude)
  }

  mutating func append(hexadecimal value: UInt) {
    append("0x")
    appendDigits(value)
  }

  private mutating func appendDigits(_ value: UInt) {
    if value >= 16 { appendDigits(value &>> 4) }
    append(digit: UInt8(truncatingIfNeeded: value & 15))
  }

  mutating func append(digit: UInt8) { append(byte: digit < 10 ? 48 &+ digit : 87 &+ digit) }

  mutating func append(byteInHexadecimal byte: UInt8) {
    append(digit: byte &>> 4)
    append(digit: byte & 15)
  }

  /// Writes it all in one call. The last byte is a newline also if room ran out.
  mutating func send(to descriptor: Int32) {
    if used == Int(KEG_REPORT_BYTES) { keg_report_buffer()[used &- 1] = 10 }
    if descriptor >= 0 {
      keg_debug_write(descriptor, keg_report_buffer(), UInt(bitPattern: used))
    }
    used = 0
  }
}

/// Writes a new finding where the options want it. Called with the report lock held.
func write(_ finding: Finding, _ number: UInt) {
  var text = ReportText()
  if Core.option(.debugJSONFile) != 0 {
    writeJSON(finding, number, &text)
    text.send(to: openReport(.debugJSONFile))
    return
  }
  writeText(finding, &text)
  text.send(to: openReport(.debugLogFile))
}

private func writeText(_ finding: Finding, _ text: inout ReportText) {
  text.append("kegmalloc: ERROR: ")
  text.append(finding.kind.name)
  text.append(": ")
  text.append(finding.what)
  if let number = finding.number {
    text.append(" (")
    text.append(decimal: number)
    text.append(")")
  }
  text.append(" at ")
  text.append(hexadecimal: finding.address)
  text.append("\n  process ")
  text.append(decimal: UInt(debug.pointee.pid))
  text.append(", thread ")
  text.append(decimal: UInt(threadID()))
  if let item = finding.item {
    text.append(": ")
    text.append(decimal: item.record.size)
    text.append(" bytes by ")
    text.append(item.record.kind.name)
    text.append(" at ")
    text.append(hexadecimal: item.user)
    text.append(", offset ")
    text.append(signed: Int(bitPattern: finding.address &- item.user))
    text.append(", zone ")
    if let zone = finding.zone ?? item.zone {
      text.append(cString: zone)
    } else {
      text.append(item.isGuarded ? "guard" : "large")
    }
  }
  if let zone = finding.givenTo {
    text.append(", given to zone ")
    text.append(cString: zone)
  }
  text.append("\n")
  writeStack("  detected by thread ", UInt(threadID()), finding.stack, &text)
  if let item = finding.item {
    let record = item.record
    writeStack(
      "  allocated by thread ", UInt(record.allocationThread),
      record.pointee.allocationStack, &text)
    if record.freeThread != 0 {
      writeStack("  freed by thread ", UInt(record.freeThread), record.pointee.freeStack, &text)
    }
    if let damage = finding.damage { drawBytes(damage, item, &text) }
  }
}

func writeStack(
  _ title: StaticString, _ thread: UInt, _ stack: StackID, _ text: inout ReportText
) {
  text.append(title)
  text.append(decimal: thread)
  if stack == 0 {
    text.append(", stack unknown\n")
    return
  }
  text.append(":\n")
  var number: UInt = 0
  withUnsafeMutablePointer(to: &text) { text in
    forEachFrameAndJump(stack) { pc in
      text.pointee.append("    #")
      text.pointee.append(decimal: number)
      text.pointee.append(" ")
      text.pointee.append(hexadecimal: pc)
      describeFrame(pc) { frame in
        if let function = frame.function {
          text.pointee.append(" ")
          text.pointee.append(cString: function)
          text.pointee.append("+")
          text.pointee.append(hexadecimal: frame.functionOffset)
        }
        if let module = frame.module {
          text.pointee.append(" (")
          text.pointee.append(cString: module)
          text.pointee.append("+")
          text.pointee.append(hexadecimal: frame.moduleOffset)
          text.pointee.append(")")
        }
      }
      text.pointee.append("\n")
      number &+= 1
    }
  }
}

/// The bytes that a report shows: a line before the damage and up to three from it on,
/// within the slot.
func shownBytes(_ damage: Damage, _ item: Item) -> Damage {
  let first = (damage.start & ~15) &- 16
  let last = min((damage.end &+ 15) & ~15, (damage.start & ~15) &+ 48) &+ 16
  return Damage(
    start: max(first, min(item.slot, damage.start) & ~15), end: min(last, max(item.end, damage.end)))
}

/// Lines of 16 bytes; damaged ones in brackets, the block's bounds as `|`.
private func drawBytes(_ damage: Damage, _ item: Item, _ text: inout ReportText) {
  text.append("  bytes, [damaged], | start and end of the block:\n")
  let shown = shownBytes(damage, item)
  var address = shown.start
  while address < shown.end {
    if address == shown.start || address.isMultiple(ofPowerOfTwo: 16) {
      if address != shown.start { text.append("\n") }
      text.append("    ")
      text.append(hexadecimal: address)
      text.append(" ")
    }
    let isBound = address == item.user || address == item.userEnd
    text.append(isBound ? "|" : " ")
    let isDamaged = address >= damage.start && address < damage.end
    if isDamaged { text.append("[") }
    text.append(byteInHexadecimal: address.byte)
    if isDamaged { text.append("]") }
    address = address &+ 1
  }
  text.append("\n")
}
