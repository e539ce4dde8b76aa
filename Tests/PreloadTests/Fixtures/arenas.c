// The arena calls of kegmalloc.h, linked: one case for each of A01 to A14 on what the
// program can see of it, then misuse, threads, fork and signal handlers.
#include "fixture.h"
#include <dlfcn.h>
#include <kegmalloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>

static uintptr_t take(keg_arena *arena, size_t size) {
  uintptr_t start = UINTPTR_MAX;
  int error = keg_arena_alloc(arena, size, 0, &start);
  CHECK(error == 0, "%s: %d", keg_arena_name(arena), error);
  return start;
}

static struct keg_arena_stats stats_of(keg_arena *arena) {
  struct keg_arena_stats stats;
  CHECK(keg_arena_stats(arena, &stats, sizeof stats) == 0);
  CHECK(stats.total == stats.allocated + stats.free + stats.cached);
  return stats;
}

// ---- A01: a general allocator of integers ----------------------------------------

static void identifiers(void) {
  keg_arena *ids = keg_arena_create("ids", 100, 200, 1, 0);
  CHECK(ids && !strcmp(keg_arena_name(ids), "ids") && keg_arena_find("ids") == ids);
  char seen[300] = {0};
  for (int i = 0; i < 200; i++) {
    uintptr_t id = take(ids, 1);
    CHECK(id >= 100 && id < 300 && !seen[id], "%zu", (size_t)id);
    seen[id] = 1;
  }
  uintptr_t id = 7;
  CHECK(keg_arena_alloc(ids, 1, 0, &id) == ENOMEM && id == 7);
  CHECK(keg_arena_free(ids, 177, 1) == 0);
  CHECK(take(ids, 1) == 177);
  CHECK(keg_arena_destroy(ids, 0) == EBUSY);
  for (id = 100; id < 300; id++) CHECK(keg_arena_free(ids, id, 1) == 0);
  CHECK(keg_arena_destroy(ids, 0) == 0);
  CHECK(keg_arena_find("ids") == NULL);

  // 0 is an identifier like any other, and the last but one is the last.
  keg_arena *all = keg_arena_create("all", 0, UINTPTR_MAX, 1, 0);
  CHECK(take(all, 1) == 0 && take(all, UINTPTR_MAX - 1) == 1);
  CHECK(keg_arena_alloc(all, 1, 0, &id) == ENOMEM);
  CHECK(keg_arena_destroy(all, KEG_DESTROY_FORCE) == 0);
}

// ---- A02: the tags cover their spans ------------------------------------------------

struct covering {
  uintptr_t span_end, end;
  size_t free, busy, spans;
  unsigned last;
};

static int cover(void *argument, const struct keg_arena_segment *segment) {
  struct covering *c = argument;
  CHECK(segment->size != 0);
  if (segment->kind & (KEG_ARENA_SPAN | KEG_ARENA_IMPORTED)) {
    CHECK(c->end == c->span_end, "a span is not covered");
    CHECK(segment->start >= c->span_end, "spans overlap");
    c->end = segment->start;
    c->span_end = segment->start + segment->size;
    c->spans++;
  } else {
    CHECK(segment->start == c->end, "a gap at %zu", (size_t)c->end);
    CHECK(segment->kind != KEG_ARENA_FREE || c->last != KEG_ARENA_FREE, "two free neighbours");
    c->end += segment->size;
    *(segment->kind == KEG_ARENA_FREE ? &c->free : &c->busy) += segment->size;
  }
  c->last = segment->kind;
  return 0;
}

static void walking(void) {
  keg_arena *arena = keg_arena_create("walk", 1000, 1000, 2, 0);
  CHECK(keg_arena_add(arena, 4000, 2000) == 0 && keg_arena_add(arena, 2000, 500) == 0);
  CHECK(keg_arena_add(arena, 2400, 2) == EEXIST && keg_arena_add(arena, 3001, 2) == EINVAL);
  struct { uintptr_t start; size_t size; } held[200] = {{0}};
  uint64_t seed = 42;
  for (int round = 0; round < 20000; round++) {
    int i = random_next(&seed) % 200;
    if (held[i].size) {
      CHECK(keg_arena_free(arena, held[i].start, held[i].size) == 0);
      held[i].size = 0;
    } else {
      size_t size = random_next(&seed) % 60 + 1;
      if (keg_arena_alloc(arena, size, 0, &held[i].start) == 0) held[i].size = size;
    }
    if (round % 500 == 0) {
      struct covering c = {0};
      CHECK(keg_arena_walk(arena, ~0, cover, &c) == 0 && c.end == c.span_end);
      CHECK(c.spans == 3 && c.free + c.busy == 3500);
      CHECK(c.busy == keg_arena_size(arena, KEG_ARENA_ALLOCATED));
      CHECK(c.free == keg_arena_size(arena, KEG_ARENA_AVAILABLE));
    }
  }
  CHECK(keg_arena_destroy(arena, KEG_DESTROY_FORCE) == 0);
}

