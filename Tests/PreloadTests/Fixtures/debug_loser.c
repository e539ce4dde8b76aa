// debug_loser.c: a library that loses what it allocates when it is unloaded.
#include <stdlib.h>

static char *mine;

__attribute__((noinline)) static void allocating_in_library(void) { mine = malloc(77); }

void losing_in_library(int is_good) {
  allocating_in_library();
  if (is_good) free(mine);
}
