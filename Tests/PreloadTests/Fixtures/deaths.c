// deaths.c: programs that have written past a block and then end themselves by a signal:
// `deaths assert|smashed|abort|raise|trap|divide`. `deaths asks` ends well: what it asks
// of these signals, and installs, is what it would be without the library. `deaths limited`
// may write no file any more.
#include <assert.h>
#include <signal.h>
#include <sys/resource.h>

#include "fixture.h"

extern void __stack_chk_fail(void);

static volatile sig_atomic_t handled;
static void handle(int number) { handled = number; }

static void asks(int number) {
  struct sigaction action = {.sa_handler = handle}, old;
  CHECK(sigaction(number, NULL, &old) == 0 && old.sa_handler == SIG_DFL && old.sa_flags == 0);
  CHECK(sigaction(number, &action, &old) == 0 && old.sa_handler == SIG_DFL);
  CHECK(raise(number) == 0 && handled == number);
  CHECK(signal(number, SIG_DFL) == handle && signal(number, SIG_IGN) == SIG_DFL);
  CHECK(raise(number) == 0 && signal(number, SIG_DFL) == SIG_IGN);
  CHECK(sigaction(number, NULL, &old) == 0 && old.sa_handler == SIG_DFL);
}

int main(int count, char **words) {
  CHECK(count == 2);
  const char *death = words[1];
  if (strcmp(death, "asks") == 0) {
    asks(SIGABRT);
    asks(SIGILL);
    asks(SIGFPE);
    return ok();
  }
  if (strcmp(death, "limited") == 0) {
    struct rlimit none = {0, 0};
    CHECK(setrlimit(RLIMIT_FSIZE, &none) == 0);
    // Standard output may be a file.
    return 0;
  }
  char *block = hide(malloc(5));
  block[5] = 1;
  if (strcmp(death, "assert") == 0) assert(count == 0);
  if (strcmp(death, "smashed") == 0) __stack_chk_fail();
  if (strcmp(death, "abort") == 0) abort();
  if (strcmp(death, "raise") == 0) raise(SIGABRT);
  if (strcmp(death, "trap") == 0) __builtin_trap();
  volatile int zero = 0;
  if (strcmp(death, "divide") == 0) return count / zero;
  return 1;
}