// ---- A03: which segment is taken -----------------------------------------------------

static void fits(void) {
  keg_arena *arena = keg_arena_create("fit", 0, 64, 1, 0);
  // [0,5) and [6,15) free, the rest busy: lists 4…7 and 8…15.
  CHECK(take(arena, 5) == 0 && take(arena, 1) == 5 && take(arena, 9) == 6 && take(arena, 49) == 15);
  keg_arena_free(arena, 0, 5), keg_arena_free(arena, 6, 9);
  uintptr_t start;
  // Every member of the list 8…15 is sure to hold 5; that of 4…7 is not.
  CHECK(keg_arena_alloc(arena, 5, KEG_ARENA_INSTANTFIT, &start) == 0 && start == 6, "%zu", (size_t)start);
  CHECK(keg_arena_free(arena, 6, 5) == 0);
  CHECK(keg_arena_alloc(arena, 5, KEG_ARENA_BESTFIT, &start) == 0 && start == 0, "%zu", (size_t)start);
  CHECK(keg_arena_free(arena, 0, 5) == 0);
  CHECK(take(arena, 9) == 6);
  // Nothing surely fits: the instant fit becomes a best fit.
  CHECK(keg_arena_alloc(arena, 5, KEG_ARENA_INSTANTFIT, &start) == 0 && start == 0);
  CHECK(keg_arena_destroy(arena, KEG_DESTROY_FORCE) == 0);
}

// ---- A04: constraints, against a model of every integer --------------------------------

enum { MODEL = 256, BASE = 1 << 12 };
static unsigned char model[MODEL];

static int is_free(uintptr_t start, size_t size) {
  for (uintptr_t i = start; i < start + size; i++)
    if (i < BASE || i >= BASE + MODEL || model[i - BASE]) return 0;
  return 1;
}

static int obeys(uintptr_t start, size_t size, size_t align, size_t phase, size_t nocross,
                 uintptr_t min, uintptr_t max) {
  return (start - phase) % align == 0 && start >= min && start + size - 1 <= max &&
         (nocross == 0 || start / nocross == (start + size - 1) / nocross);
}

static void constraints(void) {
  keg_arena *arena = keg_arena_create("constraints", BASE, MODEL, 1, 0);
  struct { uintptr_t start; size_t size; } held[64] = {{0}};
  uint64_t seed = 7;
  int found = 0;
  for (int round = 0; round < 100000; round++) {
    int i = random_next(&seed) % 64;
    if (held[i].size) {
      CHECK(keg_arena_xfree(arena, held[i].start, held[i].size) == 0);
      memset(model + (held[i].start - BASE), 0, held[i].size);
      held[i].size = 0;
      continue;
    }
    size_t size = random_next(&seed) % 24 + 1, align = (size_t)1 << random_next(&seed) % 5;
    size_t phase = random_next(&seed) % align;
    size_t nocross = random_next(&seed) % 2 ? 0 : (size_t)32 << random_next(&seed) % 2;
    uintptr_t min = random_next(&seed) % 3 ? 0 : BASE + random_next(&seed) % MODEL;
    uintptr_t max = random_next(&seed) % 3 ? UINTPTR_MAX : min + random_next(&seed) % MODEL;
    if (max < min) max = min;
    int flags = random_next(&seed) % 2 ? KEG_ARENA_BESTFIT : KEG_ARENA_INSTANTFIT;
    uintptr_t start;
    int error = keg_arena_xalloc(arena, size, align, phase, nocross, min, max, flags, &start);
    if (error == 0) {
      CHECK(is_free(start, size) && obeys(start, size, align, phase, nocross, min, max),
            "%zu+%zu align %zu phase %zu nocross %zu min %zu max %zu", (size_t)start, size, align,
            phase, nocross, (size_t)min, (size_t)max);
      memset(model + (start - BASE), 1, size);
      held[i].start = start, held[i].size = size;
      found++;
      continue;
    }
    CHECK(error == ENOMEM, "%d", error);
    for (uintptr_t s = BASE; s < BASE + MODEL; s++)
      CHECK(!(is_free(s, size) && obeys(s, size, align, phase, nocross, min, max)),
            "missed %zu+%zu", (size_t)s, size);
  }
  CHECK(found > 10000, "%d", found);
  uintptr_t start;
  CHECK(keg_arena_xalloc(arena, 1, 3, 0, 0, 0, UINTPTR_MAX, 0, &start) == EINVAL);
  CHECK(keg_arena_xalloc(arena, 1, 4, 4, 0, 0, UINTPTR_MAX, 0, &start) == EINVAL);
  CHECK(keg_arena_xalloc(arena, 9, 1, 0, 8, 0, UINTPTR_MAX, 0, &start) == EINVAL);
  CHECK(keg_arena_xalloc(arena, 1, 1, 0, 0, 2, 1, 0, &start) == EINVAL);
  CHECK(keg_arena_xalloc(arena, 0, 1, 0, 0, 0, UINTPTR_MAX, 0, &start) == EINVAL);
  CHECK(keg_arena_destroy(arena, KEG_DESTROY_FORCE) == 0);
}

