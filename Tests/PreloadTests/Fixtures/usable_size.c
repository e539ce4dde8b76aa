// malloc_usable_size: at least what was asked for, all of it writable, the same for
// the whole life of the block, and kept by realloc; free_sized and friends are told
// the true size. Programs write up to the usable size, so neighbours must survive it.
#include "fixture.h"
#include <dlfcn.h>
#include <malloc.h>

enum { COUNT = 3000 };
static char *blocks[COUNT];
static size_t usable[COUNT];

int main(void) {
  uint64_t seed = 7;
  CHECK(malloc_usable_size(NULL) == 0);
  for (int i = 0; i < COUNT; i++) {
    size_t size = i < 2000 ? (size_t)i : random_size(&seed, MIB);
    blocks[i] = i % 3 == 0 ? calloc(1, size) : malloc(size);
    usable[i] = malloc_usable_size(blocks[i]);
    CHECK(usable[i] >= size, "%zu for %zu", usable[i], size);
    mark(blocks[i], usable[i], i);
  }
  for (int i = 0; i < COUNT; i++) {
    CHECK(malloc_usable_size(blocks[i]) == usable[i], "block %d changed size", i);
    CHECK(is_marked(blocks[i], usable[i], i), "block %d was overwritten", i);
  }
  // Contents written beyond the request survive realloc: they are the program's.
  for (int i = 0; i < COUNT; i += 5) {
    char *moved = realloc(blocks[i], usable[i] + 1000);
    CHECK(moved != NULL && is_marked(moved, usable[i], i), "block %d lost its tail", i);
    blocks[i] = moved;
    usable[i] = malloc_usable_size(moved);
    mark(moved, usable[i], i);
  }
  for (int i = 0; i < COUNT; i++) {
    CHECK(is_marked(blocks[i], usable[i], i), "block %d was overwritten", i);
    free(blocks[i]);
  }
  // C23, present in few C libraries so far.
  void (*free_sized)(void *, size_t) = dlsym(RTLD_DEFAULT, "free_sized");
  void (*free_aligned_sized)(void *, size_t, size_t) = dlsym(RTLD_DEFAULT, "free_aligned_sized");
  void (*cfree)(void *) = dlsym(RTLD_DEFAULT, "cfree");
  for (size_t size = 1; size < 2 * MIB; size = size * 2 + 3) {
    if (free_sized) free_sized(malloc(size), size), free_sized(NULL, size);
    if (free_aligned_sized) free_aligned_sized(aligned_alloc(256, size), 256, size);
    if (cfree) cfree(malloc(size));
  }
  return ok();
}
