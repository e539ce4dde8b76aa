// Stack.swift: who called. This version knows no stack: every one is unknown.

import Base
import DebugPlatform
import Malloc

/// Prepares what captures need. Called once, when the layer has booted.
func bootStacks() {}

/// The stack of the caller of the allocator. 0: unknown.
func captureStack() -> StackID { 0 }

/// The stack that a signal interrupted.
func captureStack(context: UnsafeMutableRawPointer?) -> StackID { 0 }

/// Calls `body` with the addresses of a stack, innermost first.
func forEachFrame(_ stack: StackID, _ body: (UInt) -> Void) {}

/// What is known of an address in machine code.
struct FrameDescription {
  /// The path of the module and the address in it as it was linked.
  var module: UnsafePointer<CChar>? = nil
  var moduleOffset: UInt = 0
  var function: UnsafePointer<CChar>? = nil
  var functionOffset: UInt = 0
}

/// Calls `body` with what is known of `pc`. Strings are valid inside `body` only.
func describeFrame(_ pc: UInt, _ body: (FrameDescription) -> Void) {
  var description = FrameDescription()
  var path: UnsafePointer<CChar>? = nil
  var base: UInt = 0
  if keg_debug_find_module(pc, &path, &base) {
    description.module = path
    description.moduleOffset = pc &- base
  }
  body(description)
}

/// Around fork; the locks of the depot belong here.
func prepareForkOfStacks() {}
func parentOfForkOfStacks() {}
func childOfForkOfStacks() {}
