// Treemap.swift: areas in proportion to values, in a rectangle, as square as they
// get (squarified: Bruls, Huizing & van Wijk 2000).
//
//   ┌───────────┬──────┐
//   │           │  2   │   Rows are filled along the shorter side of what is
//   │     1     ├───┬──┤   left; a row takes one more value as long as its
//   │           │ 3 │4 │   worst ratio of sides does not grow.
//   └───────────┴───┴──┘

struct Treemap {
  struct Rectangle: Equatable {
    var x: Double
    var y: Double
    var width: Double
    var height: Double
    var area: Double { width * height }
  }

  /// One rectangle for each value, in the same order.
  /// - Precondition: values are positive, the greatest first.
  static func layout(_ values: [Double], in whole: Rectangle) -> [Rectangle] {
    let total = values.reduce(0, +)
    guard total > 0 else { return [] }
    let areas = values.map { $0 / total * whole.area }
    var result: [Rectangle] = []
    var free = whole
    var first = 0
    while first < areas.count {
      let side = min(free.width, free.height)
      var row = [areas[first]]
      while first + row.count < areas.count {
        let longer = row + [areas[first + row.count]]
        if worstRatio(longer, side) > worstRatio(row, side) { break }
        row = longer
      }
      result += place(row, in: &free)
      first += row.count
    }
    return result
  }

  /// The worst ratio of sides if `row` is laid along a side of this length.
  private static func worstRatio(_ row: [Double], _ side: Double) -> Double {
    let sum = row.reduce(0, +)
    guard sum > 0, side > 0 else { return .infinity }
    let thickness = sum / side
    return row.map { area in
      let length = area / thickness
      return max(length / thickness, thickness / length)
    }.max() ?? .infinity
  }

  /// Lays `row` along the shorter side and takes it off `free`.
  private static func place(_ row: [Double], in free: inout Rectangle) -> [Rectangle] {
    let sum = row.reduce(0, +)
    var result: [Rectangle] = []
    if free.width >= free.height {
      let thickness = free.height > 0 ? sum / free.height : 0
      var y = free.y
      for area in row {
        let length = thickness > 0 ? area / thickness : 0
        result.append(Rectangle(x: free.x, y: y, width: thickness, height: length))
        y += length
      }
      free.x += thickness
      free.width -= thickness
    } else {
      let thickness = free.width > 0 ? sum / free.width : 0
      var x = free.x
      for area in row {
        let length = thickness > 0 ? area / thickness : 0
        result.append(Rectangle(x: x, y: free.y, width: length, height: thickness))
        x += length
      }
      free.y += thickness
      free.height -= thickness
    }
    return result
  }
}
