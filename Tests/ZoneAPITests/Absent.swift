// Absent.swift: functions of shim/Exports, which the hosted build does not link because
// their neighbours have names of the C library. No test comes to them.

@_cdecl("keg_new_failed") func newFailed(_ size: UInt) -> UnsafeMutableRawPointer? { nil }
