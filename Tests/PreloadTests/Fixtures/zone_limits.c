// zone_limits.c: limits of zones and of the process, what waits at them, and failures.
// The argument names the test.
#include <malloc.h>
#include <sched.h>
#include <sys/resource.h>

#include "fixture.h"
#include "kegmalloc.h"

static struct keg_zone_stats figures(keg_zone *zone) {
  struct keg_zone_stats stats;
  CHECK(keg_zone_stats(zone, &stats, sizeof stats) == 0);
  return stats;
}

static keg_zone *make(const char *name, size_t size, size_t most) {
  keg_zone *zone = keg_zone_create(name, size, NULL, NULL, NULL, NULL, 0, 0);
  CHECK(zone != NULL && keg_zone_set_max(zone, most) == most && keg_zone_get_max(zone) == most);
  return zone;
}

// U36: ten items, the eleventh is refused and counted; the limit changes at run time.
static void max(void) {
  keg_zone *zone = make("max", 64, 10);
  void *items[20];
  for (int i = 0; i < 10; i++) CHECK((items[i] = keg_zone_alloc(zone, KEG_NOWAIT)) != NULL, "%d", i);
  errno = 0;
  CHECK(keg_zone_alloc(zone, KEG_NOWAIT) == NULL && errno == EAGAIN);
  CHECK(figures(zone).failures == 1 && keg_zone_get_cur(zone) == 10);
  CHECK(keg_zone_set_max(zone, 12) == 12);
  for (int i = 10; i < 12; i++) CHECK((items[i] = keg_zone_alloc(zone, KEG_NOWAIT)) != NULL);
  CHECK(keg_zone_alloc(zone, KEG_NOWAIT) == NULL);
  // Below use: nothing is taken away, nothing given until enough is free.
  CHECK(keg_zone_set_max(zone, 5) == 5);
  for (int i = 11; i >= 5; i--) {
    CHECK(keg_zone_alloc(zone, KEG_NOWAIT) == NULL);
    keg_zone_free(zone, items[i]);
  }
  CHECK(keg_zone_alloc(zone, KEG_NOWAIT) == NULL);
  keg_zone_free(zone, items[4]);
  CHECK((items[4] = keg_zone_alloc(zone, KEG_NOWAIT)) != NULL);
  CHECK(keg_zone_set_max(zone, 0) == 0);
  for (int i = 5; i < 20; i++) CHECK((items[i] = keg_zone_alloc(zone, KEG_NOWAIT)) != NULL);
  for (int i = 0; i < 20; i++) keg_zone_free(zone, items[i]);
  CHECK(keg_zone_destroy(zone, 0) == 0);
}

// A zone of malloc has a limit like any other; what is cached counts.
static void of_malloc(void) {
  keg_zone *zone = keg_zone_find("malloc-8192");
  CHECK(zone != NULL && keg_zone_find("malloc_8192") == zone);
  uint64_t most = 10, now = 0;
  size_t size = sizeof now;
  CHECK(keg_ctl("zone.malloc-8192.limit.max_items", &now, &size, &most, sizeof most) == 0 && now == 0);
  void *blocks[11];
  int count = 0;
  while (count < 11 && (blocks[count] = hide(malloc(8192))) != NULL) count++;
  CHECK(count == 10 && errno == ENOMEM, "%d", count);
  CHECK(keg_zone_set_max(zone, 0) == 0);
  CHECK((blocks[10] = hide(malloc(8192))) != NULL);
  for (int i = 0; i < 11; i++) free(blocks[i]);
  void *item = keg_zone_alloc(zone, KEG_NOWAIT);
  CHECK(item != NULL && malloc_usable_size(item) == 8192);
  free(item);  // one of malloc's
}

// U37: twenty threads, five items: all finish, never more than five, somebody slept.
static keg_zone *shared;
static _Atomic int live;
static void *take_turns(void *unused) {
  (void)unused;
  for (int round = 0; round < 500; round++) {
    void *item = keg_zone_alloc(shared, KEG_WAITOK);
    CHECK(item != NULL);
    CHECK(++live <= 5, "%d live", live);
    if (round % 4 == 0) sched_yield();
    live--;
    keg_zone_free(shared, item);
  }
  return NULL;
}
static void waiters(void) {
  shared = make("shared", 64, 5);
  pthread_t threads[20];
  for (int i = 0; i < 20; i++) pthread_create(&threads[i], NULL, take_turns, NULL);
  for (int i = 0; i < 20; i++) pthread_join(threads[i], NULL);
  CHECK(figures(shared).sleeps > 0 && figures(shared).sleepers == 0 && figures(shared).used == 0);
  CHECK(!keg_zone_exhausted(shared) && keg_zone_destroy(shared, 0) == 0);
}

