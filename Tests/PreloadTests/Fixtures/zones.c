// zones.c: keg_zone_* from a C program: what zones are made of. The argument names the
// test; the ids in comments are the features' of UMA and its kin.
#include <malloc.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "fixture.h"
#include "kegmalloc.h"

static struct keg_zone_stats figures(keg_zone *zone) {
  struct keg_zone_stats stats;
  CHECK(keg_zone_stats(zone, &stats, sizeof stats) == 0);
  return stats;
}

static keg_zone *make(const char *name, size_t size, uint64_t flags) {
  keg_zone *zone = keg_zone_create(name, size, NULL, NULL, NULL, NULL, 0, flags);
  CHECK(zone != NULL, "%s", name);
  return zone;
}

// ---- callbacks that count ----------------------------------------------------------

static int ctors, dtors, inits, finis, refuse_init_at = -1;
static void *seen_by_ctor, *seen_by_dtor;
static int ctor(void *item, size_t size, void *arg, int flags) {
  (void)size, (void)flags;
  CHECK(item != NULL);
  ctors++;
  seen_by_ctor = arg;
  return arg == (void *)-1;
}
static void dtor(void *item, size_t size, void *arg) {
  (void)item, (void)size;
  dtors++;
  seen_by_dtor = arg;
}
static int init(void *item, size_t size, int flags) {
  (void)item, (void)size, (void)flags;
  if (inits == refuse_init_at) return 1;
  inits++;
  return 0;
}
static void fini(void *item, size_t size) {
  (void)item, (void)size;
  finis++;
}

// ---- the tests ---------------------------------------------------------------------

// U02: names are copied, and the second and third of a name get a number.
static void names(void) {
  char name[] = "x";
  keg_zone *zones[3];
  for (int i = 0; i < 3; i++) zones[i] = make(name, 64, 0);
  name[0] = 'y';
  CHECK(strcmp(keg_zone_name(zones[0]), "x") == 0);
  CHECK(strcmp(keg_zone_name(zones[1]), "x_1") == 0);
  CHECK(strcmp(keg_zone_name(zones[2]), "x_2") == 0);
  CHECK(keg_zone_find("x_1") == zones[1] && keg_zone_size(zones[1]) == 64);
  errno = 0;
  CHECK(keg_zone_find("y") == NULL && errno == ENOENT);
  for (int i = 0; i < 3; i++) CHECK(keg_zone_destroy(zones[i], 0) == 0);
  CHECK(keg_zone_find("x") == NULL);
}

// U03, D05: init once an item, ctor once an allocation; failures unwound.
static void hooks(void) {
  keg_zone *zone = keg_zone_create("hooks", 100, ctor, dtor, init, fini, 0, 0);
  void *items[10];
  for (int round = 0; round < 10; round++) {
    for (int i = 0; i < 10; i++) CHECK((items[i] = keg_zone_alloc(zone, KEG_NOWAIT)) != NULL);
    for (int i = 0; i < 10; i++) keg_zone_free(zone, items[i]);
  }
  CHECK(ctors == 100 && dtors == 100);
  CHECK((size_t)inits == figures(zone).slab_items, "%d", inits);
  errno = 0;
  CHECK(keg_zone_alloc_arg(zone, (void *)-1, KEG_NOWAIT) == NULL && errno == ECANCELED);
  CHECK(ctors == 101 && dtors == 100, "the dtor of a refused item was called");
  CHECK(figures(zone).failures == 1 && figures(zone).used == 0);
  CHECK(keg_zone_destroy(zone, 0) == 0 && inits == finis);
  // The fifth init fails: the four before it are undone, and no slab is left.
  inits = finis = 0;
  refuse_init_at = 4;
  zone = keg_zone_create("hooks", 100, ctor, dtor, init, fini, 0, 0);
  CHECK(keg_zone_alloc(zone, KEG_NOWAIT) == NULL);
  CHECK(inits == finis && finis % 4 == 0 && finis > 0 && figures(zone).slabs == 0);
  refuse_init_at = -1;
  CHECK(keg_zone_destroy(zone, 0) == 0);
}

// U04: the argument arrives; NULL is ignored; keg_zone_wait gives back what it took.
static void argument(void) {
  keg_zone *zone = keg_zone_create("argument", 40, ctor, dtor, NULL, NULL, 0, 0);
  int cookie;
  void *item = keg_zone_alloc_arg(zone, &cookie, KEG_WAITOK);
  CHECK(item != NULL && seen_by_ctor == &cookie);
  keg_zone_free_arg(zone, item, &ctors);
  CHECK(seen_by_dtor == &ctors && dtors == 1);
  keg_zone_free(zone, NULL);
  keg_zone_free_arg(zone, NULL, &cookie);
  CHECK(dtors == 1);
  CHECK(keg_zone_wait(zone) == 0 && ctors == 2 && dtors == 2 && figures(zone).used == 0);
  CHECK(keg_zone_destroy(zone, 0) == 0);
}

// U24: ZERO is honoured for items that come out of a cache; ZINIT zeroes a slab once.
static void zero(void) {
  keg_zone *zone = make("zero", 200, 0);
  for (int round = 0; round < 3; round++) {
    void *items[100];
    for (int i = 0; i < 100; i++) {
      CHECK((items[i] = keg_zone_alloc(zone, KEG_NOWAIT | KEG_ZERO)) != NULL);
      CHECK(is_zero(items[i], 200), "round %d", round);
      memset(items[i], 0xa5, 200);
    }
    for (int i = 0; i < 100; i++) keg_zone_free(zone, items[i]);
  }
  CHECK(keg_zone_destroy(zone, 0) == 0);
  zone = make("zinit", 200, KEG_ZONE_ZINIT);
  unsigned char *item = keg_zone_alloc(zone, KEG_NOWAIT);
  CHECK(is_zero(item, 200), "the slab was dirty before");
  item[7] = 1;
  keg_zone_free(zone, item);
  unsigned char *again = keg_zone_alloc(zone, KEG_NOWAIT);
  CHECK(again == item && item[7] == 1, "ZINIT is once a slab");
  keg_zone_free(zone, again);
  CHECK(keg_zone_destroy(zone, 0) == 0);
}

