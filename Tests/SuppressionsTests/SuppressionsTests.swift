import Testing

@Suite("Suppressions: rules")
struct SuppressionsTests {
  let frames = [
    Frame("copy(char const*)", linkage: "_Z4copyPKc", file: "/src/text.cc", object: "/lib/libtext.so.2"),
    Frame("Parser::read<int>()", linkage: "_ZN6Parser4readIiEEvv", file: "/src/parser.cc"),
    Frame("main", linkage: "main", file: "/src/main.cc"),
    Frame("__libc_start_main", object: "/lib/libc.so.6"),
  ]

  @Test(
    "a one-line rule looks at every name of every frame",
    arguments: ["copy", "^_Z4copy", "parser.cc$", "libtext", "^main$", "Parser::*<int>", "libc.so"])
  func oneLine(pattern: String) {
    #expect(hidden(by: "leak:\(pattern)", frames) == "leak:\(pattern) (1)")
    #expect(hidden(by: "double-free:\(pattern)", frames) == nil)
    #expect(hidden(by: "*:\(pattern)", class: "overflow", frames) == "*:\(pattern) (1)")
  }

  @Test("comments, blanks and other rules do not matter; the first match is named")
  func firstOfMany() {
    let rules = "# none\n\n  leak:nothing\n\tleak: main \r\nleak:main\n"
    #expect(hidden(by: rules, frames) == "leak: main (4)")
    #expect(hidden(by: "", frames) == nil)
    #expect(hidden(by: "leak:main", []) == nil)
  }

  func block(_ lines: String..., kind: String = "kegmalloc:leak") -> String {
    "{\n  named\n  \(kind)\n" + lines.map { "  \($0)\n" }.joined() + "}\n"
  }

  @Test("a block covers the innermost frames in order")
  func blocks() {
    for lines in [
      ["fun:copy*"], ["fun:_Z4copyPKc", "fun:_ZN6Parser*"], ["obj:*/libtext.so.?"],
      ["src:/src/text.cc", "fun:Parser::read<int>()", "fun:main"], ["...", "fun:main"],
      ["...", "obj:*/libc.so.6"], ["fun:copy*", "...", "fun:main"], ["...", "fun:main", "..."],
      ["fun:copy*", "...", "fun:Parser*"], ["..."],
    ] {
      let rule = "{\nnamed\nleak\n" + lines.joined(separator: "\n") + "\n}"
      #expect(hidden(by: rule, frames) == "named (1)", "\(lines)")
    }
    for lines in [
      ["fun:main"], ["fun:copy"], ["fun:copy*", "fun:main"], ["obj:libtext.so.2"],
      ["...", "fun:main", "fun:copy*"], ["fun:*", "fun:*", "fun:*", "fun:*", "fun:*"],
      ["...", "fun:absent"],
    ] {
      let rule = "{\nnamed\nleak\n" + lines.joined(separator: "\n") + "\n}"
      #expect(hidden(by: rule, frames) == nil, "\(lines)")
    }
  }

  @Test("the dots try every place before they give up")
  func dotsBacktrack() {
    let deep = ["a", "b", "a", "b", "c"].map { Frame($0) }
    #expect(hidden(by: block("...", "fun:a", "fun:b", "fun:c"), deep) == "named (1)")
    #expect(hidden(by: block("...", "fun:a", "...", "fun:c"), deep) == "named (1)")
    #expect(hidden(by: block("...", "fun:b", "fun:b"), deep) == nil)
  }

  @Test("match-leak-kinds chooses among leaks")
  func leakKinds() {
    let rule = block("match-leak-kinds: definite, cycle", "fun:copy*")
    #expect(hidden(by: rule, kind: "definite", frames) == "named (1)")
    #expect(hidden(by: rule, kind: "cycle", frames) == "named (1)")
    #expect(hidden(by: rule, kind: "indirect", frames) == nil)
    #expect(hidden(by: block("match-leak-kinds: all", "..."), kind: "stack", frames) == "named (1)")
  }

  @Test(
    "Memcheck's kinds stand for our classes",
    arguments: [
      ("Memcheck:Leak", ["leak"]), ("Memcheck:Free", ["double-free", "invalid-free", "mismatch"]),
      ("Memcheck:Addr8", ["use-after-free", "overflow", "underflow"]), ("Memcheck:Cond", []),
      ("Addrcheck,Memcheck:Leak", ["leak"]), ("Helgrind:Race", []), ("kegmalloc:*", all),
      ("overflow", ["overflow"]),
    ])
  func kinds(kind: String, classes: [String]) {
    let rule = block("...", kind: kind)
    #expect(firstError(of: rule) == nil)
    for one in Self.all {
      #expect((hidden(by: rule, class: one, frames) != nil) == classes.contains(one), "\(one)")
    }
  }

  static let all = [
    "leak", "double-free", "invalid-free", "use-after-free", "overflow", "underflow", "mismatch",
    "bad-size", "zone", "signal",
  ]

  @Test("allocation functions at the top of a foreign block are skipped, elsewhere they count")
  func allocationFunctions() {
    for top in ["fun:malloc", "fun:_Znwm", "fun:*alloc", "fun:operator new(unsigned long)"] {
      #expect(hidden(by: block(top, "fun:copy*", kind: "Memcheck:Leak"), frames) != nil, "\(top)")
      #expect(hidden(by: block("fun:copy*", top), frames) == nil, "\(top)")
    }
    let rule = block("match-leak-kinds: definite", "fun:malloc", "fun:copy*", kind: "Memcheck:Leak")
    #expect(hidden(by: rule, kind: "definite", frames) != nil)
    #expect(hidden(by: rule, kind: "indirect", frames) == nil)
  }

  @Test(
    "what is no rule is named with its line",
    arguments: [
      ("leak:a\nleak\n", "2: expected class:pattern or a block in { }"),
      ("leak:\n", "1: expected class:pattern or a block in { }"),
      ("# c\n\nlaek:a\n", "3: unknown class"),
      ("{\n n\n kegmalloc:laek\n fun:f\n}\n", "3: unknown kind"),
      ("{\n n\n leak\n fun:f\n", "4: the block has no }"),
      ("{\n", "1: the block has no }"),
      ("{\n n\n leak\n f\n}\n", "4: expected fun:, obj:, src:, ... or }"),
    ])
  func errors(rules: String, message: String) {
    #expect(firstError(of: rules) == message)
  }

  @Test("a broken block hides nothing and does not swallow what follows it")
  func brokenBlock() {
    #expect(hidden(by: "{\nn\nleak\nfun:copy*\n", frames) == nil)
    let rules = "{\nn\nlaek\n}\nleak:main\n"
    #expect(hidden(by: rules, frames)?.hasPrefix("leak:main") == true)
  }
}
