// mallinfo, mallinfo2, mallopt, malloc_trim and malloc_stats answer from the heap that
// the program uses; the case named `info` writes malloc_info's XML to standard output.
#include "fixture.h"
#include <malloc.h>

enum { COUNT = 20000 };
static char *blocks[COUNT];

static size_t plausible(size_t used_before, size_t allocated) {
  struct mallinfo2 info = mallinfo2();
  size_t used = info.uordblks + info.hblkhd;
  CHECK(used - used_before > allocated - allocated / 50, "%zu more after %zu", used - used_before, allocated);
  CHECK(used - used_before < allocated + allocated / 3, "%zu more after %zu", used - used_before, allocated);
  CHECK(info.arena + info.hblkhd >= used, "arena %zu, hblkhd %zu, used %zu", info.arena, info.hblkhd, used);
  return used;
}

static void figures(void) {
  struct mallinfo2 start = mallinfo2();
  size_t before = start.uordblks + start.hblkhd, total = 0;
  for (int i = 0; i < COUNT; i++) {
    blocks[i] = malloc(1000);
    memset(blocks[i], 1, 1000);
    total += malloc_usable_size(blocks[i]);
  }
  plausible(before, total);
  char *large[20];
  for (int i = 0; i < 20; i++) {
    large[i] = malloc(3 * MIB);
    memset(large[i], 1, 3 * MIB);
    total += malloc_usable_size(large[i]);
  }
  plausible(before, total);
  for (int i = 0; i < 20; i++) free(large[i]);
  for (int i = 0; i < COUNT; i++) free(blocks[i]);
  malloc_trim(0);
  struct mallinfo2 end = mallinfo2();
  CHECK(end.uordblks + end.hblkhd < before + MIB, "%zu in use after everything was freed, %zu before",
        end.uordblks + end.hblkhd, before);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
  struct mallinfo old = mallinfo();
#pragma GCC diagnostic pop
  CHECK((size_t)(unsigned)old.uordblks <= end.uordblks + MIB);
}

static void trim(void) {
  size_t before = status_kib("VmRSS:");
  for (int i = 0; i < COUNT; i++) blocks[i] = malloc(3300), memset(blocks[i], 1, 3300);  // 64 MiB
  size_t peak = status_kib("VmRSS:");
  CHECK(peak > before + 60 * 1024);
  for (int i = 0; i < COUNT; i++) free(blocks[i]);
  errno = 77;
  CHECK(malloc_trim(0) == 1, "nothing was returned");
  CHECK(errno == 77, "errno %d", errno);
  size_t after = status_kib("VmRSS:");
  CHECK(after < before + 8 * 1024, "%zu KiB before, %zu at the peak, %zu after", before, peak, after);
  // And it all works on.
  for (int i = 0; i < COUNT; i++) {
    blocks[i] = calloc(1, 3300);
    CHECK(is_zero(blocks[i], 3300));
  }
  for (int i = 0; i < COUNT; i++) free(blocks[i]);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  if (!strcmp(argv[1], "info")) {
    for (int i = 0; i < 1000; i++) blocks[i] = malloc(i * 10);
    CHECK(malloc_info(0, stdout) == 0);
    fflush(stdout);
    errno = 0;
    CHECK(malloc_info(1, stdout) != 0, "options other than 0 are an error");
    return 0;
  }
  if (!strcmp(argv[1], "stats")) {
    malloc_stats();  // to standard error
    return ok();
  }
  if (!strcmp(argv[1], "trim")) {
    trim();
    return ok();
  }
  // Tuning that means nothing here is accepted or refused, never fatal.
  mallopt(M_ARENA_MAX, 1);
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
  mallopt(12345, 1);
  figures();
  return ok();
}