// U37: those who wait are served in the order of their coming.
static int order[6];
static _Atomic int served;
static void *queue_up(void *number) {
  void *item = keg_zone_alloc(shared, KEG_WAITOK);
  CHECK(item != NULL);
  order[served++] = (int)(intptr_t)number;
  keg_zone_free(shared, item);
  return NULL;
}
static void fifo(void) {
  shared = make("fifo", 64, 1);
  void *item = keg_zone_alloc(shared, KEG_NOWAIT);
  pthread_t threads[6];
  for (intptr_t i = 0; i < 6; i++) {
    pthread_create(&threads[i], NULL, queue_up, (void *)i);
    while (figures(shared).sleepers != (uint64_t)i + 1) usleep(500);
  }
  CHECK(keg_zone_exhausted(shared));
  CHECK(keg_zone_alloc(shared, KEG_NOWAIT) == NULL, "who comes later may not overtake");
  keg_zone_free(shared, item);  // U07: straight to the first sleeper
  for (int i = 0; i < 6; i++) pthread_join(threads[i], NULL);
  for (int i = 0; i < 6; i++) CHECK(order[i] == i, "%d was number %d", order[i], i);
  CHECK(keg_zone_destroy(shared, 0) == 0);
}

// A wait with an end; a limit that is raised wakes who sleeps (M06).
static void timeouts(void) {
  shared = make("timeout", 64, 1);
  void *item = keg_zone_alloc(shared, KEG_NOWAIT);
  errno = 0;
  CHECK(keg_zone_alloc_timeout(shared, NULL, KEG_WAITOK, 30) == NULL && errno == ETIMEDOUT);
  CHECK(figures(shared).sleepers == 0 && figures(shared).sleeps == 1);
  pthread_t threads[3];
  for (intptr_t i = 0; i < 3; i++) pthread_create(&threads[i], NULL, queue_up, (void *)i);
  while (figures(shared).sleepers != 3) usleep(500);
  uint64_t most = 4;
  CHECK(keg_ctl("zone.timeout.limit.max_items", NULL, NULL, &most, sizeof most) == 0);
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  keg_zone_free(shared, item);
  CHECK(keg_zone_destroy(shared, 0) == 0);
}

// U04: keg_zone_wait returns when there is an item to be had, and takes none.
static void *wait_for_one(void *zone) {
  CHECK(keg_zone_wait(zone) == 0);
  served++;
  return NULL;
}
static void wait(void) {
  shared = make("wait", 64, 1);
  void *item = keg_zone_alloc(shared, KEG_NOWAIT);
  pthread_t thread;
  pthread_create(&thread, NULL, wait_for_one, shared);
  while (figures(shared).sleepers != 1) usleep(500);
  CHECK(served == 0);
  keg_zone_free(shared, item);
  pthread_join(thread, NULL);
  CHECK(served == 1 && figures(shared).used == 0 && figures(shared).sleeps == 1);
  CHECK(keg_zone_destroy(shared, 0) == 0);
}

// What another thread has cached can be had: it is drained before anybody fails.
static _Atomic int stage;
static void *fill_cache(void *zone) {
  void *items[1000];
  for (int i = 0; i < 1000; i++) CHECK((items[i] = keg_zone_alloc(zone, KEG_NOWAIT)) != NULL);
  for (int i = 0; i < 1000; i++) keg_zone_free(zone, items[i]);
  stage = 1;
  while (stage == 1) usleep(500);
  return NULL;
}
static void others(void) {
  keg_zone *zone = make("others", 64, 1000);
  pthread_t thread;
  pthread_create(&thread, NULL, fill_cache, zone);
  while (stage == 0) usleep(500);
  void *items[1000];
  // Who would wait finds them as well, and does not sleep.
  for (int i = 0; i < 1000; i++) CHECK((items[i] = keg_zone_alloc(zone, i % 2 ? KEG_WAITOK : KEG_NOWAIT)) != NULL, "%d", i);
  CHECK(figures(zone).sleeps == 0 && keg_zone_alloc(zone, KEG_NOWAIT) == NULL);
  stage = 2;
  pthread_join(thread, NULL);
  for (int i = 0; i < 1000; i++) keg_zone_free(zone, items[i]);
  CHECK(keg_zone_destroy(zone, 0) == 0);
}