// U28: a bitmap of ids behind a cache zone, used by four threads.
static pthread_mutex_t id_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned char id_used[1001], id_held[1001];
static int imports;
static int import_ids(void *arg, void **items, int count, int flags) {
  CHECK(arg == id_used && flags == KEG_NOWAIT, "flags %d", flags);
  free(hide(malloc(100)));  // a function of the program may allocate
  pthread_mutex_lock(&id_lock);
  imports++;
  int got = 0;
  for (size_t id = 1; id <= 1000 && got < count; id++)
    if (!id_used[id]) id_used[id] = 1, items[got++] = (void *)id;
  pthread_mutex_unlock(&id_lock);
  return got;
}
static int import_one_who_waits(void *arg, void **items, int count, int flags) {
  (void)arg;
  CHECK(flags == KEG_NOWAIT || (flags == KEG_WAITOK && count == 1), "flags %d for %d", flags, count);
  if (flags == KEG_WAITOK) items[0] = (void *)1000, id_used[1000] = 1;
  return flags == KEG_WAITOK;
}
static void release_ids(void *arg, void **items, int count) {
  CHECK(arg == id_used);
  pthread_mutex_lock(&id_lock);
  for (int i = 0; i < count; i++) {
    CHECK(id_used[(size_t)items[i]], "released twice");
    id_used[(size_t)items[i]] = 0;
  }
  pthread_mutex_unlock(&id_lock);
}
static keg_zone *ids;
static void *use_ids(void *unused) {
  (void)unused;
  for (int round = 0; round < 5000; round++) {
    void *mine[10];
    for (int i = 0; i < 10; i++) {
      mine[i] = keg_zone_alloc(ids, KEG_NOWAIT);
      CHECK(mine[i] != NULL, "1000 ids for 4 threads");
      CHECK(__atomic_exchange_n(&id_held[(size_t)mine[i]], 1, __ATOMIC_SEQ_CST) == 0, "given twice");
    }
    for (int i = 0; i < 10; i++) {
      __atomic_store_n(&id_held[(size_t)mine[i]], 0, __ATOMIC_SEQ_CST);
      keg_zone_free(ids, mine[i]);
    }
  }
  return NULL;
}
static void cache(void) {
  struct keg_zone_attr attr = {.struct_size = sizeof attr, .import = import_ids, .release = release_ids,
                               .import_arg = id_used, .cache_capacity = 30, .flags = KEG_ZONE_NOTOUCH};
  ids = keg_zone_create_attr("ids", 1, &attr);
  CHECK(ids != NULL);
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, use_ids, NULL);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  CHECK(imports < 4 * 5000 * 10 / 30, "%d imports for 200,000 allocations", imports);
  CHECK(keg_zone_alloc(ids, KEG_NOWAIT | KEG_ZERO) == NULL && errno == EINVAL, "ZERO of what is no memory");
  CHECK(keg_zone_destroy(ids, 0) == 0);
  // Who waits may make the import wait: a fill that brought nothing is followed by that.
  attr.import = import_one_who_waits;
  ids = keg_zone_create_attr("waits", 1, &attr);
  CHECK(keg_zone_alloc(ids, KEG_NOWAIT) == NULL && errno == ENOMEM);
  void *id_of_one = keg_zone_alloc(ids, KEG_WAITOK);
  CHECK(id_of_one == (void *)1000);
  keg_zone_free(ids, id_of_one);
  CHECK(keg_zone_destroy(ids, 0) == 0);
  for (int id = 1; id <= 1000; id++) CHECK(!id_used[id]);
}

// U01, U26, M03, M04: mbuf, cluster, and packets on the keg of mbufs.
static keg_zone *clusters;
static int attached, detached, refuse_attach_at = -1;
static int attach(void *item, size_t size, int flags) {
  (void)size, (void)flags;
  if (attached == refuse_attach_at) return 1;
  void *cluster = keg_zone_alloc(clusters, KEG_NOWAIT);
  if (cluster) *(void **)item = cluster, attached++;
  return cluster == NULL;
}
static void detach(void *item, size_t size) {
  (void)size;
  keg_zone_free(clusters, *(void **)item);
  detached++;
}
// What keg_stats_print writes; to be freed.
static char *print_table(void) {
  FILE *file = tmpfile();
  CHECK(file != NULL);
  keg_stats_print(fileno(file));
  long length = lseek(fileno(file), 0, SEEK_END);
  char *text = calloc(1, (size_t)length + 1);
  CHECK(pread(fileno(file), text, (size_t)length, 0) == length);
  fclose(file);
  return text;
}
static void secondary(void) {
  keg_zone *mbufs = keg_zone_create("mbuf", 256, NULL, NULL, NULL, NULL, 256, 0);
  clusters = make("cluster", 2048, 0);
  keg_zone *packets = keg_zone_create_secondary("packet", NULL, NULL, attach, detach, mbufs);
  CHECK(packets != NULL && keg_zone_create_secondary("p", NULL, NULL, NULL, NULL, packets) == NULL);
  char keg[40];
  size_t length = sizeof keg;
  CHECK(keg_ctl("zone.packet.keg.name", keg, &length, NULL, 0) == 0 && strcmp(keg, "mbuf") == 0);
  void *items[100];
  for (int round = 0; round < 100; round++) {
    for (int i = 0; i < 100; i++) {
      CHECK((items[i] = keg_zone_alloc(packets, KEG_NOWAIT)) != NULL);
      CHECK((uintptr_t)items[i] % 256 == 0 && *(void **)items[i] != NULL);
      memset(*(void **)items[i], i, 2048);
    }
    for (int i = 0; i < 100; i++) keg_zone_free(packets, items[i]);
  }
  CHECK(attached < 1000, "%d clusters for 10,000 packets", attached);
  // U01: the table has both, with the same pages, beside malloc's zones and our own.
  char *table = print_table();
  CHECK(strstr(table, "\nmalloc-") && strstr(table, "\nmbuf:") && strstr(table, "\npacket:") && strstr(table, "\ntags:"), "%s", table);
  free(table);
  CHECK(figures(mbufs).slabs == figures(packets).slabs, "one keg");
  CHECK(keg_zone_destroy(mbufs, 0) == EBUSY, "its keg is shared");
  CHECK(keg_zone_reclaim(packets, KEG_RECLAIM_DRAIN_CPU) == 0);
  CHECK(attached == detached && figures(packets).used == 0 && figures(clusters).used == 0);
  // U03: zinit fails for the sixth of a bucket: five arrive, the others go back to the keg.
  refuse_attach_at = attached + 5;
  int from = detached;
  for (int i = 0; i < 5; i++) CHECK((items[i] = keg_zone_alloc(packets, KEG_NOWAIT)) != NULL, "%d", i);
  CHECK(keg_zone_alloc(packets, KEG_NOWAIT) == NULL && errno == ENOMEM);
  CHECK(figures(packets).used == 5 && figures(mbufs).used == 0);
  CHECK(figures(packets).slabs * figures(packets).slab_items == figures(packets).free_items + 5, "the rest went back");
  refuse_attach_at = -1;
  for (int i = 0; i < 5; i++) keg_zone_free(packets, items[i]);
  CHECK(keg_zone_reclaim(packets, KEG_RECLAIM_DRAIN_CPU) == 0 && detached == from + 5 && attached == detached);
  CHECK(keg_zone_destroy(packets, 0) == 0 && keg_zone_destroy(mbufs, 0) == 0);
  CHECK(keg_zone_destroy(clusters, 0) == 0);
}

