// List.swift: an intrusive doubly linked list.
//
//   head ──▶ element ⇄ element ⇄ element ──▶ nil        (tail is kept too)
//
// The links lie in the elements, so that no operation allocates. An element is
// on at most one list at a time. The owner's lock protects list and links.

/// An element that can be on one `List`.
package protocol Linked: ~Copyable {
  var next: UnsafeMutablePointer<Self>? { get set }
  var previous: UnsafeMutablePointer<Self>? { get set }
}

/// - Invariant: `count` elements are reachable from `head` over `next`, and the
///   same from `tail` over `previous`.
package struct List<Element: Linked & ~Copyable> {
  package private(set) var head: UnsafeMutablePointer<Element>?
  package private(set) var tail: UnsafeMutablePointer<Element>?
  package private(set) var count: Int

  package init() {
    head = nil
    tail = nil
    count = 0
  }

  package var isEmpty: Bool { head == nil }

  /// - Complexity: O(1), as every operation but `forEach`.
  package mutating func prepend(_ element: UnsafeMutablePointer<Element>) {
    element.pointee.previous = nil
    element.pointee.next = head
    if let head { head.pointee.previous = element } else { tail = element }
    head = element
    count &+= 1
  }

  package mutating func append(_ element: UnsafeMutablePointer<Element>) {
    element.pointee.next = nil
    element.pointee.previous = tail
    if let tail { tail.pointee.next = element } else { head = element }
    tail = element
    count &+= 1
  }

  /// Inserts `element` behind `place`, which must be on this list.
  package mutating func insert(
    _ element: UnsafeMutablePointer<Element>, after place: UnsafeMutablePointer<Element>
  ) {
    let next = place.pointee.next
    element.pointee.previous = place
    element.pointee.next = next
    place.pointee.next = element
    if let next { next.pointee.previous = element } else { tail = element }
    count &+= 1
  }

  package mutating func remove(_ element: UnsafeMutablePointer<Element>) {
    let next = element.pointee.next
    let previous = element.pointee.previous
    if let next { next.pointee.previous = previous } else { tail = previous }
    if let previous { previous.pointee.next = next } else { head = next }
    element.pointee.next = nil
    element.pointee.previous = nil
    count &-= 1
  }

  package mutating func popFirst() -> UnsafeMutablePointer<Element>? {
    guard let first = head else { return nil }
    remove(first)
    return first
  }

  package func forEach(_ body: (UnsafeMutablePointer<Element>) -> Void) {
    var element = head
    while let here = element {
      element = here.pointee.next
      body(here)
    }
  }
}
