// stacks.c: the calling stack as kegmalloc.h offers it; dlclose, after which other code may
// come to the addresses whose unwind data was remembered; and the start of it all.
#define _GNU_SOURCE
#include <dlfcn.h>

#include "debug.h"
#include "unwind.h"

// Sources/Debug/Stack.swift
extern int keg_backtrace_here(void **frames, int limit) KEG_DEBUG_HIDDEN;
extern void keg_stacks_module_left(void) KEG_DEBUG_HIDDEN;
extern void keg_stacks_warm(void) KEG_DEBUG_HIDDEN;

// The one moment at which a library may be asked of the loader without waiting for
// somebody else's dlopen.
__attribute__((constructor)) static void warm(void) { keg_stacks_warm(); }

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