// U30: slabs stay, and what was freed can be read.
static void nofree(void) {
  keg_zone *zone = make("nofree", 1000, KEG_ZONE_NOFREE);
  static char *items[5000];
  for (int i = 0; i < 5000; i++) {
    CHECK((items[i] = keg_zone_alloc(zone, KEG_NOWAIT)) != NULL);
    items[i][500] = (char)i;
  }
  size_t slabs = figures(zone).slabs;
  for (int i = 0; i < 5000; i++) keg_zone_free(zone, items[i]);
  CHECK(keg_reclaim(KEG_RECLAIM_DRAIN_CPU) == 0);
  CHECK(figures(zone).slabs == slabs && slabs > 50);
  for (int i = 0; i < 5000; i++) CHECK(items[i][500] == (char)i);
  CHECK(keg_zone_destroy(zone, 0) == 0);
  zone = make("free", 1000, 0);
  for (int i = 0; i < 5000; i++) items[i] = keg_zone_alloc(zone, KEG_NOWAIT);
  for (int i = 0; i < 5000; i++) keg_zone_free(zone, items[i]);
  CHECK(keg_reclaim(KEG_RECLAIM_DRAIN_CPU) == 0 && figures(zone).slabs == 0, "the others do go");
  CHECK(keg_zone_destroy(zone, 0) == 0);
}

// U31, U33, D10: 3 of 100 leaked: fini for every free item, those of partial slabs and
// caches too; the refusal and the report come first.
static void allfini(void) {
  keg_zone *zone = keg_zone_create("allfini", 100, NULL, NULL, init, fini, 0, KEG_ZONE_NOFREE | KEG_ZONE_ALLFINI);
  void *items[100];
  for (int i = 0; i < 100; i++) items[i] = keg_zone_alloc(zone, KEG_NOWAIT);
  for (int i = 3; i < 100; i++) keg_zone_free(zone, items[i]);
  CHECK(keg_zone_destroy(zone, 0) == EBUSY && finis == 0);
  void *more = keg_zone_alloc(zone, KEG_NOWAIT);
  CHECK(more != NULL, "the zone is as before");
  keg_zone_free(zone, more);
  int all = (int)(figures(zone).slabs * figures(zone).slab_items);
  CHECK(keg_zone_destroy(zone, KEG_DESTROY_FORCE) == 0);
  CHECK(finis == all - 3 && inits == all, "%d of %d", finis, all);
  memset(items[0], 1, 100);  // a leaked item's memory stays
  // Without ALLFINI, as in UMA, the fini of a NOFREE zone is not called.
  finis = 0;
  zone = keg_zone_create("nofini", 100, NULL, NULL, init, fini, 0, KEG_ZONE_NOFREE);
  keg_zone_free(zone, keg_zone_alloc(zone, KEG_NOWAIT));
  CHECK(keg_zone_destroy(zone, 0) == 0 && finis == 0);
}

// The same by the table's figures: a keg of 100 items, all of them out, three leaked; of the
// others 40 are in caches.
static char hundred[100 * 112];
static void allfini_of_100(void) {
  struct keg_zone_attr attr = {.struct_size = sizeof attr, .init = init, .fini = fini, .buffer = hundred,
                               .buffer_bytes = sizeof hundred, .flags = KEG_ZONE_NOFREE | KEG_ZONE_ALLFINI};
  keg_zone *zone = keg_zone_create_attr("hundred", 100, &attr);
  void *items[100];
  for (int i = 0; i < 100; i++) CHECK((items[i] = keg_zone_alloc(zone, KEG_NOWAIT)) != NULL, "%d", i);
  CHECK(inits == 100 && keg_zone_alloc(zone, KEG_NOWAIT) == NULL);
  for (int i = 3; i < 60; i++) keg_zone_free(zone, items[i]);
  CHECK(keg_zone_reclaim(zone, KEG_RECLAIM_DRAIN_CPU) == 0);
  for (int i = 60; i < 100; i++) keg_zone_free(zone, items[i]);
  CHECK(figures(zone).in_arrays > 0 && figures(zone).used == 3 && finis == 0);
  CHECK(keg_zone_destroy(zone, KEG_DESTROY_FORCE) == 0 && finis == 97, "%d", finis);
}