// ---- A05: stacking --------------------------------------------------------------------

struct source {
  uintptr_t next, released;
  size_t released_size;
  size_t gap;  // between two spans, so that they do not look like one
  int imports, releases, fails;
  keg_arena *other;
};

static int import(void *argument, size_t size, uintptr_t *start) {
  struct source *source = argument;
  if (source->fails) return ENOMEM;
  // The program's functions may use the allocator, arenas among it.
  char *note = malloc(100000);
  CHECK(note);
  free(note);
  if (source->other) keg_arena_free(source->other, take(source->other, 3), 3);
  *start = source->next;
  source->next += size + source->gap;
  source->imports++;
  return 0;
}

static void release(void *argument, uintptr_t start, size_t size) {
  struct source *source = argument;
  source->released = start;
  source->released_size = size;
  source->releases++;
}

static void stacking(void) {
  struct source source = {.next = 1 << 20, .gap = 1024};
  source.other = keg_arena_create("other", 0, 100, 1, 0);
  keg_arena *base = keg_arena_create("base", 0, 0, 16, 0);
  CHECK(keg_arena_set_import(base, import, release, &source, 1024) == 0);
  CHECK(keg_arena_set_import(base, import, release, &source, 0) == EBUSY);
  keg_arena *top = keg_arena_create("top", 0, 0, 16, 0);
  CHECK(keg_arena_set_source(top, base, 64) == 0);
  CHECK(keg_arena_set_source(base, top, 0) == EINVAL && keg_arena_set_source(top, top, 0) == EINVAL);
  CHECK(keg_arena_destroy(base, 0) == EBUSY);

  uintptr_t a = take(top, 32), b = take(top, 32), c = take(top, 48);
  CHECK(source.imports == 1 && a == 1 << 20 && b == a + 32 && c == a + 64, "%d", source.imports);
  CHECK(stats_of(top).imports == 2 && stats_of(top).spans == 2);
  CHECK(stats_of(base).allocated == 128 && stats_of(base).total == 1024);
  CHECK(keg_arena_free(top, a, 32) == 0 && source.releases == 0 && stats_of(top).releases == 0);
  CHECK(keg_arena_free(top, b, 32) == 0 && stats_of(top).releases == 1 && source.releases == 0);
  CHECK(keg_arena_free(top, c, 48) == 0 && stats_of(top).releases == 2);
  CHECK(source.releases == 1 && source.released == 1 << 20 && source.released_size == 1024);

  // More than the import quantum; an alignment; nothing to be had.
  uintptr_t big = take(top, 5000), aligned;
  CHECK(stats_of(top).total >= 5000);
  CHECK(keg_arena_xalloc(top, 64, 4096, 16, 0, 0, UINTPTR_MAX, 0, &aligned) == 0 && aligned % 4096 == 16);
  source.fails = 1;
  uintptr_t none = 5;
  CHECK(keg_arena_alloc(top, 100000, 0, &none) == ENOMEM && none == 5);
  source.fails = 0;
  CHECK(keg_arena_alloc(top, 100000, KEG_ARENA_NOIMPORT, &none) == ENOMEM && none == 5);
  int before = source.imports;
  CHECK(keg_arena_alloc(top, 100000, 0, &none) == 0 && source.imports == before + 1);
  CHECK(keg_arena_free(top, big, 5000) == 0);
  // By force: everything goes back, down to the program's functions.
  CHECK(keg_arena_destroy(top, 0) == EBUSY && keg_arena_destroy(top, KEG_DESTROY_FORCE) == 0);
  CHECK(source.releases == source.imports && stats_of(base).total == 0);
  CHECK(keg_arena_destroy(base, 0) == 0 && keg_arena_destroy(source.other, 0) == 0);
}

