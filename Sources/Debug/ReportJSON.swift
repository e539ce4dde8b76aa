// ReportJSON.swift: the same for machines: one object a line (docs/debugging.md).

import Base
import DebugPlatform
import Keg
import Malloc
import Platform

extension ReportText {
  /// `"key":`, with a comma before all but the first.
  mutating func key(_ name: StaticString, first: Bool = false) {
    append(first ? "\"" : ",\"")
    append(name)
    append("\":")
  }

  mutating func quoted(_ string: StaticString) {
    append("\"")
    append(string)
    append("\"")
  }

  mutating func quoted(cString: UnsafePointer<CChar>) {
    append("\"")
    var i = 0
    while cString[i] != 0, i < 4096 {
      let byte = UInt8(bitPattern: cString[i])
      if byte == 0x22 || byte == 0x5C {
        append("\\")
        append(byte: byte)
      } else if byte < 0x20 {
        append("\\u00")
        append(byteInHexadecimal: byte)
      } else {
        append(byte: byte)
      }
      i &+= 1
    }
    append("\"")
  }

  mutating func quoted(address: UInt) {
    append("\"")
    append(hexadecimal: address)
    append("\"")
  }

  /// `{"thread":1,"frames":[…]}`
  mutating func stack(_ thread: UInt, _ stack: StackID) {
    append("{\"thread\":")
    append(decimal: thread)
    append(",\"frames\":[")
    if stack != 0 {
      var isFirst = true
      withUnsafeMutablePointer(to: &self) { text in
        forEachFrameAndJump(stack) { pc in
          text.pointee.append(isFirst ? "{\"pc\":" : ",{\"pc\":")
          isFirst = false
          text.pointee.quoted(address: pc)
          describeFrame(pc) { frame in
            if let module = frame.module {
              text.pointee.key("module")
              text.pointee.quoted(cString: module)
              text.pointee.key("offset")
              text.pointee.quoted(address: frame.moduleOffset)
            }
            if let function = frame.function {
              text.pointee.key("function")
              text.pointee.quoted(cString: function)
            }
          }
          text.pointee.append("}")
        }
      }
    }
    append("]}")
  }
}

func writeJSON(_ finding: Finding, _ number: UInt, _ text: inout ReportText) {
  text.append("{")
  text.key("kind", first: true)
  text.quoted("finding")
  text.key("id")
  text.append(decimal: number)
  text.key("class")
  text.quoted(finding.kind.name)
  text.key("what")
  text.quoted(finding.what)
  if let number = finding.number {
    text.key("number")
    text.append(decimal: number)
  }
  text.key("address")
  text.quoted(address: finding.address)
  text.key("pid")
  text.append(decimal: UInt(debug.pointee.pid))
  text.key("thread")
  text.append(decimal: UInt(threadID()))
  text.key("time_ms")
  text.append(decimal: UInt(milliseconds()))
  if let item = finding.item { describe(item, finding, &text) }
  if let zone = finding.givenTo {
    text.key("given_to")
    text.quoted(cString: zone)
  }
  text.key("access")
  switch finding.access {
  case .none: text.append("null")
  case .read: text.quoted("read")
  case .write: text.quoted("write")
  }
  text.key("count")
  text.append("1")
  text.key("stacks")
  text.append("{")
  text.key("detected", first: true)
  text.stack(UInt(threadID()), finding.stack)
  if let record = finding.item?.record {
    text.key("allocated")
    text.stack(UInt(record.allocationThread), record.pointee.allocationStack)
    if record.freeThread != 0 {
      text.key("freed")
      text.stack(UInt(record.freeThread), record.pointee.freeStack)
    }
  }
  text.append("}")
  if let item = finding.item, let damage = finding.damage { writeBytes(damage, item, &text) }
  text.append("}\n")
}

private func describe(_ item: Item, _ finding: Finding, _ text: inout ReportText) {
  text.key("zone")
  if let zone = finding.zone ?? item.zone { text.quoted(cString: zone) } else { text.quoted(item.isGuarded ? "guard" : "large") }
  text.key("size")
  text.append(decimal: item.record.size)
  text.key("offset")
  text.append(signed: Int(bitPattern: finding.address &- item.user))
  text.key("block")
  text.quoted(address: item.user)
  text.key("allocation")
  text.quoted(item.record.kind.name)
}

private func writeBytes(_ damage: Damage, _ item: Item, _ text: inout ReportText) {
  let shown = shownBytes(damage, item)
  text.key("bytes")
  text.append("{")
  text.key("address", first: true)
  text.quoted(address: shown.start)
  text.key("hex")
  text.append("\"")
  var address = shown.start
  while address < shown.end {
    text.append(byteInHexadecimal: address.byte)
    address = address &+ 1
  }
  text.append("\"")
  text.key("item_offset")
  text.append(signed: Int(bitPattern: shown.start &- item.user))
  text.key("damage_start")
  text.quoted(address: damage.start)
  text.key("damage_end")
  text.quoted(address: damage.end)
  text.append("}")
}

/// The line at the end: how much was found and checked.
func writeSummaryJSON(_ summary: Summary, _ text: inout ReportText) {
  text.append("{")
  text.key("kind", first: true)
  text.quoted("summary")
  text.key("pid")
  text.append(decimal: UInt(debug.pointee.pid))
  text.key("errors")
  text.append(decimal: summary.errors)
  text.key("leaks")
  text.append(decimal: summary.leaks)
  text.key("leaked_bytes")
  text.append(decimal: summary.leakedBytes)
  text.key("allocations")
  text.append(decimal: summary.allocations)
  text.key("frees")
  text.append(decimal: summary.frees)
  text.key("quarantine_bytes")
  text.append(decimal: summary.quarantineBytes)
  text.key("guarded")
  text.append(decimal: summary.guarded)
  text.key("unguarded")
  text.append(decimal: summary.unguarded)
  text.append("}\n")
}

func writeRepeatedJSON(_ number: UInt, _ kind: FindingClass, _ count: UInt, _ text: inout ReportText) {
  text.append("{")
  text.key("kind", first: true)
  text.quoted("repeated")
  text.key("pid")
  text.append(decimal: UInt(debug.pointee.pid))
  text.key("id")
  text.append(decimal: number)
  text.key("class")
  text.quoted(kind.name)
  text.key("count")
  text.append(decimal: count)
  text.append("}\n")
}
