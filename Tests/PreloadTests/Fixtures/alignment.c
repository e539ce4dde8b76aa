// Alignment: 16 bytes for every block of 16 bytes and more, and whatever was asked
// for from 8 bytes to 1 GiB; page alignment of valloc and pvalloc; over-aligned
// blocks hold their size, can be freed, and keep their contents over realloc.
#include "fixture.h"
#include <malloc.h>

static int aligned(void *block, size_t alignment) { return ((uintptr_t)block & (alignment - 1)) == 0; }

static void natural(void) {
  for (size_t size = 1; size < 100000; size += size < 2048 ? 1 : 61) {
    void *block = malloc(size), *zeroed = calloc(1, size);
    size_t wanted = size >= 16 ? 16 : 8;
    CHECK(aligned(block, wanted) && aligned(zeroed, wanted), "size %zu", size);
    free(block);
    free(zeroed);
  }
}

static void asked(void) {
  static const size_t sizes[] = {0, 1, 7, 8, 100, 1000, 4096, 5000, 70000, 300000};
  for (size_t alignment = 8; alignment <= GIB; alignment *= 2)
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
      size_t size = sizes[i];
      void *blocks[6] = {NULL};
      CHECK(posix_memalign(&blocks[0], alignment, size) == 0, "%zu of %zu", alignment, size);
      blocks[1] = aligned_alloc(alignment, size);
      blocks[2] = memalign(alignment, size);
      int count = alignment >= 64 * MIB ? 3 : 6;
      for (int k = 3; k < count; k++) blocks[k] = memalign(alignment, size + k);
      for (int k = 0; k < count; k++) {
        CHECK(blocks[k] != NULL, "%zu of %zu", alignment, size);
        CHECK(aligned(blocks[k], alignment), "%p for %zu", blocks[k], alignment);
        CHECK(malloc_usable_size(blocks[k]) >= size);
        mark(blocks[k], size, k);
      }
      for (int k = 0; k < count; k++) {
        CHECK(is_marked(blocks[k], size, k), "%zu of %zu", alignment, size);
        if (k % 2) {
          free(blocks[k]);
        } else {
          char *moved = realloc(blocks[k], size * 2 + 1);
          CHECK(moved != NULL && is_marked(moved, size, k), "realloc from %zu of %zu", alignment, size);
          moved[size * 2] = 1;
          free(moved);
        }
      }
    }
}

int main(void) {
  size_t page = sysconf(_SC_PAGESIZE);
  natural();
  asked();
  for (size_t size = 0; size < 3 * page; size += 509) {
    char *v = valloc(size), *p = pvalloc(size);
    CHECK(aligned(v, page) && aligned(p, page) && v != NULL && p != NULL, "size %zu", size);
    CHECK(malloc_usable_size(p) >= (size + page - 1) / page * page, "pvalloc of %zu", size);
    memset(v, 1, size);
    memset(p, 1, (size + page - 1) / page * page);
    free(v);
    free(p);
  }
  return ok();
}
