// Text.swift: text without an allocation.
//
// A `Text` collects bytes in a fixed buffer inside itself and writes them to a
// file descriptor, or to a function, when it is full or flushed. It is what reports, statistics
// and `die` are written with: no String, no stdio, no malloc.

import Platform

package struct Text: ~Copyable {
  private var bytes: InlineArray<512, UInt8>
  private var used: Int
  private let descriptor: Int32
  private let sink: Sink?
  private let context: UnsafeMutableRawPointer?

  /// Takes over text for somebody who writes it.
  package typealias Sink =
    @convention(c) (
      _ context: UnsafeMutableRawPointer?, _ text: UnsafePointer<CChar>?, _ count: Int
    ) -> Void

  /// Text for file descriptor `descriptor`.
  @inline(never)
  package init(to descriptor: Int32) {
    bytes = InlineArray(repeating: 0)
    used = 0
    self.descriptor = descriptor
    sink = nil
    context = nil
  }

  /// Text for `sink`, which is called with `context`.
  @inline(never)
  package init(to sink: @escaping Sink, context: UnsafeMutableRawPointer?) {
    bytes = InlineArray(repeating: 0)
    used = 0
    descriptor = -1
    self.sink = sink
    self.context = context
  }

  @inline(never)
  package mutating func append(_ string: StaticString) {
    string.withUTF8Buffer { for byte in $0 { append(byte: byte) } }
  }

  /// Appends the bytes of a C string, at most `limit` of them.
  @inline(never)
  package mutating func append(cString: UnsafePointer<CChar>, limit: Int = 200) {
    var i = 0
    while i < limit, cString[i] != 0 {
      append(byte: UInt8(bitPattern: cString[i]))
      i &+= 1
    }
  }

  @inline(never)
  package mutating func append(byte: UInt8) {
    if used == 512 { flush() }
    bytes[used] = byte
    used &+= 1
  }

  package mutating func append(decimal value: UInt, width: Int = 0) {
    append(value, base: 10, width: width)
  }

  /// Appends `0x…`.
  package mutating func append(hexadecimal value: UInt) {
    append("0x")
    append(value, base: 16, width: 0)
  }

  /// Appends `count` spaces.
  @inline(never)
  package mutating func pad(_ count: Int) {
    var left = count
    while left > 0 {
      append(byte: UInt8(ascii: " "))
      left &-= 1
    }
  }

  @inline(never)
  private mutating func append(_ value: UInt, base: UInt, width: Int) {
    var digits = InlineArray<20, UInt8>(repeating: 0)
    var count = 0
    var rest = value
    repeat {
      let digit = UInt8(truncatingIfNeeded: rest % base)
      digits[count] = digit < 10 ? 48 &+ digit : 87 &+ digit
      count &+= 1
      rest /= base
    } while rest != 0
    pad(width &- count)
    while count > 0 {
      count &-= 1
      append(byte: digits[count])
    }
  }

  /// Writes what was collected. A short or failed write is not retried: there
  /// is nobody to tell.
  @inline(never)
  package mutating func flush() {
    let count = used
    used = 0
    bytes.span.withUnsafeBufferPointer { buffer in
      if let sink {
        sink(context, UnsafeRawPointer(buffer.baseAddress)?.assumingMemoryBound(to: CChar.self), count)
        return
      }
      _ = keg_syscall6(
        Int(KEG_SYS_write), Int(descriptor), Int(bitPattern: buffer.baseAddress), count, 0, 0, 0)
    }
  }
}
