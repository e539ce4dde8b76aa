// Blocks that grow in small steps are copied a few times, not at every step, and a
// block that is made smaller gives back what it does not need.
#include "fixture.h"
#include <malloc.h>

static size_t resident(void) {
  long pages = 0, rest = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  CHECK(file && fscanf(file, "%ld %ld", &rest, &pages) == 2);
  fclose(file);
  return (size_t)pages * 4096;
}

// Bytes that were copied while a block grew to `limit` by `step` bytes a time.
static size_t grow(size_t step, size_t limit) {
  size_t copied = 0, size = 0;
  char *block = NULL;
  while (size < limit) {
    char *next = realloc(block, size + step);
    CHECK(next != NULL, "%zu bytes", size + step);
    if (next != block) copied += size;
    if (size) CHECK(next[0] == 1 && next[size - 1] == 1, "lost at %zu bytes", size);
    block = next;
    memset(block + size, 1, step);
    size += step;
  }
  free(block);
  return copied;
}

static void shrink(int has_grown, size_t from, size_t to) {
  malloc_trim(0);
  size_t before = resident();
  char *block = malloc(has_grown ? MIB : from);
  if (has_grown) block = realloc(block, from);
  CHECK(block != NULL);
  memset(block, 7, from);
  block = realloc(block, to);
  CHECK(block && block[0] == 7 && block[to - 1] == 7);
  malloc_trim(0);
  size_t now = resident();
  CHECK(now < before + to + 2 * MIB, "%zu KiB for %zu", (now - before) / KIB, to / KIB);
  free(block);
}

int main(void) {
  size_t steps[] = {100, 1000, 4096, 10000, 65536, 300000};
  for (int i = 0; i < 6; i++) {
    size_t copied = grow(steps[i], 48 * MIB);
    CHECK(copied < 96 * MIB, "%zu MiB copied by steps of %zu", copied / MIB, steps[i]);
  }
  for (int grown = 0; grown < 2; grown++) {
    shrink(grown, 64 * MIB, 54 * MIB);
    shrink(grown, 64 * MIB, 36 * MIB);
    shrink(grown, 8 * MIB, 5 * MIB);
    shrink(grown, 8 * MIB, 100);
  }
  return ok();
}
