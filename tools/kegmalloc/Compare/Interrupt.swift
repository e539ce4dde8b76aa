// Interrupt.swift: Ctrl-C and SIGTERM end the race, not the report.
//
// The handler only sets a flag; whoever waits in poll() is woken with EINTR and
// looks at it. A second Ctrl-C kills the tool in the ordinary way.
import Foundation
import Synchronization

enum Interrupt {
  private static let flag = Atomic<Bool>(false)

  /// True from the first SIGINT or SIGTERM after `install`.
  static var requested: Bool { flag.load(ordering: .relaxed) }

  static func install() {
    var action = sigaction()
    action.__sigaction_handler.sa_handler = { _ in Interrupt.flag.store(true, ordering: .relaxed) }
    action.sa_flags = Int32(bitPattern: UInt32(SA_RESETHAND))
    sigaction(SIGINT, &action, nil)
    sigaction(SIGTERM, &action, nil)
  }
}

/// The two functions of <math.h> that are needed, under names of their own.
func logarithm(_ value: Double) -> Double { log(value) }
func exponential(_ value: Double) -> Double { exp(value) }