// ---- A06, A10: without memory for tags ---------------------------------------------------

static void no_memory(void) {
  enum { COUNT = 400000, RESERVED = 1000 };
  uintptr_t *ids = malloc(COUNT * sizeof *ids);
  CHECK(ids);
  memset(ids, 0, COUNT * sizeof *ids);
  keg_arena *sparse = keg_arena_create("sparse", 0, (size_t)1 << 40, 1, 0);
  keg_arena *reserved = keg_arena_create("reserved", 0, (size_t)1 << 40, 1, 0);
  CHECK(keg_arena_reserve(reserved, RESERVED) == 0);
  CHECK(keg_arena_reserve(reserved, SIZE_MAX) == ENOMEM);
  // From here on the process gets no more address space.
  struct rlimit none = {1 << 20, RLIM_INFINITY};
  CHECK(setrlimit(RLIMIT_AS, &none) == 0);
  size_t count = 0;
  int error = 0;
  while (count < COUNT && (error = keg_arena_alloc(sparse, 1, 0, &ids[count])) == 0) count++;
  CHECK(error == ENOMEM && count > 0, "%zu allocated, error %d", count, error);
  for (int i = 0; i < RESERVED; i++)
    CHECK(take(reserved, 1) == (uintptr_t)i, "the reserve ended after %d", i);
  // Every other first: no neighbour coalesces, every free has its tag all the same.
  for (size_t i = 0; i < count; i += 2) CHECK(keg_arena_free(sparse, ids[i], 1) == 0);
  for (size_t i = 1; i < count; i += 2) CHECK(keg_arena_free(sparse, ids[i], 1) == 0);
  CHECK(keg_arena_size(sparse, KEG_ARENA_ALLOCATED) == 0);
  CHECK(keg_arena_size(sparse, KEG_ARENA_LARGEST) == (size_t)1 << 40);
  CHECK(take(sparse, 1) < (size_t)1 << 40);
}

// ---- A07, A08, A09, A11: tables, tags, sizes ------------------------------------------------

