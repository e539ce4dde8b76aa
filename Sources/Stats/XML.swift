// XML.swift: malloc_info(3), from our data. One <zone> a row, then the totals.

import Base

package func writeXMLHeading(to text: inout Text) {
  text.append("<malloc version=\"kegmalloc-1\">\n")
}

package func writeXML(_ row: ZoneRow, to text: inout Text) {
  text.append("<zone name=\"")
  appendEscaped(row.name, &text)
  text.append("\"")
  attribute(" size=\"", row.size, &text)
  attribute(" used=\"", row.used, &text)
  attribute(" cached=\"", row.inArrays &+ row.inDepot, &text)
  attribute(" free=\"", row.freeInSlabs, &text)
  attribute(" slabs=\"", row.slabCount, &text)
  attribute(" requests=\"", row.requests, &text)
  attribute(" failures=\"", row.failures, &text)
  text.append("/>\n")
}

package func writeXML(_ totals: Totals, to text: inout Text) {
  total("heap", totals.heap, &text)
  total("used-small", totals.usedSmall, &text)
  total("cached", totals.cachedSmall, &text)
  total("free-in-slabs", totals.freeInSlabs, &text)
  total("used-large", totals.usedLarge, &text)
  total("dirty", totals.dirty, &text)
  total("clean", totals.clean, &text)
  total("metadata", totals.metadata, &text)
  text.append("</malloc>\n")
}

private func attribute(_ name: StaticString, _ value: UInt, _ text: inout Text) {
  text.append(name)
  text.append(decimal: value)
  text.append("\"")
}

private func total(_ name: StaticString, _ value: UInt, _ text: inout Text) {
  text.append("<total type=\"")
  text.append(name)
  attribute("\" size=\"", value, &text)
  text.append("/>\n")
}

/// Appends a name as XML writes it inside quotes; names are the program's.
private func appendEscaped(_ name: UnsafePointer<CChar>, _ text: inout Text) {
  var i = 0
  while i < 200, name[i] != 0 {
    let byte = UInt8(bitPattern: name[i])
    switch byte {
    case UInt8(ascii: "<"): text.append("&lt;")
    case UInt8(ascii: "&"): text.append("&amp;")
    case UInt8(ascii: "\""): text.append("&quot;")
    default: text.append(byte: byte)
    }
    i &+= 1
  }
}
