// KnownOptions.swift: the one place where the command meets the table of options
// in Base. Kept apart because Base.Option and ArgumentParser.Option share a name.

import Base

extension KnownOption {
  /// Every option of the library, in the order of its table.
  static let all: [KnownOption] = (0..<Option.count).compactMap { index in
    Option(rawValue: index).map { KnownOption($0.description) }
  }

  /// Whether the library takes `key:value`, by its own parser.
  static func libraryAccepts(_ pair: String) -> Bool {
    guard let option = all.firstIndex(where: { pair.hasPrefix($0.key + ":") }).flatMap(Option.init)
    else { return false }
    var options = Options()
    options[option] = .max  // no value of any option
    options.parse(pair, origin: "-o", reportTo: -1)
    return options[option] != .max
  }

  /// What `--stats` stands for.
  static let statisticsAtExit = "stats:exit"

  private init(_ option: OptionDescription) {
    func text(_ string: StaticString) -> String { string.description }
    self.init(
      key: text(option.key), unit: text(option.unit), defaultText: text(option.defaultText),
      rangeText: text(option.rangeText), help: text(option.help))
  }
}