static void sizes(void) {
  keg_arena *heap = keg_arena_find("heap");
  keg_arena *arena = keg_arena_create("sizes", 4096, 1 << 20, 16, 0);
  struct keg_arena_segment segment;
  // The tags are not where the program's memory is.
  char *block = malloc(1 << 20);
  CHECK(keg_arena_whatis(heap, (uintptr_t)block, &segment) == 0 && segment.kind == KEG_ARENA_BUSY);
  CHECK(keg_arena_whatis(heap, (uintptr_t)arena, &segment) == ENOENT);
  free(block);

  CHECK(keg_arena_size(arena, KEG_ARENA_ALLOCATED | KEG_ARENA_AVAILABLE) == 1 << 20);
  CHECK(keg_arena_size(arena, KEG_ARENA_LARGEST) == 1 << 20);
  struct keg_arena_stats before = stats_of(arena);
  CHECK(before.spans == 1 && before.quantum == 16 && before.hash_buckets == 1);
  enum { COUNT = 20000 };
  for (int i = 0; i < COUNT; i++) take(arena, 17);
  struct keg_arena_stats after = stats_of(arena);
  CHECK(after.allocated == COUNT * 32 && after.allocations == COUNT && after.failures == 0);
  CHECK(after.largest_free == (1 << 20) - COUNT * 32);
  CHECK(after.hash_buckets == 16384, "%zu", after.hash_buckets);
  CHECK(after.tags >= COUNT + 2 && after.tags <= COUNT + 32, "%zu", after.tags);
  CHECK(after.tag_bytes == after.tags * 80);
  // An older program's shorter struct.
  size_t three[4] = {0, 0, 0, 99};
  CHECK(keg_arena_stats(arena, (struct keg_arena_stats *)three, 24) == 0);
  CHECK(three[0] == 1 << 20 && three[1] == after.allocated && three[3] == 99);
  CHECK(keg_arena_destroy(arena, KEG_DESTROY_FORCE) == 0);

  struct source source = {.next = 0, .gap = 16};
  keg_arena *limited = keg_arena_create("limited", 0, 0, 16, 0);
  CHECK(keg_arena_set_import(limited, import, release, &source, 0) == 0);
  CHECK(keg_arena_set_limit(limited, 1024) == 0);
  uintptr_t a = take(limited, 512), b = take(limited, 512), c = 5;
  CHECK(keg_arena_alloc(limited, 16, 0, &c) == ENOMEM && c == 5 && source.imports == 2);
  CHECK(keg_arena_set_limit(limited, 1040) == 0 && keg_arena_alloc(limited, 16, 0, &c) == 0);
  keg_arena_free(limited, a, 512), keg_arena_free(limited, b, 512), keg_arena_free(limited, c, 16);
  CHECK(source.releases == 3 && keg_arena_destroy(limited, 0) == 0);
}

// ---- A12: what is at an address ------------------------------------------------------------

static void whereabouts(void) {
  keg_arena *heap = keg_arena_find("heap");
  struct keg_arena_segment segment;
  void *pages[16];
  char *block = malloc(3 * MIB);
  CHECK(keg_arena_whatis(heap, (uintptr_t)block + 2 * MIB + 5, &segment) == 0);
  CHECK(segment.kind == KEG_ARENA_BUSY && segment.size >= 3 * MIB);
  CHECK(segment.start + segment.offset == (uintptr_t)block + 2 * MIB + 5);
  // The last few freed blocks wait for the next allocation; this one must not.
  free(block);
  for (int i = 0; i < 16; i++) pages[i] = malloc((4 + i) * MIB);
  for (int i = 0; i < 16; i++) free(pages[i]);
  CHECK(keg_reclaim(KEG_RECLAIM_DRAIN) == 0);
  CHECK(keg_arena_whatis(heap, (uintptr_t)block, &segment) == 0);
  CHECK(segment.kind == KEG_ARENA_FREE || segment.kind == KEG_ARENA_PURGING, "%u", segment.kind);
  CHECK(keg_arena_whatis(heap, (uintptr_t)&segment, &segment) == ENOENT);
  struct covering c = {0};
  c.last = 0;
  CHECK(keg_arena_walk(heap, KEG_ARENA_SPAN | KEG_ARENA_IMPORTED, cover, &c) != 1 && c.spans >= 1);
  uintptr_t start = 5;
  CHECK(keg_arena_alloc(heap, 65536, 0, &start) == EPERM && keg_arena_destroy(heap, 0) == EPERM);
  CHECK(keg_arena_set_limit(heap, 0) == EPERM && keg_arena_free(heap, 65536, 65536) == EPERM);

  keg_arena *device = keg_arena_create("device", 0xF0000000u, 0x10000, 0x1000, 0);
  uintptr_t bar = take(device, 0x2000);
  CHECK(keg_arena_whatis(device, bar + 0x1234, &segment) == 0 && segment.kind == KEG_ARENA_BUSY);
  CHECK(segment.start == bar && segment.size == 0x2000 && segment.offset == 0x1234);
  CHECK(keg_arena_whatis(device, 0xF000FFFF, &segment) == 0 && segment.kind == KEG_ARENA_FREE);
  CHECK(keg_arena_whatis(device, 0xF0010000, &segment) == ENOENT);
  CHECK(keg_arena_whatis(device, 0xEFFFFFFF, &segment) == ENOENT);
  CHECK(keg_arena_destroy(device, KEG_DESTROY_FORCE) == 0);
}

// ---- A13, A14: quantum caches ----------------------------------------------------------------

static int count(void *argument, const struct keg_arena_segment *segment) {
  *(size_t *)argument += segment->size;
  return 0;
}

