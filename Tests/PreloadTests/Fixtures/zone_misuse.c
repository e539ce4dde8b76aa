// zone_misuse.c: what the debug library says of zones: each test is one bug in functions
// whose names say what they do, or none (`clean`). The argument names the test.
#include "fixture.h"
#include "kegmalloc.h"

#define OUT __attribute__((noinline)) static

static keg_zone *make(const char *name, size_t size) {
  keg_zone *zone = keg_zone_create(name, size, NULL, NULL, NULL, NULL, 0, 0);
  CHECK(zone != NULL);
  return zone;
}

OUT void *buy(keg_zone *zone) {
  void *item = keg_zone_alloc(zone, KEG_WAITOK);
  CHECK(item != NULL);
  memset(item, 1, keg_zone_size(zone));
  return item;
}
OUT void sell(keg_zone *zone, void *item) {
  keg_zone_free(zone, item);
  __asm__ volatile("");
}
OUT void scribble(void *item) { ((volatile char *)item)[20] = 7; }
OUT void discard(void *block) {
  free(hide(block));
  __asm__ volatile("");
}
OUT void shut(keg_zone *zone) { CHECK(keg_zone_destroy(zone, 0) == EBUSY); }

static void wrong_zone(void) {
  keg_zone *apples = make("apples", 64), *pears = make("pears", 64);
  void *item = buy(apples);
  sell(pears, item);
  sell(apples, item);  // where it belongs: no error
}
static void twice(void) {
  keg_zone *zone = make("apples", 64);
  void *item = buy(zone);
  sell(zone, item);
  sell(zone, item);
}
static void interior(void) {
  keg_zone *zone = make("apples", 64);
  void *item = buy(zone);
  sell(zone, (char *)item + 8);
  sell(zone, item);
}
static void stranger(void) {
  static char own[64];
  sell(make("apples", 64), own);
}
static void of_malloc(void) {
  void *block = hide(malloc(64));
  sell(make("apples", 64), block);
  discard(block);
}
static void by_free(void) {
  keg_zone *zone = make("apples", 64);
  void *item = buy(zone);
  discard(item);
  sell(zone, item);
}
static void after_free(void) {
  keg_zone *zone = make("apples", 64);
  void *item = buy(zone);
  sell(zone, item);
  scribble(item);
  CHECK(buy(zone) == item);
}
static void in_use(void) {
  keg_zone *zone = make("apples", 64);
  void *items[5];
  for (int i = 0; i < 5; i++) items[i] = buy(zone);
  shut(zone);
  for (int i = 0; i < 5; i++) sell(zone, items[i]);
  CHECK(keg_zone_destroy(zone, 0) == 0);
}
static void flags(void) {
  keg_zone *zone = make("apples", 64);
  for (int i = 0; i < 30; i++) sell(zone, keg_zone_alloc(zone, 0));
}

// None: everything that could look like one.
static int construct(void *item, size_t size, void *arg, int given) {
  (void)size, (void)given;
  *(int *)item = 7;
  return arg != NULL;
}
static int refer(void *arg, void **items, int count, int given) {
  int got = 0;
  while (got < count && (items[got] = keg_zone_alloc(arg, given)) != NULL) got++;
  return got;
}
static void return_all(void *arg, void **items, int count) {
  while (count > 0) keg_zone_free(arg, items[--count]);
}
static void clean(void) {
  for (int round = 0; round < 30; round++) {
    keg_zone *plain = make("plain", 100);
    keg_zone *made = keg_zone_create("made", 64, construct, NULL, NULL, NULL, 0, 0);
    keg_zone *second = keg_zone_create_secondary("second", NULL, NULL, NULL, NULL, plain);
    keg_zone *cache = keg_zone_create_cache("cache", 100, NULL, NULL, NULL, NULL, refer, return_all, plain, 0);
    keg_zone *stable = keg_zone_create("stable", 100, NULL, NULL, NULL, NULL, 0, KEG_ZONE_NOFREE);
    keg_zone *zones[] = {plain, second, cache, stable, make("small", 3), make("large", 300000)};
    void *items[40];
    for (size_t z = 0; z < sizeof zones / sizeof *zones; z++) {
      for (int i = 0; i < 40; i++) items[i] = buy(zones[z]);
      for (int i = 0; i < 20; i++) sell(zones[z], items[i]);
      keg_zone_free_bulk(zones[z], items + 20, 20);
      // What is freed may go back to the kernel, to other zones and to malloc.
      CHECK(keg_zone_reclaim(zones[z], KEG_RECLAIM_DRAIN_CPU) == 0);
      char *other = hide(malloc(50000));
      memset(other, 9, 50000);
      CHECK(keg_zone_alloc_bulk(zones[z], items, 40, KEG_NOWAIT | KEG_ZERO) == 40 && is_zero(items[39], keg_zone_size(zones[z])));
      keg_zone_free_bulk(zones[z], items, 40);
      free(other);
    }
    for (int i = 0; i < 40; i++)
      CHECK((items[i] = keg_zone_alloc_arg(made, i % 2 ? made : NULL, KEG_NOWAIT) ) != NULL || i % 2);
    for (int i = 0; i < 40; i++) keg_zone_free(made, items[i]);
    // Sheaves and malloc's own zones: what is malloc's to others must be so to us.
    for (int i = 0; i < 40; i++) free(items[i] = hide(memset(malloc(96), 1, 96)));
    keg_sheaf *sheaf = keg_sheaf_alloc(plain, 10, KEG_NOWAIT);
    CHECK(keg_prefill(plain, 10) == 0 && sheaf != NULL);
    for (int i = 0; i < 5; i++) sell(plain, keg_sheaf_take(sheaf));
    keg_sheaf_return(sheaf);
    keg_zone *malloc_112 = keg_zone_find("malloc-112");
    sell(malloc_112, buy(malloc_112));
    free(buy(malloc_112));
    for (size_t z = sizeof zones / sizeof *zones; z-- > 0;) CHECK(keg_zone_destroy(zones[z], 0) == 0);
    CHECK(keg_zone_destroy(made, 0) == 0);
  }
}

int main(int count, char **arguments) {
  CHECK(count == 2);
  static const struct { const char *name; void (*run)(void); } tests[] = {
      {"wrong_zone", wrong_zone}, {"twice", twice}, {"interior", interior}, {"stranger", stranger},
      {"of_malloc", of_malloc}, {"by_free", by_free}, {"after_free", after_free}, {"in_use", in_use},
      {"flags", flags}, {"clean", clean}};
  for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
    if (strcmp(tests[i].name, arguments[1]) == 0) {
      tests[i].run();
      return ok();
    }
  complain(__FILE__, __LINE__, "no such test", " %s", arguments[1]);
}
