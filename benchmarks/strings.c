// strings: a cache of text under a byte limit.
//
// Models a web cache or an interning table: entries of 16 bytes to 4 KiB with
// a heavy head, looked up by key, replaced when they change, and evicted
// oldest first when the cache is over its limit. Arguments: requests, threads
// (each with a cache of its own).
//
// Punishes slabs that stay pinned by a few old items of every size, and slow
// frees of items that left the processor's cache long ago.
#include "bench.h"

enum { BUCKETS = 1 << 16, LIMIT_BYTES = 24 << 20 };

struct entry {
  struct entry *next, *older, *newer;
  uint64_t key;
  size_t size;
  char *text;
};

struct cache {
  struct entry *buckets[BUCKETS], *oldest, *newest;
  size_t byte_count, limit;
};

static void unlink_age(struct cache *cache, struct entry *entry) {
  if (entry->older) entry->older->newer = entry->newer; else cache->oldest = entry->newer;
  if (entry->newer) entry->newer->older = entry->older; else cache->newest = entry->older;
}

static void append_age(struct cache *cache, struct entry *entry) {
  entry->older = cache->newest;
  entry->newer = NULL;
  if (cache->newest) cache->newest->newer = entry; else cache->oldest = entry;
  cache->newest = entry;
}

static void evict_oldest(struct cache *cache) {
  struct entry *entry = cache->oldest, **link = &cache->buckets[entry->key % BUCKETS];
  while (*link != entry) link = &(*link)->next;
  *link = entry->next;
  unlink_age(cache, entry);
  cache->byte_count -= entry->size;
  free(entry->text);
  free(entry);
}

static struct entry *find(struct cache *cache, uint64_t key) {
  struct entry *entry = cache->buckets[key % BUCKETS];
  while (entry != NULL && entry->key != key) entry = entry->next;
  return entry;
}

static void insert(struct cache *cache, uint64_t key, size_t size) {
  struct entry *entry = (struct entry *)take(sizeof *entry);
  entry->key = key;
  entry->size = size;
  entry->text = (char *)take(size);
  memset(entry->text, (int)key, size);
  entry->next = cache->buckets[key % BUCKETS];
  cache->buckets[key % BUCKETS] = entry;
  append_age(cache, entry);
  cache->byte_count += size;
  while (cache->byte_count > cache->limit) evict_oldest(cache);
}

static void *serve(void *argument) {
  struct worker *me = (struct worker *)argument;
  struct cache *cache = (struct cache *)checked(calloc(1, sizeof *cache));
  cache->limit = LIMIT_BYTES / me->count;
  struct random_state random = random_seed(me->index);
  for (long i = 0; i < me->iterations; i++) {
    uint64_t wide = random_below(&random, 1 << 20), key = wide * wide >> 22;
    struct entry *entry = find(cache, key);
    if (entry == NULL) {
      insert(cache, key, random_size(&random, 16, 4096));
    } else {
      me->sum = mixed(me->sum, peek(entry->text, entry->size));
      unlink_age(cache, entry);
      append_age(cache, entry);
    }
  }
  while (cache->oldest != NULL) evict_oldest(cache);
  free(cache);
  return NULL;
}

int main(int argc, char **argv) {
  long requests = argument(argc, argv, 1, 6000000);
  int threads = (int)argument(argc, argv, 2, 1);
  return finish(run_workers(threads, requests, NULL, serve));
}