static void caches(void) {
  struct source source = {.next = 1 << 20, .gap = 8192};
  keg_arena *arena = keg_arena_create("cached", 0, 0, 4096, 4 * 4096);
  CHECK(keg_arena_set_import(arena, import, release, &source, 1 << 16) == 0);
  uintptr_t first = take(arena, 4096);
  CHECK(keg_arena_free(arena, first, 4096) == 0);
  struct keg_arena_stats before = stats_of(arena);
  CHECK(before.cached == 4096 && before.allocated == 0 && source.releases == 0);
  for (int i = 0; i < 100000; i++) {
    uintptr_t page = take(arena, 4096);
    CHECK(page == first);
    CHECK(keg_arena_free(arena, page, 4096) == 0);
  }
  struct keg_arena_stats after = stats_of(arena);
  // Each of them came from the cache, and no tag moved.
  CHECK(after.cache_hits - before.cache_hits == 100000, "%zu", after.cache_hits - before.cache_hits);
  CHECK(after.tags == before.tags && after.imports == 1 && after.free == before.free);
  size_t cached = 0;
  CHECK(keg_arena_walk(arena, KEG_ARENA_CACHED, count, &cached) == 0 && cached == 4096);
  struct keg_arena_segment segment;
  CHECK(keg_arena_whatis(arena, first + 1, &segment) == 0 && segment.kind == KEG_ARENA_CACHED);
  CHECK(keg_arena_reap(arena) == 0 && source.releases == 1 && stats_of(arena).total == 0);

  // More than a cache holds: the rest is freed at once. keg_reclaim takes what it holds.
  uintptr_t pages[64];
  for (int i = 0; i < 64; i++) pages[i] = take(arena, 4096);
  for (int i = 0; i < 64; i++) CHECK(keg_arena_free(arena, pages[i], 4096) == 0);
  struct keg_arena_stats full = stats_of(arena);
  CHECK(full.cached == 16 * 4096 && full.allocated == 0, "%zu", full.cached);
  CHECK(keg_reclaim(KEG_RECLAIM_TRIM) == 0 && stats_of(arena).cached == 16 * 4096);
  CHECK(keg_reclaim(KEG_RECLAIM_DRAIN) == 0 && stats_of(arena).cached == 0);
  CHECK(stats_of(arena).total == 0 && source.releases == source.imports);
  // xalloc and xfree pass the caches by; either free takes either's.
  uintptr_t x;
  CHECK(keg_arena_xalloc(arena, 4096, 8192, 0, 0, 0, UINTPTR_MAX, 0, &x) == 0 && x % 8192 == 0);
  uintptr_t y = take(arena, 4096);
  CHECK(keg_arena_free(arena, x, 4096) == 0 && keg_arena_xfree(arena, y, 4096) == 0);
  CHECK(stats_of(arena).total == 0 && stats_of(arena).cached == 0);
  CHECK(keg_arena_destroy(arena, 0) == 0);
}

// ---- misuse -------------------------------------------------------------------------------------

static void refused(void) {
  errno = 0;
  CHECK(!keg_arena_create(NULL, 0, 1, 1, 0) && errno == EINVAL);
  errno = 0;
  CHECK(!keg_arena_create("x", 0, 12, 3, 0) && errno == EINVAL);
  errno = 0;
  CHECK(!keg_arena_create("x", 0, 12, 0, 0) && errno == EINVAL);
  errno = 0;
  CHECK(!keg_arena_create("x", 8, 16, 16, 0) && errno == EINVAL);
  errno = 0;
  CHECK(!keg_arena_create("x", 16, SIZE_MAX - 15, 1, 0) && errno == EINVAL);
  keg_arena *arena = keg_arena_create("a name that is much longer than any arena has", 0, 64, 1, 0);
  CHECK(strlen(keg_arena_name(arena)) == 31 && keg_arena_find("a name that is much longer than") == arena);
  uintptr_t start = 3;
  CHECK(keg_arena_alloc(arena, 0, 0, &start) == EINVAL && keg_arena_alloc(arena, 1, 8, &start) == EINVAL);
  CHECK(keg_arena_alloc(arena, 1, 0, NULL) == EINVAL && keg_arena_alloc(arena, 65, 0, &start) == ENOMEM);
  CHECK(keg_arena_alloc(arena, SIZE_MAX, 0, &start) == ENOMEM && start == 3);
  CHECK(keg_arena_free(arena, 0, 0) == EINVAL && keg_arena_destroy(arena, 2) == EINVAL);
  CHECK(keg_arena_set_import(arena, NULL, NULL, NULL, 0) == EINVAL);
  CHECK(keg_arena_walk(arena, ~0, NULL, NULL) == EINVAL);
  CHECK(keg_arena_destroy(arena, 0) == 0);
  CHECK(keg_arena_destroy(arena, 0) == EINVAL && keg_arena_alloc(arena, 1, 0, &start) == EINVAL);
  CHECK(keg_arena_destroy(NULL, 0) == EINVAL && keg_arena_size(NULL, 1) == 0 && !keg_arena_name(NULL));
  // A place is used again, tables and all.
  for (int i = 0; i < 1000; i++) {
    keg_arena *again = keg_arena_create("again", 0, 1000, 1, 4);
    for (int k = 0; k < 50; k++) take(again, 1 + k % 8);
    CHECK(again == arena && keg_arena_destroy(again, KEG_DESTROY_FORCE) == 0);
  }
}

