// LeakSlotsTests.swift: which places of its frame a function's code names.

import Base
import Testing

@testable import Leaks

@Suite("Places that code names")
struct LeakSlotsTests {
  /// Whether `code`, between a push and a ret, names the place.
  private func names(_ code: [UInt8], rsp: Int = 1 << 20, rbp: Int = 1 << 20) -> Bool {
    let function: [UInt8] = [0x55, 0x90] + code + [0x90, 0xC3]
    return function.withUnsafeBytes {
      let start = UInt(bitPattern: $0.baseAddress)
      return FrameCode(start: start, end: start + UInt($0.count)).names(rsp: rsp, rbp: rbp)
    }
  }

  @Test("moves by rbp and rsp, near and far")
  func moves() {
    #expect(names([0x48, 0x89, 0x7D, 0xE8], rbp: -24))  // mov %rdi, -24(%rbp)
    #expect(!names([0x48, 0x89, 0x7D, 0xE8], rbp: -32))
    #expect(!names([0x48, 0x89, 0x7D, 0xE8], rsp: -24))
    #expect(names([0x48, 0x8B, 0x85, 0x70, 0xFF, 0xFF, 0xFF], rbp: -144))  // mov -144(%rbp), %rax
    #expect(names([0x48, 0x89, 0x04, 0x24], rsp: 0))  // mov %rax, (%rsp)
    #expect(names([0x48, 0x89, 0x44, 0x24, 0x08], rsp: 8))
    #expect(!names([0x48, 0x89, 0x44, 0x24, 0x08], rsp: 16))
    #expect(names([0x4C, 0x89, 0xA4, 0x24, 0x00, 0x01, 0x00, 0x00], rsp: 256))
    #expect(names([0x48, 0xC7, 0x45, 0xF8, 0, 0, 0, 0], rbp: -8))  // movq $0, -8(%rbp)
  }

  @Test("an address that is taken names nothing")
  func addresses() {
    #expect(!names([0x48, 0x8D, 0x7D, 0xE8], rbp: -24))  // lea -24(%rbp), %rdi
    #expect(!names([0x48, 0x8D, 0x44, 0x24, 0x08], rsp: 8))
    #expect(!names([0x48, 0x89, 0x44, 0xC4, 0x08], rsp: 8))  // mov %rax, 8(%rsp,%rax,8)
  }

  @Test("vectors cover several words")
  func vectors() {
    let sixteen: [UInt8] = [0x0F, 0x29, 0x45, 0xE0]  // movaps %xmm0, -32(%rbp)
    #expect(names(sixteen, rbp: -32) && names(sixteen, rbp: -24) && !names(sixteen, rbp: -16))
    let thirtyTwo: [UInt8] = [0xC5, 0xFD, 0x7F, 0x44, 0x24, 0x20]  // vmovdqa %ymm0, 32(%rsp)
    #expect((4..<8).allSatisfy { names(thirtyTwo, rsp: $0 * 8) } && !names(thirtyTwo, rsp: 64))
  }

  @Test("code that ends in the middle of an instruction, and no code")
  func ends() {
    let code: [UInt8] = [0x55, 0x90, 0x48, 0x89, 0x85, 0x70]
    code.withUnsafeBytes {
      let start = UInt(bitPattern: $0.baseAddress)
      #expect(!FrameCode(start: start, end: start + 6).names(rsp: 0, rbp: -144))
      #expect(!FrameCode(start: start, end: start).names(rsp: 0, rbp: 0))
    }
  }
}