// U38: the text is printed once, maxaction is called each time (the test reads stderr).
static int actions;
static void act(keg_zone *zone, void *arg) {
  CHECK(zone == shared && arg == &actions);
  actions++;
}
static void warning(void) {
  shared = make("warned", 64, 1);
  keg_zone_set_warning(shared, "too many of them");
  keg_zone_set_maxaction(shared, act, &actions);
  void *item = keg_zone_alloc(shared, KEG_NOWAIT);
  for (int i = 0; i < 5; i++) CHECK(keg_zone_alloc(shared, KEG_NOWAIT) == NULL);
  CHECK(actions == 5, "%d", actions);
  keg_zone_free(shared, item);
  CHECK(keg_zone_destroy(shared, 0) == 0);
}

// P03: the hook gives back what the program caches, and the allocation succeeds.
static void *hoard[64];
// volatile: the compiler takes malloc for a function that calls nothing of this file.
static volatile int hoarded, calls;
static void give_hoard(void *arg) {
  CHECK(arg == hoard);
  calls++;
  while (hoarded > 0) free(hoard[--hoarded]);
}
static void drain_hook(void) {
  keg_zone *zone = keg_zone_create("hook", 4096, NULL, NULL, NULL, NULL, 0, 0);
  CHECK(keg_zone_set_drain_hook(zone, give_hoard, hoard) == 0);
  CHECK(keg_zone_set_drain_hook(NULL, give_hoard, hoard) == 0);
  CHECK(keg_set_limit(32 * MIB) == 0);
  while (hoarded < 63 && calls == 0) {
    void *block = hide(malloc(MIB));
    CHECK(block != NULL);
    hoard[hoarded++] = block;
  }
  CHECK(calls == 1 && hoarded == 1, "%d calls, %d left", calls, hoarded);
  keg_zone_set_drain_hook(NULL, NULL, NULL);
  void *block;
  while ((block = hide(malloc(MIB))) != NULL) hoard[hoarded++] = block;
  CHECK(calls == 1 && errno == ENOMEM);
  static void *items[8000];
  int got = 0;
  while (got < 8000 && calls == 1 && (items[got] = keg_zone_alloc(zone, KEG_WAITOK)) != NULL) got++;
  CHECK(calls == 2 && got > 0 && items[got - 1] != NULL, "%d calls, %d items", calls, got);
  CHECK(keg_set_limit(0) == 32 * MIB);
  while (got > 0) keg_zone_free(zone, items[--got]);
  CHECK(keg_zone_destroy(zone, 0) == 0);
}

// keg_set_limit, or the option: large blocks and small ones stop there, and go on
// when something is freed. realloc does not pass it either.
static void process(const char *how) {
  if (strcmp(how, "option") != 0) CHECK(keg_set_limit(64 * MIB) == 0);
  void *blocks[100];
  int count = 0;
  while (count < 100 && (blocks[count] = hide(malloc(MIB))) != NULL) count++;
  CHECK(count >= 55 && count <= 64 && errno == ENOMEM, "%d MiB", count);
  CHECK(hide(realloc(blocks[0], 8 * MIB)) == NULL);
  free(blocks[--count]);
  CHECK((blocks[count] = hide(malloc(MIB))) != NULL);
  count++;
  while (count > 0) free(blocks[--count]);
  size_t bytes = 0;
  void *list = NULL, *block;
  while ((block = hide(malloc(1000))) != NULL) *(void **)block = list, list = block, bytes += 1000;
  CHECK(bytes > 50 * MIB && bytes <= 64 * MIB, "%zu bytes", bytes);
  while (list) block = *(void **)list, free(list), list = block;
  // Below what is in use: nothing is taken away, and what is there can be used.
  char *kept = hide(malloc(20 * MIB));
  CHECK(kept != NULL && keg_set_limit(MIB) == 64 * MIB);
  memset(kept, 1, 20 * MIB);
  CHECK(hide(malloc(MIB)) == NULL && errno == ENOMEM);
  CHECK(keg_set_limit(0) == MIB);
  free(kept);
  free(hide(malloc(128 * MIB)));
}

