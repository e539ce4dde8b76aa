// Zone.swift: typed zones for Swift over the zone calls of kegmalloc.h.
//
//   Zone<Element> ──▶ ZoneStorage ──▶ keg_zone: size, alignment, ctor, dtor
//        │ allocate                      ▲
//        ▼                               │ strong: a zone lives as long as its items
//   Item<Element> ──────────────────────┘
//
// A C function cannot be generic. So ctor and dtor of every zone are the same two
// functions, and what they shall do for this Element comes with each call, as its
// argument: a closure that the caller's frame keeps.

import CKegmalloc
import Glibc

/// A source of elements of one type.
///
/// A zone keeps the memory of elements that were freed, in arrays of the threads and in
/// full buckets behind them, and gives it to the next ones: most allocations take no
/// lock. It is a handle: copies name the same zone, which ends with the last of them
/// and of its items.
///
///     let connections = try Zone<Connection>("connections", limit: 10_000)
///     var connection = try connections.allocate(Connection(descriptor))
///     connection.update { $0.receive(bytes) }
public struct Zone<Element: ~Copyable>: Sendable {
  let storage: ZoneStorage

  /// Makes a zone.
  ///
  /// - Parameters:
  ///   - name: what reports call it, at most 31 bytes of UTF-8. Where another zone has
  ///     the name, a number is added.
  ///   - limit: the most elements, those cached among them; nil for no limit.
  ///   - options: what is unusual about the zone.
  /// - Throws: ``ZoneError/noMemory``; ``ZoneError/invalidArgument`` for an element of
  ///   more than 1 MiB or a limit below 1.
  public init(_ name: String, limit: Int? = nil, options: ZoneOptions = []) throws(ZoneError) {
    if let limit, limit < 1 { throw ZoneError.invalidArgument }
    storage = try ZoneStorage(
      name, size: max(MemoryLayout<Element>.size, 1),
      alignment: max(MemoryLayout<Element>.alignment, 8), limit: limit ?? 0, options: options)
  }

  /// Moves `element` into memory of the zone.
  ///
  /// - Parameters:
  ///   - element: the element; it is the item's after the call.
  ///   - waiting: what to do while the zone is at its limit.
  /// - Returns: the item that owns the element.
  /// - Throws: ``ZoneError``; `element` has ended then.
  @inlinable
  public func allocate(_ element: consuming Element, _ waiting: Waiting = .no)
    throws(ZoneError) -> Item<Element>
  {
    let item = try memory(waiting)
    // The zone's constructor has nothing to do: the element exists already.
    item.initializeMemory(as: Element.self, to: element)
    return Item(owning: item, of: self)
  }

  /// Makes an element in memory of the zone, as the zone's constructor.
  ///
  /// If `make` throws, the item goes back without an element in it.
  ///
  /// - Parameters:
  ///   - waiting: what to do while the zone is at its limit.
  ///   - make: makes the element; called once, with no lock held.
  /// - Returns: the item that owns the element.
  /// - Throws: ``AllocationError``.
  public func allocate<Failure: Error>(
    _ waiting: Waiting = .no, making make: () throws(Failure) -> Element
  ) throws(AllocationError<Failure>) -> Item<Element> {
    var failure: Failure? = nil
    let (item, number) = storage.take(waiting, constructing: { item in
      do throws(Failure) {
        let element = try make()
        item.initializeMemory(as: Element.self, to: element)
        return true
      } catch {
        failure = error
        return false
      }
    })
    if let failure { throw .element(failure) }
    guard let item else { throw .zone(ZoneError(errorNumber: number)) }
    return Item(owning: item, of: self)
  }

  /// Memory for one element, without one.
  @usableFromInline
  func memory(_ waiting: Waiting) throws(ZoneError) -> UnsafeMutableRawPointer {
    let (item, number) = storage.take(waiting)
    guard let item else { throw ZoneError(errorNumber: number) }
    return item
  }

  /// The calling thread's next `count` allocations succeed without a lock or a system
  /// call. Not for zones with a limit.
  ///
  /// - Parameter count: at most 254.
  /// - Throws: ``ZoneError/invalidArgument`` for more, and for zones with a limit or
  ///   without caches; ``ZoneError/noMemory``, what there was stays with the thread.
  public func prefill(_ count: Int) throws(ZoneError) {
    let number = keg_prefill(storage.handle, count)
    if number != 0 { throw ZoneError(errorNumber: number) }
  }

  /// The name in reports.
  public var name: String { String(cString: keg_zone_name(storage.handle)) }

  /// Elements that exist; approximate while other threads allocate and free.
  public var count: Int { keg_zone_get_cur(storage.handle) }

  /// The most elements, nil for no limit. A limit below use takes nothing away:
  /// nobody gets an item until enough have gone.
  public var limit: Int? {
    get {
      let items = keg_zone_get_max(storage.handle)
      return items == 0 ? nil : items
    }
    nonmutating set { _ = keg_zone_set_max(storage.handle, max(newValue ?? 0, 0)) }
  }

  /// Gives memory that the zone caches back.
  public func reclaim(_ level: ReclaimLevel = .drain) {
    _ = keg_zone_reclaim(storage.handle, level.rawValue)
  }
}

/// What to do while a zone is at its limit.
public enum Waiting: Equatable, Sendable {
  /// Fail with ``ZoneError/limitReached``.
  case no
  /// Sleep until an element is freed, first come first served.
  case forever
  /// The same, for so long; then fail with ``ZoneError/timedOut``.
  case milliseconds(UInt32)
}

/// How much ``Zone/reclaim(_:)`` gives back.
public enum ReclaimLevel: Int32, Sendable {
  /// What the zone's working set does not need.
  case trim = 1
  /// All full buckets.
  case drain = 2
  /// And the arrays of threads: the caller's now, the others' when they next can.
  case drainThreads = 3
}

/// What is unusual about a zone.
public struct ZoneOptions: OptionSet, Sendable {
  public let rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }

  /// Memory that was an element's stays with the zone until the zone ends.
  public static let keepsMemory = ZoneOptions(rawValue: 1 << 1)
  /// Every item goes to and comes from its slab: for elements that are seldom freed.
  public static let isUncached = ZoneOptions(rawValue: 1 << 4)
  /// Elements are left out of core files: keys, passwords.
  public static let isNotDumped = ZoneOptions(rawValue: 1 << 7)
}
