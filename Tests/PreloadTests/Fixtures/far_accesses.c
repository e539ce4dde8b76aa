// far_accesses: an access a long way from a block, where the heap has no memory:
// `far_accesses write|read OFFSET`; `far_accesses handled OFFSET` writes as well, and goes on
// behind a handler of its own.
#include <setjmp.h>
#include <signal.h>

#include "fixture.h"

static sigjmp_buf before;

static void go_on(int number) {
  (void)number;
  siglongjmp(before, 1);
}

__attribute__((noinline)) static char *allocate_block(void) { return hide(malloc(40)); }

int main(int count, char **words) {
  CHECK(count == 3);
  char *block = allocate_block();
  volatile char *byte = block + atol(words[2]);
  if (strcmp(words[1], "read") == 0) return *byte;
  if (strcmp(words[1], "handled") == 0) {
    signal(SIGSEGV, go_on);
    if (sigsetjmp(before, 1) == 0) *byte = 1;
    free(block);
    return ok();
  }
  *byte = 1;
  return 1;
}
