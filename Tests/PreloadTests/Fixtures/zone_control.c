// zone_control.c: keg_ctl: every leaf of UMA's tree, for a zone of the program and for
// all zones of malloc in use; what can be written; what is refused.
#include "fixture.h"
#include "kegmalloc.h"

static const char *const numbers[] = {
    "size", "bucket_size", "bucket_size_max", "keg.rsize", "keg.ppera", "keg.ipers", "keg.align", "keg.reserve",
    "keg.efficiency", "keg.domain.0.pages", "keg.domain.0.free_items", "keg.domain.0.free_slabs", "limit.items",
    "limit.max_items", "limit.sleepers", "limit.sleeps", "limit.bucket_max", "domain.0.nitems", "domain.0.imax",
    "domain.0.imin", "domain.0.bimin", "domain.0.wss", "domain.0.limin", "domain.0.timin", "stats.current",
    "stats.allocs", "stats.frees", "stats.fails", "stats.xdomain", "mtbf"};
static const char *const texts[] = {"flags", "keg.name"};

static uint64_t read_leaf(const char *zone, const char *leaf) {
  char name[128];
  snprintf(name, sizeof name, "zone.%s.%s", zone, leaf);
  uint64_t value = UINT64_MAX - 1;
  size_t size = sizeof value;
  CHECK(keg_ctl(name, &value, &size, NULL, 0) == 0 && size == 8, "%s", name);
  CHECK(value != UINT64_MAX - 1, "%s was not written", name);
  return value;
}

static void read_all(const char *zone) {
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    uint64_t value = read_leaf(zone, numbers[i]);
    // Never a negative figure.
    CHECK(value < (uint64_t)1 << 62 || strcmp(numbers[i], "limit.bucket_max") == 0, "%s %s", zone, numbers[i]);
  }
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    char name[128], text[128];
    snprintf(name, sizeof name, "zone.%s.%s", zone, texts[i]);
    size_t size = sizeof text;
    CHECK(keg_ctl(name, text, &size, NULL, 0) == 0 && size == strlen(text) + 1, "%s", name);
    size = 0;
    CHECK(keg_ctl(name, NULL, &size, NULL, 0) == 0 && size == strlen(text) + 1, "%s", name);
  }
  CHECK(read_leaf(zone, "stats.allocs") - read_leaf(zone, "stats.frees") == read_leaf(zone, "stats.current"));
}

static _Atomic int stop;
static void *load(void *zone) {
  while (!stop) {
    void *items[300];
    for (int i = 0; i < 300; i++) items[i] = keg_zone_alloc(zone, KEG_NOWAIT);
    for (int i = 0; i < 300; i++) keg_zone_free(zone, items[i]);
  }
  return NULL;
}

