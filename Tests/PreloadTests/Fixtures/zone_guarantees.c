// zone_guarantees.c: what cannot fail: prefilled arrays, sheaves; and bulk calls. The
// argument names the test.
// See denied.h for how memory and system calls are taken away.
#include <sched.h>
#include <signal.h>
#include <sys/time.h>

#include "denied.h"
#include "fixture.h"
#include "kegmalloc.h"

static keg_zone *zone;

// S08: the next n allocations make no system call; in a zone with a constructor too.
static int say_yes(void *item, size_t size, void *arg, int flags) {
  (void)size, (void)arg, (void)flags;
  *(char *)item = 1;
  return 0;
}
static void prefill(const char *how) {
  keg_ctor ctor = strcmp(how, "constructed") == 0 ? say_yes : NULL;
  zone = keg_zone_create("prefill", 200, ctor, NULL, NULL, NULL, 0, 0);
  CHECK(keg_prefill(zone, 255) == EINVAL && keg_prefill(zone, 0) == 0);
  for (size_t n = 1; n <= 254; n += 23) CHECK(keg_prefill(zone, n) == 0);
  CHECK(keg_prefill(zone, 254) == 0);
  deny_system_calls();
  for (int i = 0; i < 254; i++)
    if (keg_zone_alloc(zone, KEG_NOWAIT) == NULL) syscall(SYS_exit, 2);
  ok();
  syscall(SYS_exit, 0);
}

static void *exhaust(void *unused) {
  (void)unused;
  long got = 0;
  while (keg_zone_alloc(zone, KEG_NOWAIT) != NULL) got++;
  return (void *)got;
}

// S09: a sheaf of 100, the zone exhausted by 8 threads, no memory to be had: all 100
// can still be taken. Limited: the zone is at its limit as well.
static void sheaf(const char *how) {
  zone = keg_zone_create("sheaf", 4096, NULL, NULL, NULL, NULL, 0, 0);
  if (strcmp(how, "limit") == 0) CHECK(keg_zone_set_max(zone, 1000) == 1000);
  keg_sheaf *sheaf = keg_sheaf_alloc(zone, 100, KEG_WAITOK);
  CHECK(sheaf != NULL && keg_sheaf_size(sheaf) == 100);
  pthread_t threads[8];
  for (int i = 0; i < 8; i++) CHECK(pthread_create(&threads[i], NULL, exhaust, NULL) == 0);
  // Threads need memory to start; from now on nobody gets any.
  if (strcmp(how, "memory") == 0) deny_memory();
  for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
  CHECK(keg_zone_alloc(zone, KEG_NOWAIT) == NULL, "there is nothing left");
  static char *items[100];
  for (int i = 0; i < 100; i++) {
    CHECK((items[i] = keg_sheaf_take(sheaf)) != NULL, "%d", i);
    mark(items[i], 4096, (unsigned)i);
  }
  for (int i = 0; i < 100; i++) CHECK(is_marked(items[i], 4096, (unsigned)i));
  CHECK(keg_sheaf_take(sheaf) == NULL && keg_sheaf_size(sheaf) == 0);
  CHECK(keg_sheaf_refill(sheaf, 10, KEG_NOWAIT) != 0);
  for (int i = 0; i < 100; i++) keg_zone_free(zone, items[i]);
  CHECK(keg_sheaf_refill(sheaf, 100, KEG_NOWAIT) == 0 && keg_sheaf_size(sheaf) == 100);
  CHECK(keg_sheaf_refill(sheaf, 101, KEG_NOWAIT) == EINVAL);
  keg_sheaf_return(sheaf);
  keg_sheaf_return(NULL);
}

// S10: a thread and its handler share a sheaf: no item twice, and neither waits, also
// when the handler interrupts the allocator itself.
static keg_sheaf *shared;
static void *by_handler[100000];
static volatile int handler_count;
static void on_alarm(int number) {
  (void)number;
  for (int i = 0; i < 4 && handler_count < 100000; i++) {
    void *item = keg_sheaf_take(shared);
    if (!item) return;
    by_handler[handler_count++] = item;
  }
}
static int compare(const void *a, const void *b) {
  uintptr_t x = *(uintptr_t *)a, y = *(uintptr_t *)b;
  return x < y ? -1 : x > y;
}
static void handler(void) {
  zone = keg_zone_create("handler", 64, NULL, NULL, NULL, NULL, 0, 0);
  shared = keg_sheaf_alloc(zone, 20000, KEG_NOWAIT);
  CHECK(shared != NULL);
  struct sigaction action = {.sa_handler = on_alarm};
  sigaction(SIGALRM, &action, NULL);
  struct itimerval often = {{0, 200}, {0, 200}}, never = {{0, 0}, {0, 0}};
  static void *mine[20000], *all[40000];
  int count = 0, total = 0;
  setitimer(ITIMER_REAL, &often, NULL);
  while (keg_sheaf_size(shared) > 0) {
    void *item = keg_sheaf_take(shared);
    if (item) mine[count++] = item;
    for (int i = 0; i < 50; i++) free(hide(malloc(i % 7 == 0 ? 40000 : 100)));
  }
  setitimer(ITIMER_REAL, &never, NULL);
  CHECK(handler_count > 0 && count > 0 && handler_count + count == 20000, "%d and %d", handler_count, count);
  for (int i = 0; i < count; i++) all[total++] = mine[i];
  for (int i = 0; i < handler_count; i++) all[total++] = by_handler[i];
  qsort(all, (size_t)total, sizeof *all, compare);
  for (int i = 1; i < total; i++) CHECK(all[i] != all[i - 1], "given twice");
  for (int i = 0; i < total; i++) keg_zone_free(zone, all[i]);
  keg_sheaf_return(shared);
  CHECK(keg_zone_destroy(zone, 0) == 0);
}

