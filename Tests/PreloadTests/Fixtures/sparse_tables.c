// calloc of large blocks that were used before: zero whatever was written to them, and a
// table that stays nearly empty takes few pages, however often it is made anew.
#include "fixture.h"

enum { BYTES = 16 * MIB };

/// What is written by one turn must not be seen by the next: all of it, each page's last
/// word, a part in the middle, a word in a few pages, nothing.
static void zeros(size_t bytes) {
  uint64_t seed = bytes;
  for (int turn = 0; turn < 20; turn++) {
    uint64_t *block = calloc(1, hide_size(bytes));
    CHECK(block != NULL && is_zero(block, bytes), "%zu bytes, turn %d", bytes, turn);
    if (turn % 5 == 0) memset(block, 1, bytes);
    if (turn % 5 == 1)
      for (size_t i = 511; i < bytes / 8; i += 512) block[i] = 1;
    if (turn % 5 == 2) memset((char *)block + bytes / 3, 2, bytes / 3);
    if (turn % 5 == 3)
      for (int i = 0; i < 50; i++) block[random_next(&seed) % (bytes / 8)] = i + 1;
    free(block);
  }
}

int main(void) {
  uint64_t seed = 1;
  for (int table = 0; table < 200; table++) {
    uint64_t *slots = calloc(BYTES / 8, hide_size(8));
    CHECK(slots != NULL);
    for (int i = 0; i < 100; i++) {
      uint64_t *slot = &slots[random_next(&seed) % (BYTES / 8)];
      CHECK(*slot <= (uint64_t)i, "table %d has an old entry", table);
      *slot = (uint64_t)i + 1;
    }
    free(slots);
  }
  CHECK(status_kib("VmHWM:") < 10 * 1024, "peak of %zu KiB", status_kib("VmHWM:"));
  for (size_t bytes = 256 * KIB; bytes <= BYTES; bytes = bytes * 3 / 2 + 24) zeros(bytes / 8 * 8);
  return ok();
}
