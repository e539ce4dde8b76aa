// aligned_alloc and memalign refuse an alignment that is no power of two with NULL
// and EINVAL, as POSIX and C say and as newer C libraries do.
#include "fixture.h"
#include <malloc.h>

int main(void) {
  static const size_t bad[] = {0, 3, 7, 12, 24, 48, 100, 4097, SIZE_MAX, SIZE_MAX / 2};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    size_t alignment = hide_size(bad[i]);
    errno = 0;
    CHECK(aligned_alloc(alignment, 64) == NULL, "alignment %zu", alignment);
    CHECK(errno == EINVAL, "alignment %zu errno %d", alignment, errno);
    errno = 0;
    CHECK(memalign(alignment, 64) == NULL, "alignment %zu", alignment);
    CHECK(errno == EINVAL, "alignment %zu errno %d", alignment, errno);
  }
  // Small powers of two are no error.
  for (size_t alignment = 1; alignment <= 16; alignment *= 2) {
    void *a = memalign(alignment, 5), *b = aligned_alloc(alignment, 5);
    CHECK(a != NULL && b != NULL, "alignment %zu", alignment);
    free(a);
    free(b);
  }
  return ok();
}
