// batch: a thousand allocations, then a thousand frees.
//
// Models request handling: everything a request needs is made, used, and freed
// together; sizes of one request are alike, those of the next are not. Every
// third request frees in reverse order. Arguments: requests, threads.
//
// Punishes caches that hold fewer items than one request takes.
#include "bench.h"

enum { ITEMS = 1000 };

static void *work(void *argument) {
  struct worker *me = (struct worker *)argument;
  uint64_t *items[ITEMS];
  struct random_state random = random_seed(me->index);
  for (long i = 0; i < me->iterations; i++) {
    size_t size = random_size(&random, 16, 512);
    for (int j = 0; j < ITEMS; j++) {
      items[j] = (uint64_t *)take(size + (j & 7));
      *items[j] = (uint64_t)j;
    }
    for (int j = 0; j < ITEMS; j++) {
      uint64_t *item = items[i % 3 == 0 ? ITEMS - 1 - j : j];
      me->sum += *item ^ (uint64_t)i;
      free(item);
    }
  }
  return NULL;
}

int main(int argc, char **argv) {
  long requests = argument(argc, argv, 1, 50000);
  int threads = (int)argument(argc, argv, 2, 1);
  return finish(run_workers(threads, requests, NULL, work));
}