// U15: trim leaves the working set, drain the arrays, and drain_cpu nothing; other
// threads' arrays go when they next come by.
static _Atomic int drained;
static void *cache_some(void *zone) {
  void *items[100];
  for (int i = 0; i < 100; i++) items[i] = keg_zone_alloc(zone, KEG_NOWAIT);
  for (int i = 0; i < 100; i++) keg_zone_free(zone, items[i]);
  drained = 1;
  while (drained == 1) usleep(500);
  free(hide(malloc(200000)));
  free(hide(malloc(3000)));
  drained = 3;
  while (drained == 3) usleep(500);
  return NULL;
}
static void reclaim(void) {
  keg_zone *zone = make("reclaim", 1000, 0);
  static void *items[400];
  // What was taken out of the depot, and more came back: that much is its working set.
  for (int count = 200; count <= 400; count += 200) {
    for (int i = 0; i < count; i++) items[i] = keg_zone_alloc(zone, KEG_NOWAIT);
    for (int i = 0; i < count; i++) keg_zone_free(zone, items[i]);
  }
  struct keg_zone_stats before = figures(zone);
  uint64_t wanted = 0;
  size_t size = sizeof wanted;
  CHECK(keg_ctl("zone.reclaim.domain.0.wss", &wanted, &size, NULL, 0) == 0);
  CHECK(wanted > 50 && before.in_depot > wanted + before.bucket_size && before.in_arrays > 0, "%zu", before.in_depot);
  CHECK(keg_zone_reclaim(zone, KEG_RECLAIM_TRIM) == 0);
  CHECK(figures(zone).in_depot <= wanted && figures(zone).in_depot + before.bucket_size >= wanted, "%zu", figures(zone).in_depot);
  CHECK(figures(zone).in_arrays == before.in_arrays);
  CHECK(keg_zone_reclaim(zone, KEG_RECLAIM_DRAIN) == 0);
  CHECK(figures(zone).in_depot == 0 && figures(zone).in_arrays == before.in_arrays);
  CHECK(keg_zone_reclaim(zone, KEG_RECLAIM_DRAIN_CPU) == 0);
  CHECK(figures(zone).in_depot == 0 && figures(zone).in_arrays == 0 && figures(zone).slabs == 0);
  pthread_t thread;
  pthread_create(&thread, NULL, cache_some, zone);
  while (drained == 0) usleep(500);
  CHECK(figures(zone).in_arrays > 0 && keg_zone_reclaim(zone, KEG_RECLAIM_DRAIN_CPU) == 0);
  drained = 2;
  while (drained == 2) usleep(500);
  CHECK(figures(zone).in_arrays == 0, "%zu", figures(zone).in_arrays);
  drained = 4;
  pthread_join(thread, NULL);
  CHECK(keg_zone_destroy(zone, 0) == 0);
}

// U32: the three states are exact, and every item is met once.
static int visited[8];
static char *visited_items[4096];
static int visit(void *item, int state, void *arg) {
  CHECK(arg == visited);
  visited_items[visited[1] + visited[2] + visited[4]] = item;
  visited[state]++;
  return 0;
}
static int stop_at_first(void *item, int state, void *arg) {
  (void)item, (void)state;
  ++*(int *)arg;
  return 42;
}
static _Atomic int waiting, counted;
static void *allocate_some(void *zone) {
  void *items[50];
  for (int i = 0; i < 50; i++) items[i] = keg_zone_alloc(zone, KEG_NOWAIT);
  for (int i = 0; i < 40; i++) keg_zone_free(zone, items[i]);
  waiting++;
  // Alive while the others count: its bins are looked into.
  while (!counted) usleep(1000);
  for (int i = 40; i < 50; i++) keg_zone_free(zone, items[i]);
  return (void *)(intptr_t)0;
}
static void foreach(void) {
  keg_zone *zone = make("foreach", 120, 0);
  pthread_t threads[3];
  for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, allocate_some, zone);
  while (waiting < 3) usleep(1000);  // they are past their last call
  CHECK(figures(zone).used == 30);
  CHECK(keg_zone_foreach(zone, KEG_ITEM_ALL, visit, visited) == 0);
  struct keg_zone_stats stats = figures(zone);
  CHECK(visited[KEG_ITEM_ALLOCATED] == 30, "%d", visited[1]);
  CHECK((size_t)visited[KEG_ITEM_CACHED] == stats.in_arrays + stats.in_depot && visited[4] >= 120);
  CHECK((size_t)visited[KEG_ITEM_FREE] == stats.free_items);
  int all = visited[1] + visited[2] + visited[4];
  CHECK((size_t)all == stats.slabs * stats.slab_items);
  for (int i = 0; i < all; i++)
    for (int j = 0; j < i; j++) CHECK(visited_items[i] != visited_items[j]);
  int calls = 0;
  CHECK(keg_zone_foreach(zone, KEG_ITEM_ALLOCATED, stop_at_first, &calls) == 42 && calls == 1);
  counted = 1;
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  CHECK(keg_zone_destroy(zone, 0) == 0);
}

// malloc_trim takes the depot at once, and what other threads' arrays hold when they come
// to their next slow path.
static _Atomic int trimmed, drained_threads;
static void *fill_array(void *unused) {
  (void)unused;
  void *blocks[100];
  for (int i = 0; i < 100; i++) blocks[i] = malloc(1000);
  for (int i = 0; i < 100; i++) free(blocks[i]);
  waiting++;
  while (!trimmed) usleep(1000);
  free(malloc(50000));  // a class that this thread has not used
  drained_threads++;
  while (drained_threads < 4) usleep(1000);
  return NULL;
}
static void trim(void) {
  keg_zone *zone = keg_zone_find("malloc-1024");
  CHECK(zone);
  pthread_t threads[3];
  for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, fill_array, NULL);
  while (waiting < 3) usleep(1000);
  free(malloc(1000));
  CHECK(figures(zone).in_arrays > 3 * 20);
  malloc_trim(0);
  CHECK(figures(zone).in_depot == 0 && figures(zone).in_arrays > 3 * 20, "%zu in arrays", (size_t)figures(zone).in_arrays);
  trimmed = 1;
  while (drained_threads < 3) usleep(1000);
  CHECK(figures(zone).in_arrays == 0, "%zu in arrays", (size_t)figures(zone).in_arrays);
  drained_threads++;
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
}

// U33: two live items: EBUSY, and a line that says so (the test reads it).
static void destroy(void) {
  keg_zone *zone = make("leaky", 64, 0);
  void *a = keg_zone_alloc(zone, KEG_NOWAIT), *b = keg_zone_alloc(zone, KEG_NOWAIT);
  CHECK(keg_zone_destroy(zone, 0) == EBUSY);
  keg_zone_free(zone, a);
  keg_zone_free(zone, b);
  CHECK(keg_zone_destroy(zone, 0) == 0);
  CHECK(keg_zone_destroy(zone, 0) == EINVAL, "twice");
  CHECK(keg_zone_destroy(keg_zone_find("malloc-64"), 0) == EBUSY);
}

// Regression 1 and 2 of UMA's: zones come and go while ticks and reclaims run, and
// neither slabs nor bucket structures pile up.
static _Atomic int stop_ticking;
static void *tick(void *unused) {
  (void)unused;
  while (!stop_ticking) {
    keg_reclaim(KEG_RECLAIM_TRIM);
    keg_stats_print(-1);
  }
  return NULL;
}
static void churn(void) {
  pthread_t thread;
  size_t before = 0;
  pthread_create(&thread, NULL, tick, NULL);
  for (int round = 0; round < 3000; round++) {
    keg_zone *zone = make("churn", 64 + (size_t)round % 7 * 100, 0);
    void *items[300];
    for (int i = 0; i < 300; i++) CHECK((items[i] = keg_zone_alloc(zone, KEG_NOWAIT)) != NULL);
    for (int i = 0; i < 300; i++) keg_zone_free(zone, items[i]);
    CHECK(keg_zone_destroy(zone, 0) == 0);
    if (round == 1000) before = status_kib("VmRSS:");
  }
  stop_ticking = 1;
  pthread_join(thread, NULL);
  CHECK(status_kib("VmRSS:") < before + 1024, "from %zu to %zu KiB", before, status_kib("VmRSS:"));
}

