// tail_calls.c: wrappers that jump to the allocator and have no frame of their own; and a
// second free, so that all of them ought to be named.
#include "fixture.h"

#define JUMPS __attribute__((noinline, optimize("O2", "omit-frame-pointer")))

JUMPS void *jumps_to_malloc(size_t size) { return malloc(size); }
JUMPS void jumps_to_free(void *block) { free(block); }
JUMPS void jumps_again(void *block) { free(block); }

int main(void) {
  void *block = hide(jumps_to_malloc(40));
  jumps_to_free(block);
  jumps_again(hide(block));
  return ok();
}
