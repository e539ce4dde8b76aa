// leaks.c: the leak check as kegmalloc.h offers it to programs.
#include "leak.h"

// Sources/Debug/LeakRequest.swift
extern long keg_leak_check_now(void) KEG_LEAK_HIDDEN;
extern void keg_leak_set_mark(void) KEG_LEAK_HIDDEN;
extern void keg_leak_start(void) KEG_LEAK_HIDDEN;

__attribute__((constructor)) static void start(void) {
  keg_leak_prepare();
  keg_leak_start();
}

long keg_leak_check(void) { return keg_leak_check_now(); }

int keg_leak_mark(void) {
  keg_leak_set_mark();
  return 0;
}

int keg_leak_request(const char *file) { return keg_leak_ask(file); }
