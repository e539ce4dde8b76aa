// aligned: memory with an alignment of its own.
//
// Models vector code and device buffers: posix_memalign, aligned_alloc and
// memalign with 16 bytes to 64 KiB of alignment, mixed with plain malloc, over
// 4,000 live items. Arguments: replacements, threads.
//
// Punishes padding that is lost around aligned items, and a slow path for
// every alignment above 16.
#include "bench.h"

#include <malloc.h>

enum { LIVE = 4000 };

struct item {
  unsigned char *bytes;
  size_t size;
};

/// Memory of one of four functions. Misaligned memory spoils `sum`, so that the
/// run is flagged, yet still has a time.
static unsigned char *take_aligned(unsigned way, size_t alignment, size_t size, uint64_t *sum) {
  void *memory = NULL;
  switch (way) {
    case 0: if (posix_memalign(&memory, alignment, size) != 0) memory = NULL; break;
    case 1: memory = aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment); break;
    case 2: memory = memalign(alignment, size); break;
    default: memory = malloc(size); alignment = 16; break;
  }
  if ((uintptr_t)checked(memory) % alignment != 0) {
    static int told;  // only the first is told
    if (__atomic_fetch_add(&told, 1, __ATOMIC_RELAXED) == 0)
      fprintf(stderr, "aligned: way %u gave %p, not aligned to %zu\n", way, memory, alignment);
    *sum = mixed(*sum, alignment);
  }
  return (unsigned char *)memory;
}

static void *work(void *argument) {
  struct worker *me = (struct worker *)argument;
  size_t live = LIVE / me->count;
  struct item *items = (struct item *)checked(calloc(live, sizeof *items));
  struct random_state random = random_seed(me->index);
  for (long i = 0; i < me->iterations; i++) {
    struct item *item = &items[random_below(&random, live)];
    if (item->bytes != NULL) me->sum += peek(item->bytes, item->size);
    free(item->bytes);
    unsigned large = random_below(&random, 1000) == 0;
    size_t alignment = (size_t)16 << random_below(&random, large ? 13 : 5);
    item->size = random_size(&random, 16, large ? 65536 : 2048);
    item->bytes = take_aligned((unsigned)random_below(&random, 4), alignment, item->size, &me->sum);
    item->bytes[0] = (unsigned char)i;
    item->bytes[item->size - 1] = (unsigned char)item->size;
  }
  for (size_t i = 0; i < live; i++) free(items[i].bytes);
  free(items);
  return NULL;
}

int main(int argc, char **argv) {
  long replacements = argument(argc, argv, 1, 6000000);
  int threads = (int)argument(argc, argv, 2, 1);
  return finish(run_workers(threads, replacements, NULL, work));
}