// L09: every second one fails, with a limit on chance; the others are unhurt.
static void failures(const char *how) {
  keg_zone *zone = NULL, *other = NULL;
  while (!zone) zone = keg_zone_create("failing", 64, NULL, NULL, NULL, NULL, 0, 0);
  int failed = 0;
  if (strcmp(how, "zone") == 0) {
    other = keg_zone_create("other", 64, NULL, NULL, NULL, NULL, 0, 0);
    CHECK(keg_set_mtbf(zone, 2) == 0);
    for (int i = 0; i < 10000; i++) {
      void *item = keg_zone_alloc(zone, KEG_NOWAIT);
      if (!item) failed++;
      keg_zone_free(zone, item);
      item = keg_zone_alloc(zone, KEG_WAITOK);
      CHECK(item != NULL, "WAITOK does not fail");
      keg_zone_free(zone, item);
      item = keg_zone_alloc(other, KEG_NOWAIT);
      CHECK(item != NULL);
      keg_zone_free(other, item);
    }
    CHECK(keg_set_mtbf(zone, 0) == 0);
  } else {
    uint64_t mean = 0, none = 0;
    size_t size = sizeof mean;
    if (strcmp(how, "all") == 0) CHECK(keg_set_mtbf(NULL, 2) == 0);
    CHECK(keg_ctl("mtbf", &mean, &size, NULL, 0) == 0 && mean == 2, "%d", (int)mean);
    for (int i = 0; i < 10000; i++) {
      void *block = hide(malloc(i % 2 ? 100 : 100000));
      if (!block) failed++;
      free(block);
    }
    CHECK(keg_ctl("mtbf", NULL, NULL, &none, sizeof none) == 0);
  }
  CHECK(failed > 4500 && failed < 5500, "%d of 10,000", failed);
  for (int i = 0; i < 1000; i++) CHECK(keg_zone_alloc(zone, KEG_NOWAIT) != NULL && hide(malloc(100)) != NULL);
}

// D09: both or neither: a warning, ten at most (the test counts), and it waits.
static void flags(void) {
  keg_zone *zone = make("flags", 64, 1);
  for (int i = 0; i < 20; i++) {
    void *item = keg_zone_alloc(zone, i % 2 ? 0 : KEG_WAITOK | KEG_NOWAIT);
    CHECK(item != NULL);
    keg_zone_free(zone, item);
  }
  CHECK(keg_zone_destroy(zone, 0) == 0);
}

// U39: with NOVM the back end is not asked.
static void novm(void) {
  keg_zone *zone = keg_zone_create("novm", 1000, NULL, NULL, NULL, NULL, 0, 0);
  CHECK(keg_zone_alloc(zone, KEG_NOWAIT | KEG_NOVM) == NULL && errno == ENOMEM && figures(zone).slabs == 0);
  void *item = keg_zone_alloc(zone, KEG_NOWAIT);
  size_t all = figures(zone).slab_items, got = 1;
  while (keg_zone_alloc(zone, KEG_NOWAIT | KEG_NOVM) != NULL) got++;
  CHECK(item != NULL && got == all && figures(zone).slabs == 1, "%zu of %zu", got, all);
}

int main(int count, char **arguments) {
  CHECK(count >= 2);
  const char *test = arguments[1], *how = count > 2 ? arguments[2] : "";
  static const struct { const char *name; void (*run)(void); } tests[] = {
      {"max", max}, {"malloc", of_malloc}, {"waiters", waiters}, {"fifo", fifo}, {"timeouts", timeouts},
      {"others", others}, {"wait", wait}, {"warning", warning}, {"drain_hook", drain_hook}, {"flags", flags}, {"novm", novm}};
  for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
    if (strcmp(tests[i].name, test) == 0) {
      tests[i].run();
      return ok();
    }
  if (strcmp(test, "process") == 0) process(how);
  else if (strcmp(test, "failures") == 0) failures(how);
  else complain(__FILE__, __LINE__, "no such test", " %s", test);
  return ok();
}
