// exit.c: the ends of a process that the debug library stands in front of, so that
// its summary and its status come out whichever way the program goes.
//
//   exit, return from main ─▶ destructor      _exit, _Exit, abort ─▶ here
//   quick_exit ─▶ registered at start
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>

#include "debug.h"
#include "platform.h"

// Sources/Debug/Ending.swift
extern void keg_debug_at_exit(void) KEG_DEBUG_HIDDEN;
extern void keg_debug_at_quick_exit(void) KEG_DEBUG_HIDDEN;
extern void keg_debug_at_abort(void) KEG_DEBUG_HIDDEN;
extern void keg_debug_exit(int status, uintptr_t frame) KEG_DEBUG_HIDDEN;

__attribute__((destructor)) static void at_exit(void) { keg_debug_at_exit(); }

__attribute__((constructor)) static void watch_quick_exit(void) {
  at_quick_exit(keg_debug_at_quick_exit);
}

// _exit and _Exit: what their caller has in registers is put below its frame, where the
// leak check finds it.
__asm__(
    ".pushsection .text._exit, \"ax\", @progbits\n"
    ".globl _exit\n"
    ".type _exit, @function\n"
    ".globl _Exit\n"
    ".type _Exit, @function\n"
    "_exit:\n"
    "_Exit:\n"
    "  .cfi_startproc\n"
    "  push %rbp\n"
    "  .cfi_adjust_cfa_offset 8\n"
    "  .cfi_rel_offset %rbp, 0\n"
    "  mov %rsp, %rbp\n"
    "  .cfi_def_cfa_register %rbp\n"
    "  push %rbx\n"
    "  push %r12\n"
    "  push %r13\n"
    "  push %r14\n"
    "  push %r15\n"
    "  mov %rsp, %rsi\n"
    "  and $-16, %rsp\n"
    "  call keg_debug_exit\n"
    "  ud2\n"
    "  .cfi_endproc\n"
    ".size _exit, . - _exit\n"
    ".size _Exit, . - _Exit\n"
    ".popsection\n");

// The C library's own calls of abort, such as that of assert, do not come by here: they
// end by SIGABRT, which signal.c has.
_Noreturn void abort(void) {
  keg_debug_at_abort();
  void (*real)(void) = (void (*)(void))dlsym(RTLD_NEXT, "abort");
  if (real) real();
  keg_abort();
}
