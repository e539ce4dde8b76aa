// Deliberate mistakes. The argument names one; the address that is freed wrongly is
// printed first. The process must end in SIGABRT with one line about that address.
// A mistake with a small block shows when the block comes to its slab, which
// malloc_trim or the end of the thread brings about.
#include "fixture.h"
#include <malloc.h>

static char global[256];

static void *announce(void *address) {
  dprintf(1, "0x%lx\n", (unsigned long)(uintptr_t)address);
  return hide(address);
}

static void *twice_in_thread(void *argument) {
  void *block = malloc(64);
  free(announce(block));
  free(hide(block));
  return argument;
}

static void *free_it(void *block) {
  free(block);
  return NULL;
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  const char *kind = argv[1];
  size_t small = 64, medium = 20000, large = 5 * MIB;
  void *keep[64];
  for (int i = 0; i < 64; i++) keep[i] = malloc(small);  // so that the slab stays in use
  char *block = malloc(small), *middle = malloc(medium), *big = malloc(large);
  char stack[64] = {0};
  pthread_t thread;

  if (!strcmp(kind, "double-small")) {
    free(announce(block));
    free(hide(block));
  } else if (!strcmp(kind, "double-small-later")) {
    free(announce(block));
    for (int i = 0; i < 64; i += 2) free(keep[i]);
    malloc_trim(0);
    free(hide(block));
  } else if (!strcmp(kind, "double-medium")) {
    free(announce(middle));
    free(hide(middle));
  } else if (!strcmp(kind, "double-thread-exit")) {
    pthread_create(&thread, NULL, twice_in_thread, NULL);
    pthread_join(thread, NULL);
  } else if (!strcmp(kind, "double-across-threads")) {
    free(announce(block));
    pthread_create(&thread, NULL, free_it, block);
    pthread_join(thread, NULL);
  } else if (!strcmp(kind, "double-large")) {
    free(announce(big));
    free(hide(big));
  } else if (!strcmp(kind, "double-realloc")) {
    free(announce(big));
    big = realloc(hide(big), large * 2);
  } else if (!strcmp(kind, "interior-small")) {
    free(announce(block + 16));
  } else if (!strcmp(kind, "interior-medium")) {
    free(announce(middle + 4096));
  } else if (!strcmp(kind, "interior-large")) {
    free(announce(big + 4096));
  } else if (!strcmp(kind, "interior-large-far")) {
    free(announce(big + 2 * MIB));
  } else if (!strcmp(kind, "unaligned-small")) {
    free(announce(block + 1));
  } else if (!strcmp(kind, "unaligned-large")) {
    free(announce(big + 1));
  } else if (!strcmp(kind, "stack")) {
    free(announce(stack + 16));
  } else if (!strcmp(kind, "static")) {
    free(announce(global + 16));
  } else if (!strcmp(kind, "text")) {
    free(announce((void *)(uintptr_t)&main));
  } else if (!strcmp(kind, "wild")) {
    free(announce((void *)0x123456789abc0));
  } else if (!strcmp(kind, "low")) {
    free(announce((void *)16));
  } else if (!strcmp(kind, "realloc-stack")) {
    block = realloc(announce(stack), 100);
  } else {
    CHECK(0, "unknown kind %s", kind);
  }
  malloc_trim(0);
  dprintf(1, "survived\n");
  return 0;
}
