// random: a live set larger than the processor's caches, changed at random.
//
// Models an object database: 100,000 live items of 8 to 508 bytes, of which a
// random one is freed and a new one of a random size takes its place.
// Arguments: replacements, threads (each with its share of the items).
//
// Punishes every memory line the allocator touches beyond the item itself:
// headers beside the item, free lists through freed items, tables looked up
// by address.
#include "bench.h"

enum { LIVE = 100000 };

static void *work(void *argument) {
  struct worker *me = (struct worker *)argument;
  size_t live = LIVE / me->count;
  uint32_t **items = (uint32_t **)checked(calloc(live, sizeof *items));
  struct random_state random = random_seed(me->index);
  for (long i = 0; i < me->iterations; i++) {
    uint64_t word = random_next(&random);
    uint32_t **slot = &items[(word >> 32) % live];
    if (*slot != NULL) me->sum += **slot;
    free(*slot);
    *slot = (uint32_t *)take(8 + (word & 511) % 501);
    **slot = (uint32_t)word;
  }
  for (size_t i = 0; i < live; i++) free(items[i]);
  free(items);
  return NULL;
}

int main(int argc, char **argv) {
  long replacements = argument(argc, argv, 1, 16000000);
  int threads = (int)argument(argc, argv, 2, 1);
  return finish(run_workers(threads, replacements, NULL, work));
}
