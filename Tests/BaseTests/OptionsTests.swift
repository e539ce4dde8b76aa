import Base
import Testing
import TestSupport

private func defaults() -> Options {
  var options = Options()
  options.setDefaults()
  return options
}

/// The options after `text`, and what was written about it.
private func parsed(
  _ text: String, from start: Options = defaults(), origin: StaticString = "TEST"
) -> (options: Options, report: String) {
  var options = start
  let report = writtenToDescriptor { options.parse(text, origin: origin, reportTo: $0) }
  return (options, report)
}

private func values(_ options: Options) -> [UInt] {
  Option.all.map { options[$0] }
}

extension Option {
  fileprivate static var all: [Option] { (0..<count).map { Option(rawValue: $0)! } }
  fileprivate var key: String { "\(description.key)" }
  fileprivate var words: [String] {
    "\(description.rangeText)".split(separator: "|").map(String.init)
  }
}

@Suite struct OptionsTests {
  @Test("the table is consistent: keys differ, defaults are in range and as written")
  func table() {
    #expect(Option(rawValue: Option.count) == nil)
    #expect(Set(Option.all.map(\.key)).count == Option.count)
    for option in Option.all {
      let row = option.description
      #expect(row.least <= row.defaultValue && row.defaultValue <= row.greatest)
      #expect(row.help.utf8CodeUnitCount > 0)
      if row.isText {
        #expect(row.defaultValue == 0 && "\(row.defaultText)" == "" && row.rangeText.utf8CodeUnitCount > 0)
      } else if row.isWord {
        #expect(option.words.count == Int(row.greatest) + 1)
        #expect(option.words[Int(row.defaultValue)] == "\(row.defaultText)")
      } else {
        #expect(String(row.defaultValue) == "\(row.defaultText)")
        #expect("\(row.rangeText)" == "\(row.least) ... \(row.greatest)")
      }
    }
  }

  @Test("before setDefaults everything is 0, after it the table's default")
  func defaultValues() {
    #expect(values(Options()).allSatisfy { $0 == 0 })
    #expect(values(defaults()) == Option.all.map(\.description.defaultValue))
  }

  @Test("every word of every option is taken as its index")
  func words() {
    for option in Option.all where option.description.isWord {
      for (index, word) in option.words.enumerated() {
        let (options, report) = parsed("\(option.key):\(word)")
        #expect(options[option] == UInt(index))
        #expect(report == "")
      }
    }
  }

  @Test("every number option takes its least and greatest value and nothing beyond")
  func limits() {
    for option in Option.all where !option.description.isWord && !option.description.isText {
      let row = option.description
      for value in [row.least, row.greatest] {
        let (options, report) = parsed("\(option.key):\(value)")
        #expect(options[option] == value)
        #expect(report == "")
      }
      var bad = [row.greatest + 1, UInt.max]
      if row.least > 0 { bad.append(row.least - 1) }
      for value in bad {
        let (options, report) = parsed("\(option.key):\(value)")
        #expect(values(options) == values(defaults()))
        #expect(
          report == "kegmalloc: TEST: '\(option.key):\(value)' has a bad value; expected "
            + "\(row.rangeText); ignored\n")
      }
    }
  }

  @Test("a text option takes any bytes but a comma, keeps a copy, and needs at least one")
  func texts() {
    for option in Option.all where option.description.isText {
      let (options, report) = parsed("\(option.key):/a %p:b,decay_ms:7")
      #expect(String(cString: UnsafePointer<CChar>(bitPattern: options[option])!) == "/a %p:b")
      #expect(options[.decay] == 7)
      #expect(report == "")
      #expect(parsed("\(option.key):").report.contains(" has a bad value; expected "))
    }
  }

  @Test(
    "a bad value is one line and ignored",
    arguments: [
      "decay_ms", "decay_ms:", "decay_ms:-1", "decay_ms:1s", "decay_ms: 1", "decay_ms:1:2",
      "deepbind:", "deepbind:Keep", "deepbind:clear|keep", "deepbind:kee", "deepbind:keeps", "thp",
      "decay_ms:99999999999999999999999999", "stats:exit ",
    ])
  func badValues(entry: String) {
    let (options, report) = parsed(entry)
    #expect(values(options) == values(defaults()))
    #expect(report.hasPrefix("kegmalloc: TEST: '\(entry)' has a bad value; expected "))
    #expect(report.split(separator: "\n", omittingEmptySubsequences: false).count == 2)
  }

  @Test("a bad key is one line and ignored", arguments: ["nope:1", "decay", "Decay_ms:1", ":1", "decay_msx:1"])
  func badKeys(entry: String) {
    let (options, report) = parsed(entry)
    #expect(values(options) == values(defaults()))
    #expect(
      report == "kegmalloc: TEST: '\(entry)' is not an option; see kegmalloc run --help-options"
        + "; ignored\n")
  }

  @Test("entries are separated by commas; empty ones are nothing; the last of a key wins")
  func several() {
    let (options, report) = parsed(",,decay_ms:7,,deepbind:keep,decay_ms:8,")
    #expect(options[.decay] == 8)
    #expect(options[.deepBind] == DeepBindMode.keep)
    #expect(report == "")
    #expect(values(parsed("").options) == values(defaults()))
  }

  @Test("a bad entry between good ones costs one line and nothing else")
  func mixed() {
    let (options, report) = parsed("decay_ms:7,nope,thp:never,deepbind:x")
    #expect(options[.decay] == 7)
    #expect(options[.thp] == THPMode.never)
    #expect(options[.deepBind] == DeepBindMode.clear)
    #expect(report.split(separator: "\n").count == 2)
  }

  @Test("the environment, parsed after the program, wins entry by entry")
  func order() {
    let program = parsed("decay_ms:7,deepbind:keep", origin: "kegmalloc_conf").options
    let both = parsed("decay_ms:9", from: program, origin: "KEGMALLOC_CONF").options
    #expect(both[.decay] == 9)
    #expect(both[.deepBind] == DeepBindMode.keep)
    let (_, report) = parsed("x:1", from: program, origin: "KEGMALLOC_CONF")
    #expect(report.hasPrefix("kegmalloc: KEGMALLOC_CONF: 'x:1' "))
  }

  @Test("of a very long entry the message shows 100 bytes, still on one line")
  func longEntry() {
    let (_, report) = parsed(String(repeating: "k", count: 5000))
    #expect(report.contains("'" + String(repeating: "k", count: 100) + "' is not an option"))
    #expect(report.split(separator: "\n").count == 1)
  }
}
