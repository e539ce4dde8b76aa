// Background.swift: ticks for a process that idles (G42).
//
// Slow paths drive the ticks of a busy process. When all its threads sleep after a
// burst, this thread gives the pages back. It is started when the program has its
// second thread (option `background`), by a raw clone, so that it neither blocks the
// end of the process nor needs the C library; a forked child starts its own (G10).

import Base
import Keg
import Pages
import Platform

/// Starts the thread if the options want one now. Called between `enter` and `leave`.
func startBackgroundThread(threadCount: Int) {
  let mode = process.pointee.options[.background]
  if process.pointee.hasBackgroundThread || mode == BackgroundMode.off { return }
  if mode == BackgroundMode.auto && threadCount < 2 { return }
  process.pointee.hasBackgroundThread = true
  if !keg_start_background_thread({ runInBackground() }) {
    process.pointee.hasBackgroundThread = false
  }
}

private func runInBackground() {
  var quietRounds: UInt64 = 0
  while true {
    // An eighth of the decay time; up to sixteen times that while nothing is dirty.
    let decay = max(UInt64(process.pointee.options[.decay]), 32)
    sleep(milliseconds: max(decay / 8, 4) &* (1 &+ min(quietRounds, 15)))
    let before = process.pointee.heap?.pointee.purgedBytes ?? 0
    tickIfDue()
    if let heap = process.pointee.heap {
      let isQuiet = heap.pointee.purgedBytes == before && heap.dirtyBytes == 0
      quietRounds = isQuiet ? quietRounds &+ 1 : 0
    }
  }
}

/// Sleeps on a futex that nobody wakes: one of the calls that seccomp filters allow.
private func sleep(milliseconds: UInt64) {
  var word: UInt32 = 0
  var time: (Int, Int) = (
    Int(milliseconds / 1000), Int(milliseconds % 1000) &* 1_000_000
  )
  withUnsafeMutablePointer(to: &word) { word in
    withUnsafeMutablePointer(to: &time) { time in
      _ = keg_syscall6(
        Int(KEG_SYS_futex), Int(bitPattern: word), 128 /* FUTEX_WAIT_PRIVATE */, 0,
        Int(bitPattern: time), 0, 0)
    }
  }
}
