// msgbuf.c: mbuma, the mbuf and cluster allocator of FreeBSD's network stack, on zones.
//
// A message is a chain of small buffers (mbufs); large data lies outside of them, in a
// cluster or in memory of the caller's, and may be shared by several mbufs:
//
//   packet zone ──secondary──▶ mbuf zone ── keg of 256-byte mbufs
//        │ zinit attaches a cluster, zfini takes it off
//        ▼
//   cluster zone ── keg of 2,048-byte clusters, each with a counter beside its slab
//
// Most receivers want an mbuf with a cluster. The packet zone caches them as pairs: one
// cache hit instead of two allocations.
//
// Who drops the last reference frees the data, to the zone that it came from. The way
// that is told here is FreeBSD's of 2005: count down, and if the counter is 0 now, set
// it to 1; who manages that is the one. Between the two steps the other owner may have
// freed the cluster and somebody else may have it. That is harmless only if the counter
// is still a counter then, and so the zone is type-stable (REFCNT implies NOFREE).
//
//   ./msgbuf [rounds [gets and puts]]      both 10,000,000 by default
#include "example.h"

#include <kegmalloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

enum { MSIZE = 256, MCLBYTES = 2048 };
enum ext_type { EXT_NONE, EXT_CLUSTER, EXT_PACKET, EXT_EXTERNAL };

typedef void (*ext_free)(void *buffer, void *argument);

struct mbuf {
  struct mbuf *next;
  char *data;
  uint32_t length;
  uint16_t type, flags;
  struct {
    char *buffer;
    size_t size;
    _Atomic(uint32_t) *references;
    enum ext_type type;
    ext_free free;
    void *argument;
  } ext;
  char inside[];
};

static keg_zone *zone_mbuf, *zone_cluster, *zone_packet;
static atomic_long clusters_made, clusters_unmade, pairs_made;

// ---- constructors --------------------------------------------------------------------

static int mbuf_ctor(void *item, size_t size, void *argument, int flags) {
  (void)size, (void)flags;
  struct mbuf *m = item;
  m->next = NULL;
  m->length = 0;
  m->type = (uint16_t)(uintptr_t)argument;
  m->flags = 0;
  m->data = m->inside;
  m->ext.type = EXT_NONE;
  return 0;
}

// The first word of a cluster says whether somebody has it: a cluster that is freed
// twice does not get past these two.
enum { FREE = 0x65657266, LIVE = 0x6576696c };

static int cluster_init(void *item, size_t size, int flags) {
  (void)size, (void)flags;
  atomic_store((_Atomic(uint32_t) *)item, FREE);
  atomic_fetch_add(&clusters_made, 1);
  return 0;
}

static void cluster_fini(void *item, size_t size) {
  (void)size;
  MUST(atomic_load((_Atomic(uint32_t) *)item) == FREE);
  atomic_fetch_add(&clusters_unmade, 1);
}

static void cluster_take(void *cluster) {
  MUST(atomic_exchange((_Atomic(uint32_t) *)cluster, LIVE) == FREE);
}
static void cluster_drop(void *cluster) {
  MUST(atomic_exchange((_Atomic(uint32_t) *)cluster, FREE) == LIVE);
}

static int cluster_ctor(void *item, size_t size, void *argument, int flags) {
  (void)size, (void)flags;
  struct mbuf *m = argument;
  cluster_take(item);
  if (!m) return 0;  // for the packet zone, which attaches it itself
  m->ext.buffer = m->data = item;
  m->ext.size = MCLBYTES;
  m->ext.type = EXT_CLUSTER;
  m->ext.references = (_Atomic(uint32_t) *)keg_refcnt(zone_cluster, item);
  atomic_store(m->ext.references, 1);
  return 0;
}

static void cluster_dtor(void *item, size_t size, void *argument) {
  (void)size, (void)argument;
  cluster_drop(item);
}

// A pair is made when an mbuf leaves the mbuf keg for the packet zone, and is kept as
// a pair while it is cached there.
static int packet_zinit(void *item, size_t size, int flags) {
  (void)size, (void)flags;
  struct mbuf *m = item;
  m->ext.buffer = keg_zone_alloc(zone_cluster, KEG_NOWAIT);
  if (!m->ext.buffer) return ENOMEM;
  m->ext.references = (_Atomic(uint32_t) *)keg_refcnt(zone_cluster, m->ext.buffer);
  cluster_drop(m->ext.buffer);  // nobody has it until the pair is allocated
  atomic_fetch_add(&pairs_made, 1);
  return 0;
}

