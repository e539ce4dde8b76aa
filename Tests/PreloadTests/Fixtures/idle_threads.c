// Many threads that each used a thousand blocks of many sizes, gave them back, and wait:
// what they keep for themselves is little, and the heap has not grown for each anew.
#include "fixture.h"
#include <malloc.h>
#include <pthread.h>

enum { THREADS = 400, BLOCKS = 1000 };

static pthread_barrier_t barrier;

static void *work(void *argument) {
  uint64_t seed = (uint64_t)(uintptr_t)argument;
  void *blocks[BLOCKS];
  for (int round = 0; round < 3; round++) {
    for (int i = 0; i < BLOCKS; i++) {
      size_t size = 16 + random_size(&seed, 2000);
      blocks[i] = malloc(size);
      memset(blocks[i], 1, size);
    }
    for (int i = 0; i < BLOCKS; i++) free(blocks[i]);
  }
  pthread_barrier_wait(&barrier);
  pthread_barrier_wait(&barrier);
  return NULL;
}

int main(void) {
  pthread_t threads[THREADS];
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 64 * KIB);
  pthread_barrier_init(&barrier, NULL, THREADS + 1);
  size_t before = status_kib("RssAnon:");
  for (uintptr_t i = 0; i < THREADS; i++)
    CHECK(pthread_create(&threads[i], &attributes, work, (void *)(i + 1)) == 0);
  pthread_barrier_wait(&barrier);
  size_t each = (status_kib("RssAnon:") - before) / THREADS, heap = mallinfo2().arena / KIB / THREADS;
  // Stack and thread among it. Without a bound it was 600 KiB, and up to 5 MiB of heap.
  CHECK(each < 250, "%zu KiB a thread", each);
  CHECK(heap < 500, "%zu KiB of heap a thread", heap);
  pthread_barrier_wait(&barrier);
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  puts("ok");
  return 0;
}
