// exit.c: the ends of a process that the debug library stands in front of, so that
// its summary and its status come out whichever way the program goes.
#include "debug.h"

// Sources/Debug/Ending.swift
extern void keg_debug_at_exit(void) KEG_DEBUG_HIDDEN;
extern void keg_debug_exit(int status) KEG_DEBUG_HIDDEN;

__attribute__((destructor)) static void at_exit(void) { keg_debug_at_exit(); }

_Noreturn void _exit(int status) {
  keg_debug_exit(status);
  __builtin_unreachable();
}

_Noreturn void _Exit(int status) {
  keg_debug_exit(status);
  __builtin_unreachable();
}