static void packet_zfini(void *item, size_t size) {
  (void)size;
  struct mbuf *m = item;
  cluster_take(m->ext.buffer);
  keg_zone_free(zone_cluster, m->ext.buffer);
  m->ext.buffer = NULL;
}

static int packet_ctor(void *item, size_t size, void *argument, int flags) {
  struct mbuf *m = item;
  mbuf_ctor(item, size, argument, flags);
  cluster_take(m->ext.buffer);
  m->data = m->ext.buffer;
  m->ext.size = MCLBYTES;
  m->ext.type = EXT_PACKET;
  atomic_store(m->ext.references, 1);
  return 0;
}

static void packet_dtor(void *item, size_t size, void *argument) {
  (void)size, (void)argument;
  cluster_drop(((struct mbuf *)item)->ext.buffer);
}

static void build(void) {
  // The counter of a cluster is found from its address: a cluster need not hold it.
  zone_mbuf = keg_zone_create("mbuf", MSIZE, mbuf_ctor, NULL, NULL, NULL, MSIZE, KEG_ZONE_MAXBUCKET);
  zone_cluster = keg_zone_create("mbuf_cluster", MCLBYTES, cluster_ctor, cluster_dtor, cluster_init,
                                 cluster_fini, 64, KEG_ZONE_REFCNT);
  MUST(zone_mbuf && zone_cluster);
  zone_packet = keg_zone_create_secondary("mbuf_packet", packet_ctor, packet_dtor, packet_zinit,
                                          packet_zfini, zone_mbuf);
  MUST(zone_packet);
}

// ---- what a network stack calls ----------------------------------------------------------

static struct mbuf *m_get(int type) {
  return keg_zone_alloc_arg(zone_mbuf, (void *)(uintptr_t)type, KEG_NOWAIT);
}

static struct mbuf *m_getcl(int type) {
  return keg_zone_alloc_arg(zone_packet, (void *)(uintptr_t)type, KEG_NOWAIT);
}

static int m_clget(struct mbuf *m) { return keg_zone_alloc_arg(zone_cluster, m, KEG_NOWAIT) != NULL; }

// Memory of the caller's, which counts itself and has its own way back.
static void m_extadd(struct mbuf *m, char *buffer, size_t size, _Atomic(uint32_t) *references,
                     ext_free free, void *argument) {
  m->ext.buffer = m->data = buffer;
  m->ext.size = size;
  m->ext.references = references;
  m->ext.free = free;
  m->ext.argument = argument;
  m->ext.type = EXT_EXTERNAL;
  atomic_store(references, 1);
}

// Another mbuf on the same data.
static struct mbuf *m_share(struct mbuf *m) {
  struct mbuf *n = m_get(m->type);
  if (!n) return NULL;
  n->data = m->data;
  n->ext = m->ext;
  atomic_fetch_add(m->ext.references, 1);
  return n;
}

// Last references that this thread dropped.
static _Thread_local long last_references;

static void m_free(struct mbuf *m) {
  if (m->ext.type == EXT_NONE) return keg_zone_free(zone_mbuf, m);
  // What the mbuf knows must be read now: after the countdown the data is somebody's.
  _Atomic(uint32_t) *references = m->ext.references;
  uint32_t none = 0;
  atomic_fetch_sub(references, 1);
  if (atomic_compare_exchange_strong(references, &none, 1)) {
    last_references++;
    if (m->ext.type == EXT_PACKET) {
      // Any mbuf of that keg will do for the pair, so this one goes with the cluster.
      return keg_zone_free(zone_packet, m);
    }
    if (m->ext.type == EXT_CLUSTER) keg_zone_free(zone_cluster, m->ext.buffer);
    if (m->ext.type == EXT_EXTERNAL) m->ext.free(m->ext.buffer, m->ext.argument);
  }
  m->ext.type = EXT_NONE;
  keg_zone_free(zone_mbuf, m);
}

// ---- the race for the last reference -------------------------------------------------------

enum { RING = 256 };
static _Atomic(struct mbuf *) ring[RING];
static char external[64];
static _Atomic(uint32_t) external_references;
static atomic_int external_busy;
static atomic_long external_frees;

static void free_external(void *buffer, void *argument) {
  MUST(buffer == external && argument == &external_busy);
  MUST(atomic_exchange(&external_busy, 0) == 1);
  atomic_fetch_add(&external_frees, 1);
}

