// layouts.c: three ways to stack arenas under a kernel's pools, and what each costs.
//
// In 2011 NetBSD's kernel memory was moved to vmem, and three layouts were tried on a
// machine with 1.1 GB in its pools (tech-kern, "Re: kmem-pool-uvm"):
//
//   a   pools ── kva caches ── one map entry for each import              30,000 entries
//   b   pools ── heap_va ── heap: one map entry for everything           100,000 tags
//   c   pools ── backed ── heap_va ── heap                               400,000 tags
//
// This program builds them with keg_arena_*, puts 1.1 GB of pool pages into each,
// lets them live for a while, and counts boundary tags and mappings. Pages are
// reserved and never touched: it is the bookkeeping that is measured.
//
//   ./layouts [megabytes [changes]]
#include <inttypes.h>
#include <kegmalloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { PAGE = 4096, GRAIN = 16 * PAGE };
#define KVA ((size_t)1 << 34)  // what a 64-bit kernel of then set aside

static long system_calls;  // mmap, munmap, madvise

static void must(int error, const char *what) {
  if (error == 0) return;
  fprintf(stderr, "layouts: %s: %s\n", what, strerror(error));
  exit(1);
}

static keg_arena *arena(const char *name, uintptr_t base, size_t size, size_t cached) {
  keg_arena *made = keg_arena_create(name, base, size, PAGE, cached);
  if (!made) must(12, name);
  return made;
}

// ---- address space ------------------------------------------------------------------

static uintptr_t reserve(size_t size) {
  system_calls++;
  void *start = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return start == MAP_FAILED ? 0 : (uintptr_t)start;
}

// Pages of the address range start ... start+size-1 go back to the kernel.
static void unback(uintptr_t start, size_t size) {
  system_calls++;
  madvise((void *)start, size, MADV_DONTNEED);
}

static int import_mapping(void *unused, size_t size, uintptr_t *start) {
  (void)unused;
  *start = reserve(size);
  return *start ? 0 : 12;
}

static void release_mapping(void *unused, uintptr_t start, size_t size) {
  (void)unused;
  system_calls++;
  munmap((void *)start, size);
}

// Layout c: what the backed arena imports has pages, what it releases has none.
static int import_backed(void *heap_va, size_t size, uintptr_t *start) {
  return keg_arena_alloc(heap_va, size, 0, start);
}

static void release_backed(void *heap_va, uintptr_t start, size_t size) {
  unback(start, size);
  keg_arena_free(heap_va, start, size);
}

// ---- layouts -------------------------------------------------------------------------

struct layout {
  const char *name, *what;
  keg_arena *arenas[3];  // the last one is what pools allocate from
  int count;
  int unbacks;           // pools give the pages of what they free back themselves
  uintptr_t base;
};

static void build_a(struct layout *l) {
  keg_arena *kva = l->arenas[l->count++] = arena("kva", 0, 0, GRAIN);
  must(keg_arena_set_import(kva, import_mapping, release_mapping, NULL, GRAIN), "kva");
}

static void build_heap(struct layout *l) {
  l->base = reserve(KVA);
  keg_arena *heap = l->arenas[l->count++] = arena("heap arena", l->base, KVA, 0);
  keg_arena *heap_va = l->arenas[l->count++] = arena("heap_va", 0, 0, GRAIN);
  must(keg_arena_set_source(heap_va, heap, GRAIN), "heap_va");
  l->unbacks = 1;
}

static void build_c(struct layout *l, size_t grain) {
  build_heap(l);
  l->unbacks = 0;
  keg_arena *backed = l->arenas[l->count++] = arena("backed", 0, 0, 0);
  must(keg_arena_set_import(backed, import_backed, release_backed, l->arenas[1], grain), "backed");
}

// ---- pools ------------------------------------------------------------------------------

// Sizes of pool pages: mostly single ones, as in a kernel.
static size_t page_size(uint64_t random) {
  switch (random % 32) {
    case 0: return 16 * PAGE;
    case 1: case 2: return 4 * PAGE;
    case 3: case 4: case 5: case 6: return 2 * PAGE;
    default: return PAGE;
  }
}

static uint64_t next(uint64_t *state) {
  *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
  return *state;
}

struct page { uintptr_t start; size_t size; };

static void take(struct layout *l, struct page *page, uint64_t random) {
  page->size = page_size(random);
  must(keg_arena_alloc(l->arenas[l->count - 1], page->size, 0, &page->start), "pool page");
}

static void give(struct layout *l, struct page *page) {
  if (l->unbacks) unback(page->start, page->size);
  must(keg_arena_free(l->arenas[l->count - 1], page->start, page->size), "pool page");
}

static long mappings(void) {
  FILE *maps = fopen("/proc/self/maps", "re");
  long lines = 0;
  for (int c; (c = getc(maps)) != EOF;) lines += c == '\n';
  fclose(maps);
  return lines;
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return now.tv_sec + now.tv_nsec / 1e9;
}

static void measure(struct layout *l, size_t bytes, long changes) {
  size_t room = bytes / PAGE, count = 0, used = 0;
  struct page *pages = calloc(room, sizeof *pages);
  uint64_t seed = 2011;
  long maps = mappings(), calls = system_calls;
  double start = seconds();
  while (used < bytes) {
    take(l, &pages[count], next(&seed));
    used += pages[count++].size;
  }
  // A while later: pages of all ages, and the same number of bytes.
  for (long i = 0; i < changes; i++) {
    struct page *page = &pages[next(&seed) % count];
    give(l, page);
    take(l, page, next(&seed));
  }
  double spent = seconds() - start;
  size_t tags = 0, tag_bytes = 0, spans = 0;
  for (int i = 0; i < l->count; i++) {
    struct keg_arena_stats stats;
    must(keg_arena_stats(l->arenas[i], &stats, sizeof stats), "stats");
    tags += stats.tags, tag_bytes += stats.tag_bytes, spans += stats.spans;
  }
  printf("%-3s %8zu %9zu %9zu %7.1f %9zu %9ld %9ld %7.0f   %s\n", l->name, used >> 20, count, tags,
         tag_bytes / 1048576.0, spans, mappings() - maps, system_calls - calls,
         spent * 1e9 / (count + 2.0 * changes), l->what);
  for (size_t i = 0; i < count; i++) must(keg_arena_free(l->arenas[l->count - 1], pages[i].start, pages[i].size), "free");
  for (int i = l->count; i-- > 0;) must(keg_arena_destroy(l->arenas[i], 0), "destroy");
  if (l->base) munmap((void *)l->base, KVA);
  free(pages);
}

int main(int argc, char **argv) {
  size_t bytes = (argc > 1 ? strtoul(argv[1], NULL, 10) : 1127) << 20;
  long changes = argc > 2 ? strtol(argv[2], NULL, 10) : 1000000;
  printf("        MiB     pages      tags  tag MiB    spans  mappings  syscalls  ns/call\n");
  struct layout a = {.name = "a", .what = "a mapping for each import of 64 KiB"};
  build_a(&a);
  measure(&a, bytes, changes);
  struct layout b = {.name = "b", .what = "one mapping, heap_va on the heap arena"};
  build_heap(&b);
  measure(&b, bytes, changes);
  struct layout c = {.name = "c", .what = "and an arena that backs each pool page"};
  build_c(&c, PAGE);
  measure(&c, bytes, changes);
  struct layout c64 = {.name = "c64", .what = "c, backing 64 KiB at a time"};
  build_c(&c64, GRAIN);
  measure(&c64, bytes, changes);
  return 0;
}