static void fatal(const char *what) {
  keg_arena *arena = keg_arena_create("fatal", 0, 1000, 1, 4);
  uintptr_t small = take(arena, 2), large = take(arena, 20);
  if (!strcmp(what, "double")) keg_arena_free(arena, large, 20), keg_arena_free(arena, large, 20);
  if (!strcmp(what, "cached")) keg_arena_free(arena, small, 2), keg_arena_free(arena, small, 2);
  if (!strcmp(what, "size")) keg_arena_free(arena, large, 21);
  if (!strcmp(what, "small-size")) keg_arena_free(arena, small, 3);
  if (!strcmp(what, "inside")) keg_arena_free(arena, large + 1, 19);
  complain(__FILE__, __LINE__, what, "went unnoticed");
}

// ---- threads, fork, handlers ------------------------------------------------------------------------

enum { THREADS = 4, RANGE = 4096 };
static keg_arena *shared;
static _Atomic(int) owners[RANGE];
static atomic_int stop;

static void *hammer(void *argument) {
  uint64_t seed = (uintptr_t)argument * 7919 + 1;
  struct { uintptr_t start; size_t size; } held[32] = {{0}};
  for (int round = 0; round < 100000 && !atomic_load(&stop); round++) {
    int i = random_next(&seed) % 32;
    if (held[i].size) {
      for (size_t k = 0; k < held[i].size; k++)
        CHECK(atomic_exchange(&owners[held[i].start + k], 0) == (int)(uintptr_t)argument);
      CHECK(keg_arena_free(shared, held[i].start, held[i].size) == 0);
      held[i].size = 0;
    } else {
      size_t size = random_next(&seed) % 20 + 1;
      if (keg_arena_alloc(shared, size, 0, &held[i].start) != 0) continue;
      held[i].size = size;
      for (size_t k = 0; k < size; k++)
        CHECK(atomic_exchange(&owners[held[i].start + k], (int)(uintptr_t)argument) == 0, "handed out twice");
    }
  }
  for (int i = 0; i < 32; i++) {
    for (size_t k = 0; k < held[i].size; k++) atomic_store(&owners[held[i].start + k], 0);
    if (held[i].size) CHECK(keg_arena_free(shared, held[i].start, held[i].size) == 0);
  }
  return NULL;
}

