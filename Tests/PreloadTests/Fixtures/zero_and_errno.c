// Sizes of zero, sizes that cannot be, and what errno says afterwards.
//
// malloc(0) gives a block of its own; realloc(p, 0) frees as in glibc; every entry
// point answers a size above PTRDIFF_MAX or an overflowing product with NULL and
// ENOMEM, and leaves the old block of a failed realloc alone; free keeps errno.
#include "fixture.h"
#include <malloc.h>

static const size_t huge[] = {(size_t)PTRDIFF_MAX + 1, SIZE_MAX / 2 + 4096, SIZE_MAX - 4096, SIZE_MAX};

#define REFUSES(call)                                                   \
  do {                                                                  \
    errno = 0;                                                          \
    void *refused = (call);                                             \
    CHECK(refused == NULL, #call " gave %p", refused);                  \
    CHECK(errno == ENOMEM, #call " set errno %d", errno);               \
  } while (0)

static void zero(void) {
  void *blocks[100];
  for (int i = 0; i < 100; i++) {
    blocks[i] = i % 4 == 0 ? malloc(0) : i % 4 == 1 ? calloc(0, 8) : i % 4 == 2 ? realloc(NULL, 0) : calloc(8, 0);
    CHECK(blocks[i] != NULL);
    for (int j = 0; j < i; j++) CHECK(blocks[i] != blocks[j], "%d and %d", i, j);
  }
  for (int i = 0; i < 100; i++) free(blocks[i]);

  void *one = NULL;
  CHECK(posix_memalign(&one, 64, 0) == 0);
  free(one);
  free(aligned_alloc(64, 0));
  free(memalign(64, 0));

  for (size_t size = 1; size <= 4 * MIB; size = size * 3 + 1) {
    void *block = malloc(size);
    CHECK(realloc(block, hide_size(0)) == NULL, "size %zu", size);
  }
  // Freed, not leaked: 4,096 blocks of 1 MiB would be 4 GiB.
  for (int i = 0; i < 4096; i++) {
    char *block = malloc(MIB);
    CHECK(block != NULL);
    block[0] = 1;
    CHECK(realloc(block, hide_size(0)) == NULL);
  }
  CHECK(status_kib("VmRSS:") < 512 * 1024, "RSS %zu KiB", status_kib("VmRSS:"));
  free(NULL);
}

static void refused(void) {
  for (size_t i = 0; i < sizeof huge / sizeof *huge; i++) {
    size_t size = hide_size(huge[i]);
    REFUSES(malloc(size));
    REFUSES(calloc(1, size));
    REFUSES(calloc(size, 1));
    REFUSES(realloc(NULL, size));
    REFUSES(reallocarray(NULL, 1, size));
    REFUSES(aligned_alloc(64, size));
    REFUSES(memalign(4096, size));
    REFUSES(valloc(size));
    REFUSES(pvalloc(size));
    void *untouched = &size;
    CHECK(posix_memalign(&untouched, 64, size) == ENOMEM && untouched == &size);
    char *old = malloc(100);
    mark(old, 100, 5);
    REFUSES(realloc(old, size));
    REFUSES(reallocarray(old, 1, size));
    CHECK(is_marked(old, 100, 5));
    free(old);
  }
  REFUSES(calloc(hide_size((size_t)1 << 33), (size_t)1 << 33));
  REFUSES(calloc(hide_size(SIZE_MAX / 2 + 2), 2));
  REFUSES(calloc(hide_size(SIZE_MAX), hide_size(SIZE_MAX)));
  REFUSES(reallocarray(NULL, hide_size((size_t)1 << 32), (size_t)1 << 32));
  REFUSES(reallocarray(NULL, hide_size(SIZE_MAX / 3 + 1), 3));
  REFUSES(aligned_alloc(hide_size((size_t)1 << 62), 1));
  // Within PTRDIFF_MAX, beyond any address space.
  REFUSES(malloc(hide_size(PTRDIFF_MAX)));
  REFUSES(malloc(hide_size((size_t)1 << 60)));
  // The product that overflows to exactly zero.
  REFUSES(calloc(hide_size((size_t)1 << 32), (size_t)1 << 32));
}

static void alignments(void) {
  static const size_t bad[] = {0, 1, 2, 3, 4, 7, 9, 12, 24, 48, 100, 4095, 4097, SIZE_MAX, SIZE_MAX / 2};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    int here;
    void *untouched = &here;
    errno = 77;
    CHECK(posix_memalign(&untouched, hide_size(bad[i]), 64) == EINVAL, "alignment %zu", bad[i]);
    CHECK(untouched == &here && errno == 77, "alignment %zu errno %d", bad[i], errno);
  }
}

static void kept(void) {
  for (size_t size = 1; size <= 256 * MIB; size = size < MIB ? size * 2 + 5 : size * 4) {
    void *block = malloc(size);
    CHECK(block != NULL);
    memset(block, 1, size < MIB ? size : MIB);
    errno = 4242;
    free(block);
    CHECK(errno == 4242, "size %zu: errno %d", size, errno);
  }
  errno = 4242;
  void *many[200];
  for (int i = 0; i < 200; i++) many[i] = malloc(MIB);
  errno = 4242;
  for (int i = 0; i < 200; i++) free(many[i]);
  CHECK(errno == 4242);
  free(NULL);
  CHECK(errno == 4242);
}

int main(void) {
  zero();
  refused();
  alignments();
  kept();
  return ok();
}
