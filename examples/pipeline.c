// pipeline.c: a zone's limit as back-pressure between threads.
//
// Three stages pass blocks of work on; the last one is the slowest. Nobody bounds the
// queues between them: the zone that the blocks come from has a limit, and the first
// stage waits in its allocation (WAITOK) until the last one frees a block. Sleepers are
// woken in the order in which they came.
//
//   read ──▶ queue ──▶ transform ──▶ queue ──▶ write ── frees the block
//    ▲                                                        │
//    └────────────── keg_zone_alloc(WAITOK) ◀─────────────────┘
//
//   ./pipeline [blocks [limit]]
#include "example.h"

#include <kegmalloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

enum { READERS = 2, BLOCK = 16384 };

struct block {
  struct block *next;
  long number;
  uint64_t sum;
  unsigned char bytes[BLOCK - 24];
};

struct queue {
  pthread_mutex_t lock;
  pthread_cond_t filled;
  struct block *first, **last;
};

static struct queue raw, done;
static keg_zone *blocks;
static long block_count, limit;
static atomic_long next_number, alive, most_alive;

static void put(struct queue *queue, struct block *block) {
  block->next = NULL;
  pthread_mutex_lock(&queue->lock);
  *queue->last = block;
  queue->last = &block->next;
  pthread_cond_signal(&queue->filled);
  pthread_mutex_unlock(&queue->lock);
}

static struct block *get(struct queue *queue) {
  pthread_mutex_lock(&queue->lock);
  while (!queue->first) pthread_cond_wait(&queue->filled, &queue->lock);
  struct block *block = queue->first;
  queue->first = block->next;
  if (!queue->first) queue->last = &queue->first;
  pthread_mutex_unlock(&queue->lock);
  return block;
}

static void *reader(void *unused) {
  (void)unused;
  long number;
  while ((number = atomic_fetch_add(&next_number, 1)) < block_count) {
    struct block *block = keg_zone_alloc(blocks, KEG_WAITOK);
    MUST(block);
    long now = atomic_fetch_add(&alive, 1) + 1, most = atomic_load(&most_alive);
    while (now > most && !atomic_compare_exchange_weak(&most_alive, &most, now)) {}
    block->number = number;
    memset(block->bytes, (int)number, sizeof block->bytes);
    put(&raw, block);
  }
  return NULL;
}

static void *transformer(void *unused) {
  (void)unused;
  for (long i = 0; i < block_count; i++) {
    struct block *block = get(&raw);
    for (size_t k = 0; k < sizeof block->bytes; k++) block->bytes[k] ^= 0x5a;
    put(&done, block);
  }
  return NULL;
}

static void *writer(void *result) {
  for (long i = 0; i < block_count; i++) {
    struct block *block = get(&done);
    uint64_t sum = 0;
    for (int pass = 0; pass < 4; pass++)  // the slowest stage
      for (size_t k = 0; k < sizeof block->bytes; k++) sum = sum * 31 + block->bytes[k];
    MUST(block->bytes[0] == (unsigned char)(block->number ^ 0x5a));
    *(uint64_t *)result += sum + (uint64_t)block->number;
    atomic_fetch_sub(&alive, 1);
    keg_zone_free(blocks, block);
  }
  return NULL;
}

static void start(struct queue *queue) {
  pthread_mutex_init(&queue->lock, NULL);
  pthread_cond_init(&queue->filled, NULL);
  queue->last = &queue->first;
}

int main(int argc, char **argv) {
  block_count = number(argc, argv, 1, 20000);
  blocks = keg_zone_create("blocks", sizeof(struct block), NULL, NULL, NULL, NULL, 0, 0);
  MUST(blocks);
  limit = (long)keg_zone_set_max(blocks, (size_t)number(argc, argv, 2, 16));
  start(&raw), start(&done);
  pthread_t threads[READERS + 2];
  uint64_t result = 0;
  for (int i = 0; i < READERS; i++) MUST(pthread_create(&threads[i], NULL, reader, NULL) == 0);
  MUST(pthread_create(&threads[READERS], NULL, transformer, NULL) == 0);
  MUST(pthread_create(&threads[READERS + 1], NULL, writer, &result) == 0);
  for (int i = 0; i < READERS + 2; i++) pthread_join(threads[i], NULL);
  struct keg_zone_stats stats;
  MUST(keg_zone_stats(blocks, &stats, sizeof stats) == 0);
  printf("%ld blocks of %d bytes through a zone of %ld: at most %ld at once, the readers slept %ld times\n",
         block_count, BLOCK, limit, atomic_load(&most_alive), (long)stats.sleeps);
  MUST(atomic_load(&most_alive) <= limit && stats.sleeps > 0 && stats.sleepers == 0);
  MUST(keg_zone_destroy(blocks, 0) == 0);
  return 0;
}
