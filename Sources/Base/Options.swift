// Options.swift: the one table of options.
//
// Users set options as `key:value,key:value` in KEGMALLOC_CONF, in the program's
// `const char *kegmalloc_conf`, or with `kegmalloc run -o key:value`; the
// environment wins over the program. `describe` is the table: the parser, the
// help text and the manual all read it. A wrong entry is one line on standard
// error and is ignored; nothing here is fatal.

/// Every option, in the order of the help text.
package enum Option: Int {
  case decay = 0
  case background
  case deepBind
  case thp
  case statistics
  case threadCacheBytes
  case reserve
  // What only libkegmalloc-debug.so heeds: Options+Debug.swift.
  case debugSample
  case debugQuarantine
  case debugQuarantineCount
  case debugTrash
  case debugGuard
  case debugGuardAlign
  case debugGuardLimit
  case debugGuardFault
  case debugOnError
  case debugExitCode
  case debugLogFile
  case debugJSONFile
  case debugMeanFailures
  case debugLimit
  case unwind
  case stackDepth
  case debugLeakCheck
  case debugLeakShow
  case debugLeakSignal
  case profile
  case profileFile

  /// How many options there are; their raw values are 0 ..< count.
  package static var count: Int { 28 }
}

package struct OptionDescription {
  package let key: StaticString
  package let unit: StaticString
  /// The default as a user would write it.
  package let defaultText: StaticString
  /// What may be written.
  package let rangeText: StaticString
  package let help: StaticString
  package let defaultValue: UInt
  /// For numbers: the least and the greatest value. For words: 0 and the last
  /// index into the words of `rangeText`, which are separated by `|`.
  package let least: UInt
  package let greatest: UInt
  package let isWord: Bool
  /// Any bytes but a comma; the value is the address of a copy that ends in NUL, 0: unset.
  package var isText = false
}

package enum BackgroundMode { package static let auto: UInt = 0, on: UInt = 1, off: UInt = 2 }
package enum DeepBindMode { package static let clear: UInt = 0, keep: UInt = 1 }
package enum THPMode { package static let system: UInt = 0, never: UInt = 1, always: UInt = 2 }
package enum StatisticsMode { package static let none: UInt = 0, exit: UInt = 1 }

extension Option {
  package var description: OptionDescription {
    switch self {
    case .decay:
      number(
        "decay_ms", "ms", "1000", "0 ... 3600000", 1000, 0, 3_600_000,
        "how long freed pages stay with the process before they go back to the kernel")
    case .background:
      word(
        "background", "auto", "auto|on|off", BackgroundMode.auto, 2,
        "a thread that gives freed pages back while the program idles; auto: from its second thread on")
    case .deepBind:
      word(
        "deepbind", "clear", "clear|keep", DeepBindMode.clear, 1,
        "dlopen: clear RTLD_DEEPBIND, so that plugins share this allocator, or keep it")
    case .thp:
      word(
        "thp", "system", "system|never|always", THPMode.system, 2,
        "transparent huge pages for the heap: the system's setting, never, or wherever possible")
    case .statistics:
      word(
        "stats", "none", "none|exit", StatisticsMode.none, 1,
        "exit: print the zone table to standard error when the process ends")
    case .threadCacheBytes:
      number(
        "thread_cache", "KiB", "2048", "0 ... 1048576", 2048, 0, 1_048_576,
        "how many bytes of free items one thread may keep for itself")
    case .reserve:
      number(
        "reserve", "GiB", "4096", "1 ... 65536", 4096, 1, 65536,
        "address space asked for at start; halved until the kernel agrees")
    default:
      debugDescription
    }
  }

  func number(
    _ key: StaticString, _ unit: StaticString, _ defaultText: StaticString,
    _ rangeText: StaticString, _ defaultValue: UInt, _ least: UInt, _ greatest: UInt,
    _ help: StaticString
  ) -> OptionDescription {
    OptionDescription(
      key: key, unit: unit, defaultText: defaultText, rangeText: rangeText, help: help,
      defaultValue: defaultValue, least: least, greatest: greatest, isWord: false)
  }

  func word(
    _ key: StaticString, _ defaultText: StaticString, _ rangeText: StaticString,
    _ defaultValue: UInt, _ greatest: UInt, _ help: StaticString
  ) -> OptionDescription {
    OptionDescription(
      key: key, unit: "", defaultText: defaultText, rangeText: rangeText, help: help,
      defaultValue: defaultValue, least: 0, greatest: greatest, isWord: true)
  }

  func text(_ key: StaticString, _ rangeText: StaticString, _ help: StaticString) -> OptionDescription {
    OptionDescription(
      key: key, unit: "", defaultText: "", rangeText: rangeText, help: help,
      defaultValue: 0, least: 0, greatest: 0, isWord: false, isText: true)
  }
}

/// The values in force. Written once at boot, read by slow paths.
package struct Options {
  private var values: InlineArray<64, UInt>

  /// Every option 0, until `setDefaults`: a constant, so that the allocator's
  /// global state needs no code to come into being.
  package init() {
    values = InlineArray(repeating: 0)
  }

  /// Sets every option to its default.
  package mutating func setDefaults() {
    var i = 0
    while i < Option.count {
      // Never nil: raw values are consecutive.
      values[i] = Option(rawValue: i).unsafelyUnwrapped.description.defaultValue
      i &+= 1
    }
  }

  package subscript(_ option: Option) -> UInt {
    get { values[option.rawValue] }
    set { values[option.rawValue] = newValue }
  }
}
