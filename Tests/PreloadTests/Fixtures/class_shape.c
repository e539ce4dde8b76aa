// The size classes as a program can see them: powers of two naturally aligned up to
// 64 KiB, multiples of 64 aligned to a cache line, at most 12.5 % more than was asked
// for above 128 bytes.
#include "fixture.h"
#include <malloc.h>

int main(void) {
  void *kept[64];
  for (size_t size = 16; size <= 64 * KIB; size *= 2) {
    for (int i = 0; i < 64; i++) {
      kept[i] = malloc(size);
      CHECK(((uintptr_t)kept[i] & (size - 1)) == 0, "%p of %zu", kept[i], size);
    }
    for (int i = 0; i < 64; i++) free(kept[i]);
  }
  for (size_t size = 64; size <= 256 * KIB; size += 64) {
    void *block = malloc(size);
    CHECK(((uintptr_t)block & 63) == 0, "%p of %zu", block, size);
    free(block);
  }
  for (size_t size = 129; size <= 4 * MIB; size += size < 40000 ? 1 : 1021) {
    void *block = malloc(size);
    size_t usable = malloc_usable_size(block);
    CHECK((usable - size) * 8 <= size, "%zu bytes for %zu", usable, size);
    free(block);
  }
  return ok();
}
