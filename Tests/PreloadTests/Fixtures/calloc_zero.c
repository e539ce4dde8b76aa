// calloc gives zeros, also where the memory was used and dirtied before: small and
// large, fresh, reused at once, and reused after the pages went back to the kernel.
#include "fixture.h"
#include <malloc.h>

static void round_of(size_t size, int count) {
  void *blocks[64];
  for (int i = 0; i < count; i++) {
    blocks[i] = malloc(size);
    CHECK(blocks[i] != NULL, "size %zu", size);
    memset(blocks[i], 0xa5, malloc_usable_size(blocks[i]));
  }
  for (int i = 0; i < count; i++) free(blocks[i]);
  for (int i = 0; i < count; i++) {
    blocks[i] = i % 2 ? calloc(size, 1) : calloc(1, size);
    CHECK(blocks[i] != NULL && is_zero(blocks[i], size), "size %zu, block %d", size, i);
    memset(blocks[i], 0x5a, malloc_usable_size(blocks[i]));
  }
  for (int i = 0; i < count; i++) free(blocks[i]);
}

int main(void) {
  for (int pass = 0; pass < 3; pass++) {
    for (size_t size = 1; size < 4096; size += pass == 0 ? 1 : 37) round_of(size, 8);
    for (size_t size = 4096; size < 128 * KIB; size += 1777) round_of(size, 4);
    for (size_t size = 128 * KIB; size <= 32 * MIB; size = size * 5 / 3) round_of(size, 3);
    malloc_trim(0);
  }
  // Sizes mixed, so that spans are cut and merged before they are used again.
  uint64_t seed = 11;
  char *blocks[200] = {NULL};
  size_t sizes[200];
  for (int step = 0; step < 20000; step++) {
    int i = random_next(&seed) % 200;
    if (blocks[i]) {
      memset(blocks[i], 0xff, sizes[i]);
      free(blocks[i]);
      blocks[i] = NULL;
    } else {
      sizes[i] = random_size(&seed, 512 * KIB);
      blocks[i] = calloc(1, sizes[i]);
      CHECK(is_zero(blocks[i], sizes[i]), "step %d, size %zu", step, sizes[i]);
    }
  }
  return ok();
}