// The items of a sheaf are constructed when it is filled, destroyed when they are freed.
static int ctors, dtors;
static int construct(void *item, size_t size, void *arg, int flags) {
  (void)size, (void)arg, (void)flags;
  *(int *)item = 77;
  return ++ctors > 150;
}
static void destruct(void *item, size_t size, void *arg) {
  (void)size, (void)arg;
  CHECK(*(int *)item == 77);
  dtors++;
}
static void constructed(void) {
  zone = keg_zone_create("constructed", 64, construct, destruct, NULL, NULL, 0, 0);
  keg_sheaf *sheaf = keg_sheaf_alloc(zone, 100, KEG_NOWAIT);
  CHECK(sheaf != NULL && ctors == 100 && dtors == 0);
  int *item = keg_sheaf_take(sheaf);
  CHECK(*item == 77 && ctors == 100);
  keg_zone_free(zone, item);
  keg_sheaf_return(sheaf);
  CHECK(dtors == 100, "%d", dtors);
  CHECK(keg_sheaf_alloc(zone, 100, KEG_NOWAIT) == NULL && errno == ECANCELED && dtors == 150, "%d", dtors);
  CHECK(keg_zone_destroy(zone, 0) == 0);
}

// S12: what a bulk call gives are distinct items, and all come back; from an array, from
// slabs, with a constructor, at a limit.
static void bulk(void) {
  static void *items[5000];
  for (int kind = 0; kind < 4; kind++) {
    struct keg_zone_attr attr = {.struct_size = sizeof attr};
    if (kind == 1) attr.flags = KEG_ZONE_NOBUCKET;
    if (kind == 2) attr.ctor = construct, attr.dtor = destruct, ctors = -100000;
    if (kind == 3) attr.max_items = 3000;
    zone = keg_zone_create_attr("bulk", 48, &attr);
    for (size_t n = 1; n <= 5000; n = n * 3 + 1) {
      size_t got = keg_zone_alloc_bulk(zone, items, n, KEG_NOWAIT);
      size_t wanted = kind == 3 && n > 3000 ? 3000 : n;
      CHECK(got == wanted, "%zu of %zu", got, n);
      CHECK(got == n || errno == EAGAIN);
      for (size_t i = 0; i < got; i++) mark(items[i], 48, (unsigned)i);
      for (size_t i = 0; i < got; i++) CHECK(is_marked(items[i], 48, (unsigned)i), "given twice");
      CHECK(keg_zone_get_cur(zone) == got);
      if (kind == 2) for (size_t i = 0; i < got; i++) *(int *)items[i] = 77;
      keg_zone_free_bulk(zone, items, got);
      CHECK(keg_zone_get_cur(zone) == 0);
    }
    CHECK(keg_zone_alloc_bulk(zone, NULL, 0, KEG_NOWAIT) == 0 && keg_zone_alloc_bulk(zone, NULL, 3, KEG_NOWAIT) == 0);
    keg_zone_free_bulk(zone, items, 0);
    CHECK(keg_zone_destroy(zone, 0) == 0);
  }
}

