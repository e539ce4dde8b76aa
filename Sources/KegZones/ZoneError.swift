// ZoneError.swift: why a zone gave no item.

import CKegmalloc
import Glibc

/// Why a zone could not be made, or gave no item.
public enum ZoneError: Error, Equatable, Sendable {
  /// There is no memory, or the process has reached its limit.
  case noMemory
  /// The zone is at its limit, and the call was not to wait.
  case limitReached
  /// The zone was at its limit for as long as the call was to wait.
  case timedOut
  /// The call was made by a signal handler that had interrupted the allocator.
  case interrupted
  /// The size, the alignment or an option makes no sense.
  case invalidArgument
  /// Anything else, with its error number.
  case other(Int32)

  init(errorNumber: Int32) {
    switch errorNumber {
    case ENOMEM: self = .noMemory
    case EAGAIN: self = .limitReached
    case ETIMEDOUT: self = .timedOut
    case EINTR: self = .interrupted
    case EINVAL: self = .invalidArgument
    default: self = .other(errorNumber)
    }
  }
}

/// Why ``Zone/allocate(_:making:)`` gave no item.
public enum AllocationError<Failure: Error>: Error {
  /// The zone had none.
  case zone(ZoneError)
  /// The element could not be made; the item has gone back.
  case element(Failure)
}

extension AllocationError: Sendable where Failure: Sendable {}