static void threads(int forks) {
  shared = keg_arena_create("shared", 0, 0, 1, 8);
  keg_arena *base = keg_arena_create("base", 0, RANGE, 1, 0);
  CHECK(keg_arena_set_source(shared, base, 64) == 0);
  pthread_t thread[THREADS];
  for (uintptr_t i = 0; i < THREADS; i++) pthread_create(&thread[i], NULL, hammer, (void *)(i + 1));
  for (int i = 0; i < forks; i++) {
    pid_t child = fork();
    if (child == 0) {
      alarm(100);
      // The arenas are whole here, whatever the other threads were doing.
      struct covering c = {0};
      uintptr_t start;
      if (keg_arena_alloc(shared, 1, 0, &start) == 0) keg_arena_free(shared, start, 1);
      _exit(keg_arena_walk(shared, ~0, cover, &c) == 0 && keg_reclaim(KEG_RECLAIM_DRAIN) == 0 ? 0 : 1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0, "child %d: status %x", i, status);
    keg_reclaim(KEG_RECLAIM_DRAIN);
  }
  if (forks) atomic_store(&stop, 1);
  for (int i = 0; i < THREADS; i++) pthread_join(thread[i], NULL);
  CHECK(stats_of(shared).allocated == 0 && stats_of(shared).allocations == stats_of(shared).frees);
  CHECK(keg_arena_destroy(shared, 0) == 0 && stats_of(base).allocated == 0);
  CHECK(keg_arena_destroy(base, 0) == 0);
}

static atomic_long served, interrupted;

static void handler(int signal) {
  (void)signal;
  uintptr_t start;
  int error = keg_arena_alloc(shared, 2, 0, &start);
  if (error == 0) {
    atomic_fetch_add(&served, 1);
    // What was interrupted is the same as a moment ago: this is served as well.
    if (keg_arena_free(shared, start, 2) != 0) _exit(3);
  } else if (error == EINTR) {
    atomic_fetch_add(&interrupted, 1);
  } else {
    _exit(4);
  }
}

static void handlers(void) {
  shared = keg_arena_create("handlers", 0, RANGE, 1, 4);
  uintptr_t start = take(shared, 2);
  keg_arena_free(shared, start, 2);
  signal(SIGALRM, handler);
  struct itimerval often = {{0, 300}, {0, 300}};
  setitimer(ITIMER_REAL, &often, NULL);
  // Until both have happened: a handler that was served, and one over the allocator.
  for (long round = 0; round < 200000000 && (served < 200 || interrupted < 20); round++) {
    uintptr_t mine = take(shared, 1 + round % 7);
    CHECK(keg_arena_free(shared, mine, 1 + round % 7) == 0);
    free(malloc(200));
  }
  struct itimerval never = {{0, 0}, {0, 0}};
  setitimer(ITIMER_REAL, &never, NULL);
  CHECK(served >= 200 && interrupted >= 20, "%ld served, %ld interrupted", served, interrupted);
  CHECK(stats_of(shared).allocated == 0 && keg_arena_destroy(shared, 0) == 0);
}

// Linked, preloaded or both: the loader has mapped the code of one library, and malloc
// and the arena calls are of that one.
static void one_copy(void) {
  FILE *maps = fopen("/proc/self/maps", "re");
  CHECK(maps);
  char line[1024];
  int copies = 0;
  uintptr_t low = 0, high = 0;
  while (fgets(line, sizeof line, maps)) {
    if (!strstr(line, "libkegmalloc") || !strstr(line, " r-xp ")) continue;
    copies++;
    CHECK(sscanf(line, "%zx-%zx", &low, &high) == 2);
  }
  fclose(maps);
  CHECK(copies == 1, "%d", copies);
  Dl_info info;
  void *names[] = {dlsym(RTLD_DEFAULT, "malloc"), dlsym(RTLD_DEFAULT, "keg_arena_alloc"), dlsym(RTLD_DEFAULT, "free")};
  for (int i = 0; i < 3; i++) {
    CHECK(dladdr(names[i], &info) && strstr(info.dli_fname, "libkegmalloc"), "%s", info.dli_fname);
    CHECK((uintptr_t)names[i] >= low && (uintptr_t)names[i] < high);
  }
}

int main(int argc, char **argv) {
  CHECK(argc >= 2);
  const char *name = argv[1];
  if (!strcmp(name, "identifiers")) identifiers();
  else if (!strcmp(name, "walking")) walking();
  else if (!strcmp(name, "fits")) fits();
  else if (!strcmp(name, "constraints")) constraints();
  else if (!strcmp(name, "stacking")) stacking();
  else if (!strcmp(name, "no-memory")) no_memory();
  else if (!strcmp(name, "sizes")) sizes();
  else if (!strcmp(name, "whereabouts")) whereabouts();
  else if (!strcmp(name, "caches")) caches();
  else if (!strcmp(name, "refused")) refused();
  else if (!strcmp(name, "one-copy")) one_copy();
  else if (!strcmp(name, "fatal")) fatal(argv[2]);
  else if (!strcmp(name, "threads")) threads(0);
  else if (!strcmp(name, "fork")) threads(100);
  else if (!strcmp(name, "handlers")) handlers();
  else CHECK(0, "no case %s", name);
  return ok();
}
