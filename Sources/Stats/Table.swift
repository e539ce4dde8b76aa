// Table.swift: the zone table for people, as vmstat -z prints the kernel's (U43).

import Base

/// Writes the heading of the zone table.
package func writeHeading(to text: inout Text) {
  text.append(
    "ITEM                SIZE  LIMIT       USED       FREE        REQ  FAIL SLEEP  XDOMAIN  SLABS BUCKET\n")
}

package func write(_ row: ZoneRow, to text: inout Text) {
  var width = 0
  while row.name[width] != 0 { width &+= 1 }
  text.append(cString: row.name)
  text.append(":")
  text.pad(16 &- width)
  text.append(decimal: row.size, width: 7)
  text.append(decimal: row.limit, width: 7)
  text.append(decimal: row.used, width: 11)
  text.append(decimal: row.free, width: 11)
  text.append(decimal: row.requests, width: 11)
  text.append(decimal: row.failures, width: 6)
  text.append(decimal: row.sleeps, width: 6)
  text.append(decimal: row.exchanged, width: 9)
  text.append(decimal: row.slabCount, width: 7)
  text.append(decimal: UInt(bitPattern: row.bucketEntries), width: 7)
  text.append("\n")
}

/// One internal pool: no arrays, no depot.
package func writePool(
  _ name: StaticString, itemBytes: UInt, used: UInt, free: UInt, to text: inout Text
) {
  text.append(name)
  text.append(":")
  text.pad(16 &- name.utf8CodeUnitCount)
  text.append(decimal: itemBytes, width: 7)
  text.append(decimal: 0, width: 7)
  text.append(decimal: used, width: 11)
  text.append(decimal: free, width: 11)
  text.append("\n")
}

/// Writes the totals: lines with + add up to the one with =.
package func write(_ totals: Totals, to text: inout Text) {
  line("  ", totals.usedSmall, "bytes in use in zones", &text)
  line("+ ", totals.cachedSmall, "bytes cached in arrays and depots", &text)
  line("+ ", totals.freeInSlabs, "bytes free in slabs", &text)
  line("+ ", totals.usedLarge, "bytes in use in large blocks", &text)
  line("+ ", totals.dirty, "bytes free and perhaps not zero", &text)
  line("+ ", totals.clean, "bytes free and known zero", &text)
  line("= ", totals.heap, "bytes of heap", &text)
  line("  ", totals.metadata, "bytes of metadata", &text)
  line("  ", totals.purged, "bytes given back so far", &text)
  line("  ", totals.threads, "threads with an array", &text)
}

private func line(_ sign: StaticString, _ value: UInt, _ what: StaticString, _ text: inout Text) {
  text.append(sign)
  text.append(decimal: value, width: 15)
  text.append(" ")
  text.append(what)
  text.append("\n")
}