// Takes what the other thread shares, and drops it at once.
static void *drop(void *argument) {
  long rounds = *(long *)argument;
  for (long i = 0; i < rounds; i++) {
    struct mbuf *m;
    for (int spins = 0; !(m = atomic_exchange(&ring[i % RING], NULL)); spins++)
      if (spins % 64 == 63) sched_yield();
    m_free(m);
  }
  return (void *)last_references;
}

static void race(long rounds) {
  pthread_t other;
  long externals = 0;
  MUST(pthread_create(&other, NULL, drop, &rounds) == 0);
  for (long i = 0; i < rounds; i++) {
    struct mbuf *m;
    if (i % 16 == 15 && !atomic_exchange(&external_busy, 1)) {
      m = m_get(1);
      MUST(m);
      m_extadd(m, external, sizeof external, &external_references, free_external, &external_busy);
      externals++;
    } else if (i % 2) {
      m = m_get(1);
      MUST(m && m_clget(m));
    } else {
      m = m_getcl(1);
      MUST(m);
    }
    struct mbuf *n = m_share(m);
    MUST(n);
    struct mbuf *expected = NULL;
    for (int spins = 0; !atomic_compare_exchange_weak(&ring[i % RING], &expected, n); spins++) {
      expected = NULL;
      if (spins % 64 == 63) sched_yield();
    }
    // Both at once, if the other thread runs.
    for (int spins = 0; spins < 200 && atomic_load(&ring[i % RING]); spins++) {}
    m_free(m);
  }
  void *others;
  pthread_join(other, &others);
  MUST(atomic_load(&external_frees) == externals);
  // Every buffer was freed by exactly one of the two.
  MUST(last_references + (long)others == rounds);
  printf("race: %ld rounds, %ld buffers freed by one thread and %ld by the other, %ld of them external\n",
         rounds, last_references, (long)others, externals);
}

// ---- four threads ----------------------------------------------------------------------------

enum { THREADS = 4, HELD = 64 };

static void *getput(void *argument) {
  long count = *(long *)argument;
  struct mbuf *held[HELD] = {0};
  uint64_t seed = (uintptr_t)&held;
  for (long i = 0; i < count; i++) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    int k = (seed >> 33) % HELD;
    if (held[k]) m_free(held[k]);
    held[k] = (seed >> 40) % 4 ? m_getcl(1) : m_get(2);
    MUST(held[k] && held[k]->type == ((seed >> 40) % 4 ? 1 : 2));
    memset(held[k]->data + 4, (int)i, 32);
  }
  for (int k = 0; k < HELD; k++)
    if (held[k]) m_free(held[k]);
  return NULL;
}

static void gets_and_puts(long count) {
  pthread_t threads[THREADS];
  MUST(keg_zone_reclaim(zone_packet, KEG_RECLAIM_DRAIN_CPU) == 0);  // no pairs to begin with
  long each = count / THREADS, before = atomic_load(&pairs_made);
  for (int i = 0; i < THREADS; i++) MUST(pthread_create(&threads[i], NULL, getput, &each) == 0);
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  long pairs = atomic_load(&pairs_made) - before;
  printf("traffic: %ld gets on %d threads made %ld pairs\n", each * THREADS, THREADS, pairs);
  MUST(pairs > 0 && pairs * 20 < each * THREADS);
}

// ---- the end -------------------------------------------------------------------------------------

static void settle(void) {
  MUST(keg_reclaim(KEG_RECLAIM_DRAIN_CPU) == 0);
  struct keg_zone_stats mbufs, clusters;
  MUST(keg_zone_stats(zone_mbuf, &mbufs, sizeof mbufs) == 0);
  MUST(keg_zone_stats(zone_cluster, &clusters, sizeof clusters) == 0);
  char keg[64] = "";
  size_t length = sizeof keg;
  MUST(keg_ctl("zone.mbuf_packet.keg.name", keg, &length, NULL, 0) == 0);
  printf("at the end: %zu mbufs and %zu clusters in use; packets are of keg %s\n", keg_zone_get_cur(zone_mbuf),
         keg_zone_get_cur(zone_cluster), keg);
  MUST(keg_zone_get_cur(zone_packet) == 0 && keg_zone_get_cur(zone_mbuf) == 0 && strcmp(keg, "mbuf") == 0);
  MUST(keg_zone_destroy(zone_packet, 0) == 0);
  MUST(keg_zone_destroy(zone_mbuf, 0) == 0 && keg_zone_destroy(zone_cluster, 0) == 0);
}

int main(int argc, char **argv) {
  build();
  race(number(argc, argv, 1, 10000000));
  gets_and_puts(number(argc, argv, 2, 10000000));
  settle();
  return 0;
}
