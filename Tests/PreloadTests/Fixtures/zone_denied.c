// zone_denied.c: zones when the kernel gives no memory any more, or may not be asked. The
// argument names the test; see denied.h.
#include "denied.h"
#include "fixture.h"
#include "kegmalloc.h"

static keg_zone *make(const char *name, size_t size, uint64_t flags) {
  keg_zone *zone = keg_zone_create(name, size, NULL, NULL, NULL, NULL, 0, flags);
  CHECK(zone != NULL, "%s", name);
  return zone;
}

// Uses up what the heap has in hand: blocks of `size` in a list.
static void *list;
static void use_up(size_t size) {
  void *block;
  while ((block = hide(malloc(size))) != NULL) *(void **)block = list, list = block;
}

// U34: there is no memory, the reserve is for USE_RESERVE, and for nobody else.
static void reserve(void) {
  keg_zone *zone = make("reserve", 4096, KEG_ZONE_NOBUCKET);
  CHECK(keg_zone_reserve(zone, 10) == 0 && keg_zone_prealloc(zone, 30) == 0);
  deny_memory();
  use_up(65536);
  use_up(1000);
  int taken = 0, reserved = 0;
  while (keg_zone_alloc(zone, KEG_NOWAIT) != NULL) taken++;
  CHECK(errno == ENOMEM && taken >= 20, "%d", taken);
  while (keg_zone_alloc(zone, KEG_NOWAIT | KEG_USE_RESERVE) != NULL) reserved++;
  CHECK(reserved == 10, "%d", reserved);
}

// P03: the hook gives back what the program caches, when mmap fails: once for malloc,
// once for a zone with a hook of its own.
static void *hoard;
static volatile int calls;  // volatile: malloc, to the compiler, calls nothing of ours
static void give_hoard(void *arg) {
  CHECK(arg == &hoard);
  calls++;
  while (hoard) {
    void *next = *(void **)hoard;
    free(hoard);
    hoard = next;
  }
}
static void hoard_blocks(void) {
  for (int i = 0; i < 64; i++) {
    void *block = hide(malloc(65536));
    CHECK(block != NULL);
    *(void **)block = hoard, hoard = block;
  }
}
static void drain_hook(void) {
  keg_zone *zone = make("hook", 4096, 0);
  CHECK(keg_zone_set_drain_hook(NULL, give_hoard, &hoard) == 0);
  hoard_blocks();
  deny_memory();
  void *block = NULL;
  while (calls == 0 && (block = hide(malloc(65536))) != NULL) *(void **)block = list, list = block;
  CHECK(calls == 1 && block != NULL && hoard == NULL, "%d calls", calls);
  // The same for a zone.
  CHECK(keg_zone_set_drain_hook(NULL, NULL, NULL) == 0);
  CHECK(keg_zone_set_drain_hook(zone, give_hoard, &hoard) == 0);
  use_up(65536);
  for (int i = 0; i < 16; i++) {
    CHECK(list != NULL);
    void *next = *(void **)list;
    *(void **)list = hoard, hoard = list, list = next;
  }
  void *item = NULL;
  while (calls == 1 && (item = keg_zone_alloc(zone, KEG_NOWAIT)) != NULL) continue;
  CHECK(calls == 2 && item != NULL, "%d calls", calls);
}

// U29: a zone over a static buffer never maps.
static char buffer[65536];
static void own_buffer(void) {
  struct keg_zone_attr attr = {.struct_size = sizeof attr, .buffer = buffer, .buffer_bytes = sizeof buffer};
  keg_zone *zone = keg_zone_create_attr("buffer", 64, &attr);
  CHECK(zone != NULL);
  keg_zone_free(zone, keg_zone_alloc(zone, KEG_NOWAIT));
  deny_memory();
  use_up(65536);
  use_up(1000);
  for (int round = 0; round < 3; round++) {
    static char *items[2000];
    int count = 0;
    while ((items[count] = keg_zone_alloc(zone, KEG_NOWAIT)) != NULL) {
      CHECK(items[count] >= buffer && items[count] + 64 <= buffer + sizeof buffer);
      count++;
    }
    CHECK(count >= 1000, "%d", count);
    while (count > 0) keg_zone_free(zone, items[--count]);
  }
  CHECK(keg_zone_destroy(zone, 0) == 0);
}

// U39: NOVM gives what is cached, then what is free in slabs, then NULL; all of it
// without a system call.
static void novm(void) {
  keg_zone *zone = make("novm", 1000, 0);
  void *items[10];
  CHECK(keg_zone_alloc_bulk(zone, items, 10, KEG_NOWAIT) == 10);
  keg_zone_free_bulk(zone, items, 10);
  struct keg_zone_stats stats;
  CHECK(keg_zone_stats(zone, &stats, sizeof stats) == 0);
  deny_system_calls();
  size_t got = 0;
  while (keg_zone_alloc(zone, KEG_NOWAIT | KEG_NOVM) != NULL) got++;
  CHECK(got == stats.slabs * stats.slab_items && errno == ENOMEM, "%zu", got);
  leave();
}

// L09 and U41 together: a slab whose memory cannot be had is no slab, and the zone goes on
// when there is memory again.
static void recovers(void) {
  keg_zone *zone = make("recovers", 8192, 0);
  CHECK(keg_set_limit((size_t)8 << 20) == 0);
  static void *items[4096];
  int got = 0;
  while (got < 4096 && (items[got] = keg_zone_alloc(zone, KEG_NOWAIT)) != NULL) got++;
  CHECK(got > 500 && got < 1024 && errno == ENOMEM, "%d", got);
  CHECK(keg_set_limit(0) != 0);
  void *more = keg_zone_alloc(zone, KEG_NOWAIT);
  CHECK(more != NULL);
  keg_zone_free(zone, more);
  while (got > 0) keg_zone_free(zone, items[--got]);
  CHECK(keg_zone_destroy(zone, 0) == 0);
}

int main(int count, char **arguments) {
  CHECK(count == 2);
  static const struct { const char *name; void (*run)(void); } tests[] = {
      {"reserve", reserve}, {"drain_hook", drain_hook}, {"buffer", own_buffer}, {"novm", novm},
      {"recovers", recovers}};
  for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
    if (strcmp(tests[i].name, arguments[1]) == 0) {
      tests[i].run();
      return ok();
    }
  complain(__FILE__, __LINE__, "no such test", " %s", arguments[1]);
}
