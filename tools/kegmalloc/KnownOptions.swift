// KnownOptions.swift: the one place where the command meets the table of options
// in Base. Kept apart because Base.Option and ArgumentParser.Option share a name.

import Base

extension KnownOption {
  /// Every option of the library. Empty means unknown: then any key is accepted.
  static let all: [KnownOption] = []

  /// What `--stats` stands for.
  static let statisticsAtExit = "stats:1"
}
