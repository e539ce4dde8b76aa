// leak_kernel.c: addresses that the kernel keeps for the program, and perhaps nobody else.
//
//   sigaltstack(2)       the stack            asked of each thread; in the frame of a signal
//   epoll_ctl(2)         event.data           /proc/self/fdinfo/N    "tfd: 4 events: 19 data: 56550bdd12a0 …"
//   timer_create(2)      sigev_value          /proc/self/timers      "signal: 10/000056550bdd2300"
//
// A server may have no other pointer to a connection than the one in its event.
#include "leak.h"

#include <signal.h>

#include "leak_files.h"

uintptr_t keg_leak_idle_stack(uintptr_t *bytes) {
  stack_t stack = {.ss_flags = SS_DISABLE};
  keg_syscall6(131 /* sigaltstack */, 0, (long)&stack, 0, 0, 0, 0);
  *bytes = stack.ss_size;
  return (stack.ss_flags & (SS_ONSTACK | SS_DISABLE)) == 0 ? (uintptr_t)stack.ss_sp : 0;
}

static int digit_of(char letter) {
  if (letter >= '0' && letter <= '9') return letter - '0';
  return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
}

// Calls `body` with each hexadecimal number that stands behind `mark` and blanks.
static void each_number(long file, const char *mark, void (*body)(void *, uintptr_t),
                        void *context) {
  char text[4096];
  long length, seen = 0;  // letters of the mark
  int digits = 0;
  uintptr_t number = 0;
  while ((length = keg_file_read(file, text, sizeof text)) > 0)
    for (long i = 0; i < length; i++) {
      int digit = mark[seen] ? -1 : digit_of(text[i]);
      if (digit >= 0) {
        number = number << 4 | (uintptr_t)digit;
        digits++;
      } else if (mark[seen] || digits > 0 || text[i] != ' ') {
        if (digits > 0) body(context, number);
        if (mark[seen] != text[i]) seen = 0;
        if (mark[seen] == text[i]) seen++;
        number = 0;
        digits = 0;
      }
    }
}

static bool is_epoll(long directory, const char *name) {
  static const char kind[] = "anon_inode:[eventpoll]";
  char target[sizeof kind];
  long length = keg_syscall6(267 /* readlinkat */, directory, (long)name, (long)target,
                             sizeof target, 0, 0);
  return length == sizeof kind - 1 && __builtin_memcmp(target, kind, sizeof kind - 1) == 0;
}

void keg_leak_each_kernel_word(void (*body)(void *, uintptr_t), void *context) {
  long timers = keg_file_open(AT_FDCWD, "/proc/self/timers", 0);
  if (timers >= 0) {
    each_number(timers, "/", body, context);
    keg_file_close(timers);
  }
  struct keg_names files = {.directory = keg_file_open(AT_FDCWD, "/proc/self/fd", O_DIRECTORY)};
  if (files.directory < 0) return;
  long abouts = keg_file_open(AT_FDCWD, "/proc/self/fdinfo", O_DIRECTORY);
  const char *name;
  while (abouts >= 0 && (name = keg_next_name(&files))) {
    long about = is_epoll(files.directory, name) ? keg_file_open(abouts, name, 0) : -1;
    if (about < 0) continue;
    each_number(about, " data:", body, context);
    keg_file_close(about);
  }
  if (abouts >= 0) keg_file_close(abouts);
  keg_file_close(files.directory);
}
