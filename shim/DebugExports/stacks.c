// stacks.c: the calling stack as kegmalloc.h offers it, and dlclose, after which other
// code may come to the addresses whose unwind data was remembered.
#define _GNU_SOURCE
#include <dlfcn.h>

#include "debug.h"
#include "unwind.h"

// Sources/Debug/Stack.swift
extern int keg_backtrace_here(void **frames, int limit) KEG_DEBUG_HIDDEN;
extern void keg_stacks_module_left(void) KEG_DEBUG_HIDDEN;

int keg_backtrace(void **frames, int limit) {
  int count = keg_backtrace_here(frames, limit);
  // Not a tail call: this frame stands between the program's and the capture's.
  __asm__ volatile("");
  return count;
}

int dlclose(void *library) {
  static int (*real)(void *);
  if (!real) real = (int (*)(void *))dlsym(RTLD_NEXT, "dlclose");
  bool is_listed = keg_list_modules();
  int result = real ? real(library) : -1;
  if (is_listed) keg_keep_unloaded();
  keg_stacks_module_left();
  return result;
}
