// Demangler.swift: C++ and Swift names as people write them, by the functions that
// the runtimes of both languages bring; they are in this process anyway.

import Foundation

enum Demangler {
  /// The readable form of a linker's name, or the name itself.
  static func readable(_ name: String) -> String {
    if name.hasPrefix("_Z") || name.hasPrefix("__Z") { return cxx(name) ?? name }
    if ["$s", "_$s", "$S", "_T0", "$e"].contains(where: name.hasPrefix) {
      return swift(name).map(simplified) ?? name
    }
    return name
  }

  private typealias CxxDemangle = @convention(c) (
    UnsafePointer<CChar>, UnsafeMutablePointer<CChar>?, UnsafeMutablePointer<Int>?,
    UnsafeMutablePointer<Int32>?
  ) -> UnsafeMutablePointer<CChar>?

  private typealias SwiftDemangle = @convention(c) (
    UnsafePointer<CChar>, Int, UnsafeMutablePointer<CChar>?, UnsafeMutablePointer<Int>?, UInt32
  ) -> UnsafeMutablePointer<CChar>?

  private static let cxxFunction: CxxDemangle? = function("__cxa_demangle")
  private static let swiftFunction: SwiftDemangle? = function("swift_demangle")

  private static func function<T>(_ name: String) -> T? {
    dlsym(nil, name).map { unsafeBitCast($0, to: T.self) }
  }

  private static func cxx(_ name: String) -> String? {
    // Clones of a function have a suffix that is no part of the mangled name.
    let (stem, clone) = name.split(at: ".")
    return string(cxxFunction?(stem, nil, nil, nil)).map { shortened($0) + clone }
  }

  /// Without default allocators and the versions of the C++ library's namespaces:
  /// `std::vector<std::string>`.
  static func shortened(_ name: String) -> String {
    var text = name.replacingOccurrences(of: "std::__cxx11::", with: "std::")
      .replacingOccurrences(of: "[abi:cxx11]", with: "")
      .replacingOccurrences(
        of: "std::basic_string<char, std::char_traits<char>, std::allocator<char> >",
        with: "std::string")
    let mark = ", std::allocator<"
    var searched = text.startIndex
    while let start = text.range(of: mark, range: searched..<text.endIndex) {
      var depth = 1
      let end = text[start.upperBound...].firstIndex { letter in
        if letter == "<" { depth += 1 }
        if letter == ">" { depth -= 1 }
        return depth == 0
      }
      guard let end else { break }
      // What follows it closes the container, with a blank between the two.
      let next = text.index(after: end)
      guard text[next...].hasPrefix(" >") else {
        searched = start.upperBound
        continue
      }
      text.removeSubrange(start.lowerBound...next)
      searched = text.startIndex
    }
    return text
  }

  private static func swift(_ name: String) -> String? {
    string(swiftFunction?(name, name.utf8.count, nil, nil, 0))
  }

  /// Takes over a string made by malloc.
  private static func string(_ text: UnsafeMutablePointer<CChar>?) -> String? {
    guard let text else { return nil }
    defer { free(text) }
    return String(cString: text)
  }

  /// Without the names of modules that every Swift name is full of.
  private static func simplified(_ name: String) -> String {
    name.replacingOccurrences(of: "Swift.", with: "")
      .replacingOccurrences(of: "@Sendable ", with: "")
  }
}

extension String {
  /// What is before the first `separator`, and the rest with it.
  fileprivate func split(at separator: Character) -> (String, String) {
    guard let index = firstIndex(of: separator) else { return (self, "") }
    return (String(self[..<index]), String(self[index...]))
  }
}
