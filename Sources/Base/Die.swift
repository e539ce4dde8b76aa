// Die.swift: the end of a process whose heap is known to be corrupt.
//
// One line on standard error, prefix `kegmalloc: `, then SIGABRT. fatalError
// and precondition are deleted by -Ounchecked, so the core never uses them.

import Platform

/// Writes `kegmalloc: <what>` and aborts.
@inline(never)
package func die(_ what: StaticString) -> Never {
  var text = Text(to: 2)
  text.append("kegmalloc: ")
  text.append(what)
  text.append("\n")
  text.flush()
  keg_abort()
}

/// Writes `kegmalloc: <what> 0x<address> (zone <zone>)` and aborts.
@inline(never)
package func die(_ what: StaticString, at address: UInt, zone: UnsafePointer<CChar>?) -> Never {
  var text = Text(to: 2)
  text.append("kegmalloc: ")
  text.append(what)
  text.append(" ")
  text.append(hexadecimal: address)
  if let zone {
    text.append(" (zone ")
    text.append(cString: zone)
    text.append(")")
  }
  text.append("\n")
  text.flush()
  keg_abort()
}

/// Writes `kegmalloc: <what><first><and><second>` and aborts; for broken invariants.
@inline(never)
package func die(_ what: StaticString, _ first: UInt, _ and: StaticString, _ second: UInt) -> Never {
  var text = Text(to: 2)
  text.append("kegmalloc: ")
  text.append(what)
  text.append(decimal: first)
  text.append(and)
  text.append(hexadecimal: second)
  text.append("\n")
  text.flush()
  keg_abort()
}

/// Aborts with `what` unless `condition` holds; only in the INVARIANTS build.
@inline(__always)
package func invariant(_ condition: @autoclosure () -> Bool, _ what: StaticString) {
  #if INVARIANTS
    if !condition() { die(what) }
  #endif
}
