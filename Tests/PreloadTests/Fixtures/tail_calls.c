// tail_calls.c: wrappers that jump to the allocator and have no frame of their own, wrappers
// that jump to such wrappers, and one that jumps to a function which has a frame; and a
// second free, so that all of them ought to be named.
#include "fixture.h"

#define JUMPS __attribute__((noinline, optimize("O2", "omit-frame-pointer")))

JUMPS void *jumps_to_malloc(size_t size) { return malloc(size); }
JUMPS void *jumps_twice(size_t size) { return jumps_to_malloc(size + 1); }
JUMPS void *keeps_a_frame(size_t size) { return hide(jumps_twice(size)); }
JUMPS void *jumps_to_a_frame(size_t size) { return keeps_a_frame(size + 2); }
JUMPS void jumps_to_free(void *block) { free(block); }
JUMPS void jumps_again(void *block) { free(block); }
// Two ways lead to free: which one was taken nobody knows.
static volatile int way;
JUMPS void jumps_either_way(void *block) { way ? jumps_to_free(block) : jumps_again(block); }

int main(void) {
  void *block = hide(jumps_to_a_frame(40));
  jumps_to_free(block);
  jumps_again(hide(block));
  jumps_either_way(hide(block));
  return ok();
}