int main(void) {
  keg_zone *zone = keg_zone_create("a b/c.d-e", 100, NULL, NULL, NULL, NULL, 64, KEG_ZONE_NOFREE);
  void *items[1000];
  for (int i = 0; i < 1000; i++) items[i] = keg_zone_alloc(zone, KEG_NOWAIT);
  CHECK(read_leaf("a_b_c_d_e", "stats.current") == 1000 && read_leaf("a b/c.d-e", "size") == 100);
  CHECK(read_leaf("a_b_c_d_e", "keg.rsize") == 128 && read_leaf("a_b_c_d_e", "keg.ipers") == 128);
  CHECK(read_leaf("a_b_c_d_e", "keg.align") == 127, "UMA's mask");
  CHECK(read_leaf("a_b_c_d_e", "keg.ppera") == 4 && read_leaf("a_b_c_d_e", "keg.domain.0.pages") == 32);
  read_all("a_b_c_d_e");
  char text[64];
  size_t size = sizeof text;
  CHECK(keg_ctl("zone.a_b_c_d_e.flags", text, &size, NULL, 0) == 0 && strcmp(text, "NOFREE") == 0, "%s", text);
  size = 3;
  CHECK(keg_ctl("zone.a_b_c_d_e.flags", text, &size, NULL, 0) == EINVAL && size == 7);
  for (int i = 0; i < 1000; i++) keg_zone_free(zone, items[i]);
  CHECK(read_leaf("a_b_c_d_e", "stats.current") == 0);
  // Every zone of malloc, whether it was in use before or not.
  for (size_t bytes = 8; bytes <= 65536; bytes *= 2) {
    char name[32];
    snprintf(name, sizeof name, "malloc-%zu", bytes);
    CHECK(keg_zone_find(name) != NULL, "%s", name);
    read_all(name);
    CHECK(read_leaf(name, "size") == bytes);
  }
  // Used is never negative, and the sums hold, while others are at work.
  pthread_t thread;
  pthread_create(&thread, NULL, load, zone);
  for (int i = 0; i < 500; i++) {
    struct keg_zone_stats stats;
    CHECK(keg_zone_stats(zone, &stats, sizeof stats) == 0);
    CHECK(stats.used + stats.in_arrays + stats.in_depot == stats.imported - stats.released);
    CHECK(stats.used <= 1000, "%zu", stats.used);
    if (i % 50 == 0) keg_reclaim(KEG_RECLAIM_DRAIN_CPU);
  }
  stop = 1;
  pthread_join(thread, NULL);
  // What is refused.
  uint64_t value = 7;
  size = 8;
  CHECK(keg_ctl("zone.a_b_c_d_e.nothing", &value, &size, NULL, 0) == ENOENT);
  CHECK(keg_ctl("zone.nobody.size", &value, &size, NULL, 0) == ENOENT);
  CHECK(keg_ctl("nothing", &value, &size, NULL, 0) == ENOENT && keg_ctl("", &value, &size, NULL, 0) == ENOENT);
  CHECK(keg_ctl(NULL, &value, &size, NULL, 0) == EINVAL && keg_ctl("limit", &value, NULL, NULL, 0) == EINVAL);
  CHECK(keg_ctl("zone.a_b_c_d_e.size", NULL, NULL, &value, 8) == EPERM);
  CHECK(keg_ctl("zone.a_b_c_d_e.limit.max_items", NULL, NULL, &value, 4) == EINVAL);
  CHECK(keg_ctl("zone.a_b_c_d_e.limit.max_items", NULL, NULL, &value, 8) == 0 && keg_zone_get_max(zone) == 7);
  size = 4;
  CHECK(keg_ctl("zone.a_b_c_d_e.size", &value, &size, NULL, 0) == EINVAL && size == 8);
  // Writable ones, read and written in one call.
  value = 100;
  CHECK(keg_ctl("zone.a_b_c_d_e.limit.bucket_max", NULL, NULL, &value, 8) == 0);
  CHECK(read_leaf("a_b_c_d_e", "limit.bucket_max") == 100);
  value = 5;
  CHECK(keg_ctl("zone.a_b_c_d_e.mtbf", NULL, NULL, &value, 8) == 0 && read_leaf("a_b_c_d_e", "mtbf") == 5);
  value = (uint64_t)1 << 32;
  CHECK(keg_ctl("zone.a_b_c_d_e.mtbf", NULL, NULL, &value, 8) == EINVAL && keg_ctl("mtbf", NULL, NULL, &value, 8) == EINVAL);
  value = 0;
  CHECK(keg_ctl("zone.a_b_c_d_e.mtbf", NULL, NULL, &value, 8) == 0 && read_leaf("a_b_c_d_e", "mtbf") == 0);
  CHECK(keg_ctl("zone.malloc-64.mtbf", NULL, NULL, &value, 8) == EOPNOTSUPP, "malloc's failures are the process's");
  uint64_t old = 0;
  value = 1 << 30;
  size = 8;
  CHECK(keg_ctl("limit", &old, &size, &value, 8) == 0 && old == 0);
  value = 0;
  CHECK(keg_ctl("limit", &old, &size, &value, 8) == 0 && old == 1 << 30);
  CHECK(keg_zone_destroy(zone, 0) == 0);
  return ok();
}
