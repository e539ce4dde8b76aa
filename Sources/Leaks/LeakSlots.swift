// LeakSlots.swift: does a function's code name a place of its own frame?
//
//   mov %rdi, -24(%rbp)     48 89 7d e8          names rbp - 24
//   mov %rax, 8(%rsp)       48 89 44 24 08       names rsp + 8
//   lea -144(%rbp), %rax    48 8d 85 70 ff ff ff an address: names nothing
//
// A pointer that a function keeps lies in a place that an instruction of it names: a
// parameter, a variable, a spilled register. The inside of an array is not named, and
// what lies there may be left over from a function that has returned: compilers do not
// clear what they put aside.
//
// The bytes are searched, not decoded: what only looks like an operand counts too.

import Base

package struct FrameCode {
  /// The function's first byte, and the first one after it.
  package var start: UInt
  package var end: UInt

  package init(start: UInt, end: UInt) {
    self.start = start
    self.end = end
  }

  package var size: UInt { end &- start }

  /// Whether an instruction moves something to or from the word at `rsp` bytes above rsp
  /// or `rbp` bytes above rbp; a move of 16 or 32 bytes that covers it counts.
  package func names(rsp: Int, rbp: Int) -> Bool {
    guard size >= 3, size < 1 &<< 31 else { return false }
    let code = start.pointer(to: UInt8.self)
    let count = Int(bitPattern: size)
    var i = 2
    while i &+ 1 < count {
      let operand = code[i] & 0xC7
      // mod 01 and 10 with rbp; with rsp mod 00 too, which needs a second byte.
      let hasRBP = operand == 0x45 || operand == 0x85
      let hasRSP = (operand == 0x04 || operand == 0x44 || operand == 0x84) && code[i &+ 1] == 0x24
      if hasRBP || hasRSP, code[i &- 1] != 0x8D {
        let place = hasRBP ? i &+ 1 : i &+ 2
        let wanted = hasRBP ? rbp : rsp
        if let offset = displacement(code, place, count, operand & 0xC0) {
          let distance = wanted &- offset
          if distance == 0 { return true }
          // A vector covers what is behind its first word too; 0f stands before the
          // instructions for 16 bytes.
          if isVectorMove(code[i &- 1]), distance == 8 || code[i &- 2] != 0x0F && (distance == 16 || distance == 24) {
            return true
          }
        }
      }
      i &+= 1
    }
    return false
  }

  private func displacement(
    _ code: UnsafeMutablePointer<UInt8>, _ place: Int, _ count: Int, _ mode: UInt8
  ) -> Int? {
    switch mode {
    case 0: return 0
    case 0x40: return place < count ? Int(Int8(bitPattern: code[place])) : nil
    default:
      guard place &+ 4 <= count else { return nil }
      return Int((UnsafeRawPointer(code) + place).loadUnaligned(as: Int32.self))
    }
  }

  /// movups, movaps, movdqa and movdqu, with whatever stands before them.
  private func isVectorMove(_ opcode: UInt8) -> Bool {
    opcode == 0x10 || opcode == 0x11 || opcode == 0x28 || opcode == 0x29 || opcode == 0x6F
      || opcode == 0x7F || opcode == 0x16 || opcode == 0x17
  }
}