// A zone that is destroyed keeps its number until its caches are empty: else another
// thread's new zone would lose what it has cached there.
static void *come_and_go(void *unused) {
  for (int round = 0; round < 2000; round++) {
    keg_zone *zone = make("come and go", 64 + (size_t)round % 3 * 100, 0);
    void *items[50];
    for (int i = 0; i < 50; i++) CHECK((items[i] = keg_zone_alloc(zone, KEG_NOWAIT)) != NULL);
    for (int i = 0; i < 50; i++) keg_zone_free(zone, items[i]);
    CHECK(figures(zone).used == 0 && keg_zone_destroy(zone, 0) == 0);
  }
  return unused;
}
static void crowd(void) {
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, come_and_go, NULL);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
}

// U27, M05: two threads drop references; one of them sees the last. The counter can be
// read after the item is freed (regression 19).
static keg_zone *counted_zone;
static char *volatile shared_item;
static _Atomic int turn[2];
static int lasts;
static void *drop(void *argument) {
  int me = (int)(intptr_t)argument;
  for (int round = 1; round <= 20000; round++) {
    if (me == 0) {
      char *item = keg_zone_alloc(counted_zone, KEG_WAITOK);
      __atomic_store_n(keg_refcnt(counted_zone, item), 2, __ATOMIC_SEQ_CST);
      shared_item = item;
      turn[0] = round;
    } else {
      while (turn[0] != round) sched_yield();
    }
    char *item = shared_item;
    uint32_t *count = keg_refcnt(counted_zone, item);
    if (__atomic_sub_fetch(count, 1, __ATOMIC_SEQ_CST) == 0) {
      __atomic_add_fetch(&lasts, 1, __ATOMIC_SEQ_CST);
      keg_zone_free(counted_zone, item);
    }
    CHECK(__atomic_load_n(count, __ATOMIC_SEQ_CST) <= 2, "a counter after its item");
    if (me == 1) {
      turn[1] = round;
    } else {
      while (turn[1] != round) sched_yield();
    }
  }
  return NULL;
}
static void refcnt(void) {
  counted_zone = make("clusters", 2048, KEG_ZONE_REFCNT);
  char *item = keg_zone_alloc(counted_zone, KEG_NOWAIT);
  uint32_t *count = keg_refcnt(counted_zone, item);
  CHECK(count != NULL && *count == 0);
  CHECK((char *)count < item || (char *)count >= item + 2048, "beside the slab");
  CHECK(keg_refcnt(counted_zone, item + 1) == NULL && errno == EINVAL);
  CHECK(keg_refcnt(counted_zone, &count) == NULL);
  *count = 7;
  keg_zone_free(counted_zone, item);
  CHECK(keg_reclaim(KEG_RECLAIM_DRAIN_CPU) == 0 && *count == 7);
  pthread_t threads[2];
  for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, drop, (void *)(intptr_t)i);
  for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
  CHECK(lasts == 20000, "%d", lasts);
  CHECK(figures(counted_zone).used == 0 && keg_zone_destroy(counted_zone, 0) == 0);
}

// U23: items that are no memory: nothing may touch them.
static int grants;
static void *grant(void *arg, size_t bytes, int flags) {
  (void)arg, (void)flags;
  return grants++ < 4 ? (void *)(0x1000 + (size_t)(grants - 1) * bytes) : NULL;
}
static void take_back(void *arg, void *memory, size_t bytes) {
  (void)arg, (void)memory, (void)bytes;
  grants--;
}
static void notouch(void) {
  struct keg_zone_attr attr = {.struct_size = sizeof attr, .flags = KEG_ZONE_NOTOUCH,
                               .backend = {grant, take_back, NULL}, .slab_bytes = 0x1000};
  keg_zone *zone = keg_zone_create_attr("ports", 16, &attr);
  CHECK(zone != NULL);
  void *items[1024];
  for (int i = 0; i < 1024; i++) {
    items[i] = keg_zone_alloc(zone, KEG_NOWAIT);
    CHECK((size_t)items[i] >= 0x1000 && (size_t)items[i] < 0x5000 && (size_t)items[i] % 16 == 0);
    for (int j = 0; j < i; j++) CHECK(items[i] != items[j]);
  }
  CHECK(keg_zone_alloc(zone, KEG_NOWAIT) == NULL && errno == ENOMEM);
  grants = 4;
  for (int i = 0; i < 1024; i++) keg_zone_free(zone, items[i]);
  CHECK(keg_zone_destroy(zone, 0) == 0 && grants == 0, "%d slabs with the zone", grants);
}

