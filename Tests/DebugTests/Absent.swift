// Absent.swift: functions of shim/Exports, which the hosted build does not link because
// their neighbours have names of the C library. No test comes to them.

@_cdecl("keg_new_failed") func newFailed(_ size: UInt) -> UnsafeMutableRawPointer? { nil }
@_cdecl("keg_new_array_failed") func newArrayFailed(_ size: UInt) -> UnsafeMutableRawPointer? { nil }
@_cdecl("keg_program_free") func programFree(_ pointer: UnsafeMutableRawPointer?) -> Bool { false }
