// realloc keeps the contents over every kind of change: by one byte, by doubling, to
// a random size, across the border between small and large blocks, up to 512 MiB
// and down again, also from over-aligned blocks.
#include "fixture.h"
#include <malloc.h>

// The byte at each place follows from the place, so any shift or loss shows.
static unsigned char at(size_t i) { return (unsigned char)(i * 131 + (i >> 8) * 7 + (i >> 16)); }
static void fill(unsigned char *p, size_t from, size_t to, size_t step) {
  for (size_t i = from; i < to; i += step) p[i] = at(i);
  if (to > from) p[to - 1] = at(to - 1);
}
static void check(unsigned char *p, size_t size, size_t step, size_t from) {
  for (size_t i = 0; i < size; i += step)
    CHECK(p[i] == at(i), "byte %zu of %zu lost on the way from %zu", i, size, from);
}

static void walk_random(void) {
  uint64_t seed = 3;
  for (int series = 0; series < 60; series++) {
    unsigned char *p = NULL;
    size_t size = 0;
    for (int step = 0; step < 100; step++) {
      size_t next = random_size(&seed, series % 10 == 0 ? 8 * MIB : 64 * KIB) + 1;
      p = realloc(p, next);
      CHECK(p != NULL);
      check(p, size < next ? size : next, 1, size);
      fill(p, 0, next, 1);
      size = next;
    }
    free(p);
  }
}

// Blocks that grow, shrink and go, with cleared memory taken from what they leave.
static void grow_in_turn(void) {
  enum { COUNT = 5 };
  uint64_t seed = 5;
  unsigned char *blocks[COUNT] = {NULL};
  size_t sizes[COUNT] = {0};
  for (int step = 0; step < 1500; step++) {
    size_t i = random_size(&seed, COUNT - 1), size = sizes[i], next = size + size / 4 + 300 * KIB;
    if (random_size(&seed, 19) == 0) next = size / 3 + 1;
    if (next > 24 * MIB) {
      free(blocks[i]);
      blocks[i] = NULL;
      sizes[i] = 0;
      size_t length = (1 + random_size(&seed, 11)) * MIB;
      unsigned char *zero = calloc(1, length);
      CHECK(zero != NULL);
      for (size_t j = 0; j < length; j += 509) CHECK(zero[j] == 0, "byte %zu of %zu", j, length);
      memset(zero, 1, length);
      free(zero);
      continue;
    }
    blocks[i] = realloc(blocks[i], next);
    CHECK(blocks[i] != NULL && malloc_usable_size(blocks[i]) >= next);
    check(blocks[i], size < next ? size : next, 4093, size);
    fill(blocks[i], 0, next, 4093);
    sizes[i] = next;
  }
  for (int i = 0; i < COUNT; i++) free(blocks[i]);
}

int main(void) {
  unsigned char *p = malloc(1);
  fill(p, 0, 1, 1);
  for (size_t size = 2; size <= 20000; size++) {  // by one byte up
    p = realloc(p, size);
    p[size - 1] = at(size - 1);
    if (size % 97 == 0) check(p, size, 1, size - 1);
  }
  for (size_t size = 20000; size >= 1; size -= size > 64 ? 61 : 1) {  // and down
    p = realloc(p, size);
    check(p, size, 1, size);
  }
  free(p);

  // Doubling and halving; above 1 MiB every page is looked at, not every byte.
  size_t size = 1;
  p = malloc(1);
  fill(p, 0, 1, 1);
  while (size < 512 * MIB) {
    unsigned char *grown = realloc(p, size * 2);
    CHECK(grown != NULL, "%zu bytes", size * 2);
    check(grown, size, size > MIB ? 4093 : 1, size);
    // Where the walk of one step ends the next one begins anew.
    fill(grown, 0, size * 2, size * 2 > MIB ? 4093 : 1);
    p = grown;
    size *= 2;
  }
  while (size > 1) {
    size_t next = size * 3 / 5;
    p = realloc(p, next ? next : 1);
    CHECK(p != NULL);
    check(p, next, next > MIB ? 4093 : size > MIB ? 4093 : 1, size);
    if (next <= MIB && size > MIB) fill(p, 0, next, 1);
    size = next;
  }
  free(p);

  // Two giants growing in turn must not get in each other's way.
  unsigned char *a = NULL, *b = NULL;
  for (size = MIB; size <= 96 * MIB; size += 5 * MIB) {
    size_t before = size - 5 * MIB;
    a = realloc(a, size);
    b = realloc(b, size + 12345);
    CHECK(a != NULL && b != NULL);
    if (size > MIB) check(a, before, 4093, before), check(b, before + 12345, 4093, before);
    fill(a, 0, size, 4093);
    fill(b, 0, size + 12345, 4093);
  }
  free(a);
  free(b);

  for (size_t alignment = 64; alignment <= 2 * MIB; alignment *= 8) {
    size_t length = alignment * 3 / 2 + 100;
    p = memalign(alignment, length);
    fill(p, 0, length, 1);
    p = realloc(p, length * 4);
    check(p, length, 1, length);
    p = realloc(p, length / 2);
    check(p, length / 2, 1, length * 4);
    free(p);
  }
  grow_in_turn();
  walk_random();
  return ok();
}