// U29: a caller's buffer, a memfd.
static char buffer[20000];
static int backing;
static int mapped;
static void *map_file(void *arg, size_t bytes, int flags) {
  (void)flags;
  void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, *(int *)arg, mapped * (off_t)bytes);
  if (memory == MAP_FAILED) return NULL;
  mapped++;
  return memory;
}
static void unmap_file(void *arg, void *memory, size_t bytes) {
  (void)arg;
  munmap(memory, bytes);
  mapped--;
}
// Two MiB for each slab, of huge pages if the kernel has any.
static void *map_huge(void *arg, size_t bytes, int flags) {
  (void)arg, (void)flags;
  size_t huge = 2 * MIB;
  char *memory = mmap(NULL, bytes + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return NULL;
  size_t skip = -(size_t)memory & (huge - 1);
  if (skip) munmap(memory, skip);
  munmap(memory + skip + bytes, huge - skip);
  madvise(memory + skip, bytes, MADV_HUGEPAGE);
  mapped++;
  return memory + skip;
}
static void huge_pages(void) {
  struct keg_zone_attr attr = {.struct_size = sizeof attr, .backend = {map_huge, unmap_file, NULL}, .slab_bytes = 2 * MIB};
  keg_zone *zone = keg_zone_create_attr("huge", 4096, &attr);
  char *items[513];
  for (int i = 0; i < 513; i++) CHECK((items[i] = keg_zone_alloc(zone, KEG_NOWAIT)) != NULL);
  CHECK(mapped == 2 && figures(zone).slab_items == 512, "%d slabs", mapped);
  for (int i = 0; i < 513; i++) {
    CHECK((uintptr_t)items[i] % 4096 == 0);
    memset(items[i], i, 4096);
  }
  for (int i = 0; i < 513; i++) keg_zone_free(zone, items[i]);
  CHECK(keg_zone_destroy(zone, 0) == 0 && mapped == 0);
}
static void backend(void) {
  huge_pages();
  struct keg_zone_attr attr = {.struct_size = sizeof attr, .buffer = buffer, .buffer_bytes = sizeof buffer};
  keg_zone *zone = keg_zone_create_attr("buffer", 100, &attr);
  char *items[200], *item;
  int count = 0;
  while ((item = keg_zone_alloc(zone, KEG_NOWAIT)) != NULL) {
    CHECK(item >= buffer && item + 100 <= buffer + sizeof buffer);
    mark(item, 100, (unsigned)count);
    items[count++] = item;
  }
  CHECK(count == 178, "%d", count);
  for (int i = 0; i < count; i++) {
    CHECK(is_marked(items[i], 100, (unsigned)i));
    keg_zone_free(zone, items[i]);
  }
  CHECK(keg_zone_destroy(zone, 0) == 0);
  backing = memfd_create("zone", 0);
  CHECK(backing >= 0 && ftruncate(backing, 1 << 20) == 0);
  attr = (struct keg_zone_attr){.struct_size = sizeof attr, .backend = {map_file, unmap_file, &backing},
                                .slab_bytes = 65536};
  zone = keg_zone_create_attr("memfd", 64, &attr);
  item = keg_zone_alloc(zone, KEG_NOWAIT);
  memcpy(item, "in the file", 12);
  char text[65536];
  CHECK(pread(backing, text, sizeof text, 0) == sizeof text && memmem(text, sizeof text, "in the file", 12) != NULL);
  keg_zone_free(zone, item);
  CHECK(keg_zone_destroy(zone, 0) == 0 && mapped == 0);
}

// U35: no page fault after prealloc; U34: the last items are for USE_RESERVE.
static void reserves(void) {
  keg_zone *zone = make("prealloc", 256, 0);
  CHECK(keg_zone_prealloc(zone, 4000) == 0);
  size_t slabs = figures(zone).slabs;
  static char *items[4000];
  struct rusage before, after;
  for (int i = 0; i < 4000; i++) items[i] = NULL;
  getrusage(RUSAGE_THREAD, &before);
  for (int i = 0; i < 4000; i++) items[i] = keg_zone_alloc(zone, KEG_NOWAIT), items[i][0] = 1, items[i][255] = 1;
  getrusage(RUSAGE_THREAD, &after);
  CHECK(after.ru_minflt - before.ru_minflt < 20, "%ld faults", after.ru_minflt - before.ru_minflt);
  CHECK(figures(zone).slabs == slabs, "from what was made");
  for (int i = 0; i < 4000; i++) keg_zone_free(zone, items[i]);
  CHECK(keg_zone_destroy(zone, 0) == 0);

  zone = make("reserve", 1024, KEG_ZONE_NOBUCKET);
  CHECK(keg_zone_reserve(zone, 10) == 0 && figures(zone).slabs == 0, "allocates nothing");
  void *first = keg_zone_alloc(zone, KEG_NOWAIT);
  size_t per_slab = figures(zone).slab_items;
  int taken = 1;
  // NOVM: only what is there. The last ten are not.
  while (keg_zone_alloc(zone, KEG_NOWAIT | KEG_NOVM)) taken++;
  CHECK((size_t)taken == per_slab - 10, "%d of %zu", taken, per_slab);
  int reserved = 0;
  while (keg_zone_alloc(zone, KEG_NOWAIT | KEG_NOVM | KEG_USE_RESERVE)) reserved++;
  CHECK(reserved == 10 && figures(zone).slabs == 1, "%d", reserved);
  CHECK(first != NULL && keg_zone_destroy(zone, KEG_DESTROY_FORCE) == 0);

  zone = make("va", 64, 0);
  CHECK(keg_zone_reserve_va(zone, 100) == 0);
  size_t most = keg_zone_get_max(zone);
  CHECK(most >= 100 && most == figures(zone).slabs * figures(zone).slab_items);
  size_t got = 0;
  while (keg_zone_alloc(zone, KEG_NOWAIT)) got++;
  CHECK(got == most && figures(zone).slabs * figures(zone).slab_items == most);
  CHECK(keg_zone_destroy(zone, KEG_DESTROY_FORCE) == 0);
}

// P01: at most two idle slabs stay at a free, and one through a drain.
static void watermarks(void) {
  keg_zone *zone = make("water", 8192, KEG_ZONE_NOBUCKET);
  void *item = keg_zone_alloc(zone, KEG_NOWAIT);
  size_t per_slab = figures(zone).slab_items;
  keg_zone_free(zone, item);
  CHECK(keg_zone_set_watermarks(zone, per_slab, 2 * per_slab) == 0);
  CHECK(keg_zone_set_watermarks(zone, 10, 5) == EINVAL);
  void *items[100];
  for (size_t i = 0; i < 5 * per_slab; i++) items[i] = keg_zone_alloc(zone, KEG_NOWAIT);
  for (size_t i = 0; i < 5 * per_slab; i++) keg_zone_free(zone, items[i]);
  CHECK(figures(zone).slabs == 2, "%zu", figures(zone).slabs);
  CHECK(keg_zone_reclaim(zone, KEG_RECLAIM_DRAIN_CPU) == 0 && figures(zone).slabs == 1);
  CHECK(keg_zone_destroy(zone, 0) == 0);
}

// U47: the kernel leaves the zone's slabs out of core files.
static int is_undumped(void *item) {
  FILE *file = fopen("/proc/self/smaps", "re");
  CHECK(file != NULL);
  char line[512];
  int inside = 0, found = -1;
  while (fgets(line, sizeof line, file)) {
    unsigned long low, high;
    if (sscanf(line, "%lx-%lx ", &low, &high) == 2) inside = (size_t)item >= low && (size_t)item < high;
    if (inside && strncmp(line, "VmFlags:", 8) == 0) found = strstr(line, " dd") != NULL;
  }
  fclose(file);
  return found;
}
static void nodump(void) {
  keg_zone *zone = make("secrets", 64, KEG_ZONE_NODUMP);
  void *item = keg_zone_alloc(zone, KEG_NOWAIT);
  void *other = malloc(64);
  CHECK(is_undumped(item) == 1 && is_undumped(other) == 0);
  free(other);
  keg_zone_free(zone, item);
  CHECK(keg_zone_destroy(zone, 0) == 0);
  CHECK(is_undumped(item) == 0, "the memory is anybody's again");
}

// Bad arguments have a defined answer.
static void *visited_bulk[1];
static void arguments(void) {
  struct keg_zone_attr attr = {.struct_size = sizeof attr};
#define REFUSED(expression) errno = 0; CHECK((expression) == NULL && errno == EINVAL)
  REFUSED(keg_zone_create(NULL, 64, NULL, NULL, NULL, NULL, 0, 0));
  REFUSED(keg_zone_create("z", 0, NULL, NULL, NULL, NULL, 0, 0));
  REFUSED(keg_zone_create("z", SIZE_MAX, NULL, NULL, NULL, NULL, 0, 0));
  REFUSED(keg_zone_create("z", (1 << 20) + 1, NULL, NULL, NULL, NULL, 0, 0));
  REFUSED(keg_zone_create("z", 64, NULL, NULL, NULL, NULL, 3, 0));
  REFUSED(keg_zone_create("z", 64, NULL, NULL, NULL, NULL, 1 << 17, 0));
  REFUSED(keg_zone_create("z", 64, NULL, NULL, NULL, NULL, 0, (uint64_t)1 << 63));
  REFUSED(keg_zone_create("z", 64, NULL, NULL, NULL, NULL, 0, KEG_ZONE_ALLFINI));
  REFUSED(keg_zone_create("z", 64, NULL, NULL, NULL, NULL, 0, KEG_ZONE_NOTOUCH));
  REFUSED(keg_zone_create_cache("z", 64, NULL, NULL, NULL, NULL, NULL, release_ids, NULL, 0));
  REFUSED(keg_zone_create_cache("z", 64, NULL, NULL, NULL, NULL, import_ids, NULL, NULL, 0));
  REFUSED(keg_zone_create_secondary("z", NULL, NULL, NULL, NULL, NULL));
  attr.struct_size = 1000;
  REFUSED(keg_zone_create_attr("z", 64, &attr));
  attr = (struct keg_zone_attr){.struct_size = sizeof attr, .buffer = buffer, .buffer_bytes = 10};
  REFUSED(keg_zone_create_attr("z", 64, &attr));
  attr = (struct keg_zone_attr){.struct_size = sizeof attr, .backend = {map_file, NULL, NULL}};
  REFUSED(keg_zone_create_attr("z", 64, &attr));
  CHECK(keg_reclaim(0) == EINVAL && keg_reclaim(4) == EINVAL);
  keg_zone *zone = make("z", 1 << 20, 0);  // as large as items get
  void *item = keg_zone_alloc(zone, KEG_NOWAIT);
  CHECK(item != NULL);
  memset(item, 1, 1 << 20);
  CHECK(keg_zone_alloc(zone, KEG_NOWAIT | 1 << 20) == NULL && errno == EINVAL);
  CHECK(keg_zone_foreach(zone, KEG_ITEM_ALL, NULL, NULL) == EINVAL);
  CHECK(keg_zone_foreach(zone, 8, visit, NULL) == EINVAL);
  // NULL: no function; none of them is called.
  keg_zone_set_warning(zone, NULL);
  keg_zone_set_maxaction(zone, NULL, NULL);
  CHECK(keg_zone_set_drain_hook(zone, NULL, NULL) == 0 && keg_zone_set_drain_hook(NULL, NULL, NULL) == 0);
  CHECK(keg_zone_set_max(zone, 1) == 1 && keg_zone_alloc(zone, KEG_NOWAIT) == NULL && errno == EAGAIN);
  CHECK(keg_zone_set_max(zone, SIZE_MAX) == SIZE_MAX / 2 && keg_zone_set_max(zone, 0) == 0);
  CHECK(keg_zone_reserve(zone, SIZE_MAX) == EINVAL && keg_zone_prealloc(zone, SIZE_MAX) == EINVAL);
  CHECK(keg_zone_reserve_va(zone, SIZE_MAX) == EINVAL && keg_zone_reserve_va(zone, 0) == EINVAL);
  CHECK(keg_sheaf_alloc(zone, SIZE_MAX, KEG_NOWAIT) == NULL && errno == EINVAL);
  CHECK(keg_zone_alloc_bulk(zone, visited_bulk, SIZE_MAX, KEG_NOWAIT) == 0 && errno == EINVAL);
  CHECK(keg_zone_stats(zone, NULL, 8) == EINVAL && keg_zone_stats(zone, &(struct keg_zone_stats){0}, 10000) == EINVAL);
  CHECK(keg_zone_destroy(NULL, 0) == EINVAL);
  CHECK(keg_zone_destroy(zone, 2) == EINVAL && keg_zone_reclaim(zone, 9) == EINVAL);
  CHECK(keg_prefill(zone, 1000) == EINVAL && keg_sheaf_alloc(zone, 0, KEG_NOWAIT) == NULL);
  keg_zone_free(zone, item);
  CHECK(keg_zone_destroy(zone, 0) == 0);
}

// Deaths: each ends the process with one line.
static void wrong_zone(void) {
  keg_zone *a = make("a", 64, 0), *b = make("b", 64, KEG_ZONE_NOBUCKET);
  keg_zone_free(b, keg_zone_alloc(a, KEG_NOWAIT));
}
// With caches it is noticed when the item reaches a slab.
static void wrong_zone_later(void) {
  keg_zone *a = make("a", 64, 0), *b = make("b", 64, 0);
  keg_zone_free(b, keg_zone_alloc(a, KEG_NOWAIT));
  keg_zone_reclaim(b, KEG_RECLAIM_DRAIN_CPU);
}
static void double_free(void) {
  keg_zone *zone = make("a", 64, 0);
  void *item = keg_zone_alloc(zone, KEG_NOWAIT);
  keg_zone_free(zone, item);
  keg_zone_free(zone, item);
  keg_zone_reclaim(zone, KEG_RECLAIM_DRAIN_CPU);
}
static void interior(void) {
  keg_zone *zone = make("a", 64, KEG_ZONE_NOBUCKET);
  keg_zone_free(zone, (char *)keg_zone_alloc(zone, KEG_NOWAIT) + 8);
}
static void by_free(void) { free(hide(keg_zone_alloc(make("a", 64, 0), KEG_NOWAIT))); }
static void destroyed(void) {
  keg_zone *zone = make("a", 64, 0);
  CHECK(keg_zone_destroy(zone, 0) == 0);
  keg_zone_alloc(zone, KEG_NOWAIT);
}

// NULL is nothing to free, but in a list it is an error.
static void null_item(void) {
  keg_zone *zone = make("a", 64, 0);
  void *items[2] = {keg_zone_alloc(zone, KEG_NOWAIT), NULL};
  keg_zone_free_bulk(zone, items, 2);
}

// NULL for a zone: each call in a child of its own, which dies. Two kinds of death: the
// calls that look at nothing before the array fault, the others say a line.
static int null_call;
static void call_with_null(void) {
  keg_zone *volatile none = NULL;
  void *items[1] = {visited};
  struct keg_zone_stats stats;
  switch (null_call) {
    case 0: keg_zone_alloc(none, KEG_NOWAIT); break;
    case 1: keg_zone_alloc_arg(none, items, KEG_NOWAIT); break;
    case 2: keg_zone_free(none, items[0]); break;
    case 3: keg_zone_free_arg(none, items[0], items); break;
    case 4: keg_zone_alloc_bulk(none, items, 1, KEG_NOWAIT); break;
    case 5: keg_zone_free_bulk(none, items, 1); break;
    case 6: keg_zone_alloc_timeout(none, NULL, KEG_WAITOK, 1); break;
    case 7: keg_zone_wait(none); break;
    case 8: keg_zone_name(none); break;
    case 9: keg_zone_size(none); break;
    case 10: keg_zone_set_max(none, 1); break;
    case 11: keg_zone_get_max(none); break;
    case 12: keg_zone_set_maxcache(none, 1); break;
    case 13: keg_zone_get_cur(none); break;
    case 14: keg_zone_exhausted(none); break;
    case 15: keg_zone_set_warning(none, "text"); break;
    case 16: keg_zone_set_maxaction(none, NULL, NULL); break;
    case 17: keg_zone_set_watermarks(none, 1, 2); break;
    case 18: keg_zone_reserve(none, 1); break;
    case 19: keg_zone_prealloc(none, 1); break;
    case 20: keg_zone_reserve_va(none, 1); break;
    case 21: keg_prefill(none, 1); break;
    case 22: keg_sheaf_alloc(none, 1, KEG_NOWAIT); break;
    case 23: keg_refcnt(none, items[0]); break;
    case 24: keg_zone_foreach(none, KEG_ITEM_ALL, visit, NULL); break;
    case 25: keg_zone_reclaim(none, KEG_RECLAIM_TRIM); break;
    case 26: keg_zone_stats(none, &stats, sizeof stats); break;
  }
}
static void null_zone(void) {
  keg_zone_destroy(make("some", 64, 0), 0);
  for (null_call = 0; null_call <= 26; null_call++) {
    pid_t child = fork();
    if (child == 0) {
      call_with_null();
      _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == (null_call < 6 ? SIGSEGV : SIGABRT), "call %d: %x", null_call, status);
  }
  // With these NULL is an argument like any other.
  CHECK(keg_zone_destroy(NULL, 0) == EINVAL && keg_set_mtbf(NULL, 0) == 0 && keg_zone_set_drain_hook(NULL, NULL, NULL) == 0);
  errno = 0;
  CHECK(keg_zone_create_secondary("z", NULL, NULL, NULL, NULL, NULL) == NULL && errno == EINVAL);
  CHECK(keg_zone_find(NULL) == NULL && errno == EINVAL);
}

// U05: thread exit, fork and other threads' frees leave the counts right.
static void *cross(void *zone) {
  void *items[500];
  for (int round = 0; round < 20; round++) {
    for (int i = 0; i < 500; i++) items[i] = keg_zone_alloc(zone, KEG_NOWAIT);
    for (int i = 0; i < 500; i++) keg_zone_free(zone, items[i]);
  }
  return keg_zone_alloc(zone, KEG_NOWAIT);
}
static void threads(void) {
  keg_zone *zone = make("threads", 48, 0);
  pthread_t some[8];
  for (int i = 0; i < 8; i++) pthread_create(&some[i], NULL, cross, zone);
  for (int i = 0; i < 8; i++) {
    void *left;
    pthread_join(some[i], &left);
    keg_zone_free(zone, left);
  }
  CHECK(figures(zone).used == 0 && figures(zone).in_depot > 0, "arrays of ended threads");
  pid_t child = fork();
  if (child == 0) {
    CHECK(figures(zone).used == 0);
    keg_zone *own = make("child", 48, 0);
    keg_zone_free(own, keg_zone_alloc(own, KEG_NOWAIT));
    keg_zone_free(zone, keg_zone_alloc(zone, KEG_NOWAIT));
    CHECK(keg_zone_destroy(own, 0) == 0 && keg_zone_destroy(zone, 0) == 0);
    _exit(0);
  }
  int status;
  waitpid(child, &status, 0);
  CHECK(status == 0);
  CHECK(keg_zone_destroy(zone, 0) == 0);
}

int main(int count, char **arguments_) {
  CHECK(count == 2);
  static const struct { const char *name; void (*run)(void); } tests[] = {
      {"names", names}, {"hooks", hooks}, {"argument", argument}, {"zero", zero}, {"cache", cache},
      {"secondary", secondary}, {"nofree", nofree}, {"allfini", allfini}, {"foreach", foreach},
      {"trim", trim}, {"destroy", destroy}, {"churn", churn}, {"crowd", crowd}, {"allfini_of_100", allfini_of_100}, {"reclaim", reclaim}, {"null_item", null_item},
      {"refcnt", refcnt}, {"notouch", notouch},
      {"backend", backend}, {"reserves", reserves}, {"watermarks", watermarks}, {"nodump", nodump},
      {"arguments", arguments}, {"threads", threads}, {"wrong_zone", wrong_zone},
      {"wrong_zone_later", wrong_zone_later}, {"null_zone", null_zone},
      {"double_free", double_free}, {"interior", interior}, {"by_free", by_free}, {"destroyed", destroyed}};
  for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
    if (strcmp(tests[i].name, arguments_[1]) == 0) {
      tests[i].run();
      return ok();
    }
  complain(__FILE__, __LINE__, "no such test", " %s", arguments_[1]);
}
