// threads: threads that live for a moment.
//
// Models thread-per-task programs: every thread makes a few allocations,
// leaves one of them to the thread that joins it, and exits.
// Arguments: threads in all, threads alive at a time.
//
// Punishes expensive thread start and exit (attaching and flushing a cache,
// mapping an arena for a thread), and heaps that leak with their thread.
#include "bench.h"

enum { ITEMS = 12 };

static void *task(void *argument) {
  uint64_t seed = (uint64_t)(uintptr_t)argument;
  struct random_state random = random_seed(seed);
  void *items[ITEMS];
  uint64_t *result = (uint64_t *)take(sizeof *result);
  *result = seed;
  for (int i = 0; i < ITEMS; i++) {
    size_t size = random_size(&random, 16, 2048);
    items[i] = take(size);
    touch(items[i], size, (unsigned char)seed);
    *result = mixed(*result, size + peek(items[i], size));
  }
  for (int i = 0; i < ITEMS; i++) free(items[i]);
  return result;
}

int main(int argc, char **argv) {
  long total = argument(argc, argv, 1, 24000);
  long alive = argument(argc, argv, 2, 4);
  pthread_t *threads = (pthread_t *)take(alive * sizeof *threads);
  uint64_t sum = 0;
  for (long made = 0; made < total; made += alive) {
    for (long i = 0; i < alive; i++)
      if (pthread_create(&threads[i], NULL, task, (void *)(made + i)) != 0) return 3;
    for (long i = 0; i < alive; i++) {
      void *result;
      pthread_join(threads[i], &result);
      sum = mixed(sum, *(uint64_t *)result);
      free(result);
    }
  }
  free(threads);
  return finish(sum);
}
