// Options+Debug.swift: the rows of the table of options that only the debug library
// heeds. The fast library takes them too, without effect, so that one setting of
// KEGMALLOC_CONF serves both.

package enum GuardAlignMode { package static let auto: UInt = 0, sixteen: UInt = 1, natural: UInt = 2 }
package enum GuardFaultMode { package static let pass: UInt = 0, goOn: UInt = 1 }
package enum OnErrorMode { package static let go: UInt = 0, abort: UInt = 1, exit: UInt = 2 }
package enum UnwindMode {
  package static let auto: UInt = 0, libunwind: UInt = 1, tables: UInt = 2, framePointers: UInt = 3
  package static let off: UInt = 4
}
package enum ProfileMode { package static let none: UInt = 0, alloc: UInt = 1 }
package enum TrashMode { package static let on: UInt = 0, off: UInt = 1 }

package enum LeakCheckMode { package static let exit: UInt = 0, off: UInt = 1 }
package enum LeakShowMode {
  package static let leaks: UInt = 0, stack: UInt = 1, reachable: UInt = 2
}

extension Option {
  var debugDescription: OptionDescription {
    switch self {
    case .debugSample:
      number(
        "sample", "", "1", "1 ... 1000000000", 1, 1, 1_000_000_000,
        "debug: check one allocation in so many; the others are the fast library's")
    case .debugQuarantine:
      number(
        "quarantine", "MiB", "0", "0 ... 1048576", 0, 0, 1_048_576,
        "debug: freed memory kept back from reuse; 0: a sixteenth of the heap, 4 to 64 MiB, at most a tenth of the machine")
    case .debugQuarantineCount:
      number(
        "quarantine_count", "items", "0", "0 ... 1000000000", 0, 0, 1_000_000_000,
        "debug: at most so many freed items kept back; 0: no bound")
    case .debugTrash:
      word(
        "trash", "on", "on|off", TrashMode.on, 1,
        "debug: fill memory on malloc (0xbaddcafe) and free (0xdeadc0de), and check it")
    case .debugGuard:
      text(
        "guard", "off|right|left|sample:N|zone:NAME|size:A-B",
        "debug: put items against a page that faults, on their right or left, all or some")
    case .debugGuardAlign:
      word(
        "guard_align", "auto", "auto|16|natural", GuardAlignMode.auto, 2,
        "debug: alignment of items with a guard page on their right; natural: the power of two that divides the size, so to the byte; auto: that, but in CPython 2 for odd sizes above 32, in Swift 16")
    case .debugGuardLimit:
      number(
        "guard_limit", "MiB", "0", "0 ... 16777216", 0, 0, 16_777_216,
        "debug: memory for items with guard pages, page tables included; 0: a quarter of the machine's or the control group's")
    case .debugGuardFault:
      word(
        "guard_fault", "pass", "pass|go_on", GuardFaultMode.pass, 1,
        "debug: after the report of a guard page: pass the signal to the program, or let the access through")
    case .debugOnError:
      word(
        "on_error", "continue", "continue|abort|exit", OnErrorMode.go, 2,
        "debug: what follows a report")
    case .debugExitCode:
      number(
        "exit_code", "", "99", "0 ... 255", 99, 0, 255,
        "debug: the status of a process in which something was found; 0: its own")
    case .debugLogFile:
      text("log_file", "a path; %p is the process", "debug: where reports go instead of standard error")
    case .debugJSONFile:
      text("json_file", "a path; %p is the process", "debug: where findings go as one JSON object a line")
    case .debugMeanFailures:
      number(
        "mtbf", "calls", "0", "0 ... 1000000000", 0, 0, 1_000_000_000,
        "mean number of allocations between two that are made to fail; 0: none")
    case .debugLimit:
      number(
        "limit", "MiB", "0", "0 ... 1073741824", 0, 0, 1_073_741_824,
        "allocations that would take the program above this fail; 0: no limit")
    case .unwind:
      word(
        "unwind", "auto", "auto|libunwind|tables|fp|off", UnwindMode.auto, 4,
        "debug: stacks from the compilers' tables, checked by libunwind or not; from libunwind alone, slowly; by frame pointers; none")
    case .stackDepth:
      number(
        "stack_depth", "frames", "24", "1 ... 64", 24, 1, 64,
        "debug: how many frames of a stack are kept, the innermost ones")
    case .debugLeakCheck:
      word(
        "leak_check", "exit", "exit|off", LeakCheckMode.exit, 1,
        "debug: look for leaks when the process ends")
    case .debugLeakShow:
      word(
        "leak_show", "leaks", "leaks|stack|reachable", LeakShowMode.leaks, 2,
        "debug: blocks to list: lost ones; also those held by nothing but a stack; also those that are held")
    case .debugLeakSignal:
      number(
        "leak_signal", "", "0", "0 ... 64", 0, 0, 64,
        "debug: a signal after which a helper thread looks for leaks; 0: none")
    case .profile:
      word(
        "profile", "none", "none|alloc", ProfileMode.none, 1,
        "debug: at the end, write who holds memory and who allocated how much, for pprof")
    case .profileFile:
      text(
        "profile_file", "a path; %p is the process",
        "debug: where the profile goes; kegmalloc.%p.heap without it")
    default:
      number("", "", "0", "0 ... 0", 0, 0, 0, "")
    }
  }
}
