// idpool.c: identifiers from a bitmap, cached by a zone.
//
// The items are not memory: they are the numbers 1 … n, and a bitmap under one lock says
// which are taken. Behind a cache zone the bitmap is asked for a bucket at a time; what
// threads allocate and free in between moves through their arrays without a lock. This
// is what was recommended to the driver that sendtags.c is about.
//
//   threads ──▶ cache zone: arrays, depot ──import, release: many at once──▶ bitmap, lock
//
//   ./idpool [rounds of each thread]
#include "example.h"

#include <kegmalloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

enum { IDS = 4096, THREADS = 4, HELD = 64 };

struct bitmap {
  pthread_mutex_t lock;
  uint64_t taken[IDS / 64];
  long imports, releases;
};

static atomic_int owner[IDS + 1];

static int import(void *argument, void **items, int count, int flags) {
  (void)flags;
  struct bitmap *bitmap = argument;
  int found = 0;
  pthread_mutex_lock(&bitmap->lock);
  for (int word = 0; word < IDS / 64 && found < count; word++) {
    while (found < count && ~bitmap->taken[word]) {
      int bit = __builtin_ctzll(~bitmap->taken[word]);
      bitmap->taken[word] |= (uint64_t)1 << bit;
      items[found++] = (void *)(uintptr_t)(word * 64 + bit + 1);  // not NULL
    }
  }
  bitmap->imports++;
  pthread_mutex_unlock(&bitmap->lock);
  return found;
}

static void release(void *argument, void **items, int count) {
  struct bitmap *bitmap = argument;
  pthread_mutex_lock(&bitmap->lock);
  for (int i = 0; i < count; i++) {
    uintptr_t id = (uintptr_t)items[i] - 1;
    MUST(bitmap->taken[id / 64] >> id % 64 & 1);
    bitmap->taken[id / 64] &= ~((uint64_t)1 << id % 64);
  }
  bitmap->releases++;
  pthread_mutex_unlock(&bitmap->lock);
}

static keg_zone *ids;
static atomic_long taken;

static void *use(void *argument) {
  long rounds = *(long *)argument;
  uintptr_t held[HELD] = {0};
  uint64_t seed = (uintptr_t)&held;
  for (long i = 0; i < rounds; i++) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    int k = (seed >> 33) % HELD;
    if (held[k]) {
      MUST(atomic_exchange(&owner[held[k]], 0) == 1);
      keg_zone_free(ids, (void *)held[k]);
      held[k] = 0;
    } else {
      held[k] = (uintptr_t)keg_zone_alloc(ids, KEG_NOWAIT);
      if (!held[k]) continue;
      atomic_fetch_add_explicit(&taken, 1, memory_order_relaxed);
      MUST(held[k] <= IDS && atomic_exchange(&owner[held[k]], 1) == 0);
    }
  }
  for (int k = 0; k < HELD; k++) {
    if (!held[k]) continue;
    atomic_store(&owner[held[k]], 0);
    keg_zone_free(ids, (void *)held[k]);
  }
  return NULL;
}

int main(int argc, char **argv) {
  static struct bitmap bitmap = {.lock = PTHREAD_MUTEX_INITIALIZER};
  long rounds = number(argc, argv, 1, 1000000);
  ids = keg_zone_create_cache("ids", 1, NULL, NULL, NULL, NULL, import, release, &bitmap, KEG_ZONE_NOTOUCH);
  MUST(ids);
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++) MUST(pthread_create(&threads[i], NULL, use, &rounds) == 0);
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  printf("%ld identifiers taken and given back by %d threads; the bitmap was asked %ld times\n",
         atomic_load(&taken), THREADS, bitmap.imports + bitmap.releases);
  MUST((bitmap.imports + bitmap.releases) * 4 < atomic_load(&taken));
  // Destroying the zone brings every cached identifier back.
  MUST(keg_zone_destroy(ids, 0) == 0);
  for (int word = 0; word < IDS / 64; word++) MUST(bitmap.taken[word] == 0);
  printf("all %d are free in the bitmap\n", IDS);
  return 0;
}
