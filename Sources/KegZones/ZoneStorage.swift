// ZoneStorage.swift: the C zone behind a Zone and its items, and its two functions.

import CKegmalloc
import Glibc

/// What the constructor of one allocation does: false when it failed.
private struct Constructor {
  let body: (UnsafeMutableRawPointer) -> Bool
}

/// What the destructor of one free does.
private struct Destructor {
  let body: (UnsafeMutableRawPointer) -> Void
}

@usableFromInline
final class ZoneStorage: @unchecked Sendable {
  // The zone is shared by threads; its calls take the locks that they need.
  let handle: OpaquePointer

  init(_ name: String, size: Int, alignment: Int, limit: Int, options: ZoneOptions)
    throws(ZoneError)
  {
    var attributes = keg_zone_attr()
    attributes.struct_size = MemoryLayout<keg_zone_attr>.size
    attributes.align = alignment
    attributes.flags = options.rawValue
    attributes.max_items = limit
    attributes.ctor = { item, _, argument, _ in
      guard let argument, let item else { return 0 }
      return argument.assumingMemoryBound(to: Constructor.self).pointee.body(item) ? 0 : ECANCELED
    }
    attributes.dtor = { item, _, argument in
      guard let argument, let item else { return }
      argument.assumingMemoryBound(to: Destructor.self).pointee.body(item)
    }
    guard let handle = keg_zone_create_attr(name, size, &attributes) else {
      throw ZoneError(errorNumber: errno)
    }
    self.handle = handle
  }

  deinit {
    // Every item holds this object: there is none any more.
    _ = keg_zone_destroy(handle, 0)
  }

  /// Takes an item that no constructor has seen.
  /// - Returns: the item, or nil and an error number.
  func take(_ waiting: Waiting) -> (UnsafeMutableRawPointer?, Int32) {
    take(waiting, argument: nil)
  }

  /// Takes an item; `construct` runs as its constructor.
  func take(_ waiting: Waiting, constructing construct: (UnsafeMutableRawPointer) -> Bool)
    -> (UnsafeMutableRawPointer?, Int32)
  {
    withoutActuallyEscaping(construct) { construct in
      var constructor = Constructor(body: construct)
      return withUnsafeMutablePointer(to: &constructor) {
        take(waiting, argument: UnsafeMutableRawPointer($0))
      }
    }
  }

  private func take(_ waiting: Waiting, argument: UnsafeMutableRawPointer?)
    -> (UnsafeMutableRawPointer?, Int32)
  {
    let item: UnsafeMutableRawPointer?
    switch waiting {
    case .no:
      item = keg_zone_alloc_arg(handle, argument, Int32(KEG_NOWAIT.rawValue))
    case .forever:
      item = keg_zone_alloc_arg(handle, argument, Int32(KEG_WAITOK.rawValue))
    case .milliseconds(let milliseconds):
      item = keg_zone_alloc_timeout(handle, argument, Int32(KEG_WAITOK.rawValue), milliseconds)
    }
    return (item, item == nil ? errno : 0)
  }

  /// Frees an item; `destruct` runs as its destructor.
  func give(_ item: UnsafeMutableRawPointer, _ destruct: (UnsafeMutableRawPointer) -> Void) {
    withoutActuallyEscaping(destruct) { destruct in
      var destructor = Destructor(body: destruct)
      withUnsafeMutablePointer(to: &destructor) {
        keg_zone_free_arg(handle, item, UnsafeMutableRawPointer($0))
      }
    }
  }

  /// Frees an item without a destructor.
  func give(_ item: UnsafeMutableRawPointer) { keg_zone_free(handle, item) }
}
