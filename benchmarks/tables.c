// tables: zeroed tables from calloc.
//
// Models hash tables and sparse matrices: a set of open-addressing tables that
// double when half full, each new table a calloc of 128 bytes to 1 MiB, of
// which only some lines are written; every 64th request is a 16 MiB table that
// is nearly empty. Arguments: tables, threads.
//
// Punishes clearing memory that the kernel has just cleared, and touching
// pages that the program never will.
#include "bench.h"

enum { BIG_ONE_IN = 64, BIG_SLOTS = 2 << 20 };

/// Fills one table up to `keys` keys from 16 slots on.
static uint64_t fill(struct random_state *random, size_t keys) {
  size_t slots = 16, used = 0;
  uint64_t *table = (uint64_t *)checked(calloc(slots, sizeof *table)), collisions = 0;
  while (used < keys) {
    if (used * 2 >= slots) {
      uint64_t *wider = (uint64_t *)checked(calloc(slots * 2, sizeof *wider));
      for (size_t i = 0; i < slots; i++) {
        size_t at = table[i] >> 20;
        if (table[i] == 0) continue;
        while (wider[at % (slots * 2)] != 0) at++;
        wider[at % (slots * 2)] = table[i];
      }
      free(table);
      table = wider;
      slots *= 2;
    }
    uint64_t key = random_next(random) | 1;
    size_t at = key >> 20;
    while (table[at % slots] != 0) at++, collisions++;
    table[at % slots] = key;
    used++;
  }
  free(table);
  return collisions;
}

static uint64_t sparse(struct random_state *random) {
  uint64_t *table = (uint64_t *)checked(calloc(BIG_SLOTS, sizeof *table)), sum = 0;
  for (int i = 0; i < 100; i++) {
    table[random_below(random, BIG_SLOTS)] = 1;
    sum += table[random_below(random, BIG_SLOTS)];
  }
  free(table);
  return sum;
}

static void *work(void *argument) {
  struct worker *me = (struct worker *)argument;
  struct random_state random = random_seed(me->index);
  for (long i = 0; i < me->iterations; i++) {
    if (i % BIG_ONE_IN == 0) me->sum = mixed(me->sum, sparse(&random));
    else me->sum = mixed(me->sum, fill(&random, random_size(&random, 4, 60000)));
  }
  return NULL;
}

int main(int argc, char **argv) {
  long tables = argument(argc, argv, 1, 6000);
  int threads = (int)argument(argc, argv, 2, 1);
  return finish(run_workers(threads, tables, NULL, work));
}