// S01: the capacity that was asked for; two buckets of it, the rest goes to the depot.
static void capacity(void) {
  struct keg_zone_attr attr = {.struct_size = sizeof attr, .cache_capacity = 8};
  zone = keg_zone_create_attr("capacity", 64, &attr);
  void *items[100];
  for (int i = 0; i < 100; i++) items[i] = keg_zone_alloc(zone, KEG_NOWAIT);
  for (int i = 0; i < 100; i++) keg_zone_free(zone, items[i]);
  struct keg_zone_stats stats;
  keg_zone_stats(zone, &stats, sizeof stats);
  CHECK(stats.bucket_size == 8 && stats.in_arrays <= 16 && stats.in_arrays >= 8, "%zu", stats.in_arrays);
  CHECK(keg_zone_destroy(zone, 0) == 0);
  // S02: without a depot it is an array and nothing else: filled by frees, passed by when
  // it is full or empty, and the figures say exactly so.
  zone = keg_zone_create_attr("array", 64, &attr);
  keg_zone_set_maxcache(zone, 0);
  CHECK((items[0] = keg_zone_alloc(zone, KEG_NOWAIT)) != NULL);
  keg_zone_stats(zone, &stats, sizeof stats);
  CHECK(stats.imported == 8 && stats.in_arrays == 7, "%zu", stats.in_arrays);
  CHECK(keg_zone_alloc_bulk(zone, items + 1, 31, KEG_NOWAIT) == 31);
  for (int i = 0; i < 32; i++) keg_zone_free(zone, items[i]);
  keg_zone_stats(zone, &stats, sizeof stats);
  CHECK(stats.imported - stats.released == stats.in_arrays && stats.in_depot == 0 && stats.used == 0);
  CHECK(stats.in_arrays >= 8 && stats.in_arrays <= 16, "%zu", stats.in_arrays);
  uint64_t imported = stats.imported, cached = stats.in_arrays;
  for (uint64_t i = 0; i < cached; i++) items[i] = keg_zone_alloc(zone, KEG_NOWAIT);
  keg_zone_stats(zone, &stats, sizeof stats);
  CHECK(stats.imported == imported && stats.in_arrays == 0, "each from the array");
  items[cached] = keg_zone_alloc(zone, KEG_NOWAIT);
  keg_zone_stats(zone, &stats, sizeof stats);
  CHECK(stats.imported > imported, "it was empty");
  for (uint64_t i = 0; i <= cached; i++) keg_zone_free(zone, items[i]);
  CHECK(keg_zone_destroy(zone, 0) == 0);
  // It stays what it is, whatever is reclaimed.
  attr.cache_capacity = 30;
  zone = keg_zone_create_attr("large", 4096, &attr);
  for (int i = 0; i < 5; i++) CHECK(keg_zone_reclaim(zone, 1 + i % 3) == 0);
  keg_zone_stats(zone, &stats, sizeof stats);
  CHECK(stats.bucket_size == 30, "%d", (int)stats.bucket_size);
  CHECK(keg_zone_destroy(zone, 0) == 0);
  attr.cache_capacity = 255;
  CHECK(keg_zone_create_attr("capacity", 64, &attr) == NULL && errno == EINVAL);
}

// For callgrind: `rounds` pairs of 64 items, in a loop or in bulk, from array or slabs, with
// a constructor and a destructor of the zone or called by hand.
static int begin(void *item, size_t size, void *arg, int flags) {
  (void)item, (void)size, (void)arg, (void)flags;
  return 0;
}
static void end(void *item, size_t size, void *arg) { (void)item, (void)size, (void)arg; }
static volatile keg_ctor begin_by_hand = begin;
static volatile keg_dtor end_by_hand = end;
static void counted(const char *how, int rounds, size_t size) {
  struct keg_zone_attr attr = {.struct_size = sizeof attr};
  if (strstr(how, "slabs")) attr.flags = KEG_ZONE_NOBUCKET;
  if (strcmp(how, "hooks") == 0) attr.ctor = begin, attr.dtor = end;
  zone = keg_zone_create_attr("counted", size, &attr);
  void *items[64];
  keg_zone_alloc_bulk(zone, items, 64, KEG_NOWAIT);
  keg_zone_free_bulk(zone, items, 64);
  for (int round = 0; round < rounds; round++) {
    if (strncmp(how, "bulk", 4) == 0) {
      keg_zone_alloc_bulk(zone, items, 64, KEG_NOWAIT);
      keg_zone_free_bulk(zone, items, 64);
    } else if (strcmp(how, "pair") == 0) {
      for (int i = 0; i < 64; i++) keg_zone_free(zone, hide(keg_zone_alloc(zone, KEG_NOWAIT)));
    } else if (strcmp(how, "malloc-pair") == 0) {
      for (int i = 0; i < 64; i++) free(hide(malloc(size)));
    } else if (strncmp(how, "malloc", 6) == 0) {
      for (int i = 0; i < 64; i++) items[i] = malloc(size);
      for (int i = 0; i < 64; i++) free(items[i]);
    } else if (strcmp(how, "by-hand") == 0) {
      for (int i = 0; i < 64; i++)
        if (begin_by_hand(items[i] = keg_zone_alloc(zone, KEG_NOWAIT), 64, NULL, KEG_NOWAIT) != 0) abort();
      for (int i = 0; i < 64; i++) end_by_hand(items[i], 64, NULL), keg_zone_free(zone, items[i]);
    } else {
      for (int i = 0; i < 64; i++) items[i] = keg_zone_alloc(zone, KEG_NOWAIT);
      for (int i = 0; i < 64; i++) keg_zone_free(zone, items[i]);
    }
  }
}

int main(int count, char **arguments) {
  CHECK(count >= 2);
  const char *test = arguments[1], *how = count > 2 ? arguments[2] : "";
  if (strcmp(test, "prefill") == 0) prefill(how);
  else if (strcmp(test, "sheaf") == 0) sheaf(how);
  else if (strcmp(test, "handler") == 0) handler();
  else if (strcmp(test, "constructed") == 0) constructed();
  else if (strcmp(test, "bulk") == 0) bulk();
  else if (strcmp(test, "capacity") == 0) capacity();
  else if (strcmp(test, "counted") == 0) counted(how, count > 3 ? atoi(arguments[3]) : 1, count > 4 ? strtoul(arguments[4], NULL, 10) : 64);
  else complain(__FILE__, __LINE__, "no such test", " %s", test);
  return ok();
}
