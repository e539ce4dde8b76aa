/*
 * kegmalloc.h: what a program can ask of the allocator beyond malloc(3).
 *
 * Link with -lkegmalloc (pkg-config kegmalloc), or run under LD_PRELOAD and look the
 * functions up with dlsym; a linked program that is preloaded too has one allocator.
 * malloc, free and the rest of the C and C++ surface have their usual headers.
 *
 * Unless a function says otherwise: any thread may call it at any time; it keeps
 * nothing that is passed to it; sizes are bytes; int results are 0 or an error number
 * of errno.h, and pointer results are NULL with errno set; it must not be called by a
 * signal handler.
 *
 * In this order, each under a heading:
 *
 *   process   options, version, the zone table, reclaim
 *   zones     flags and attributes, making and finding zones, items, then
 *             limits, guarantees, enumeration and control
 *   arenas    ranges of integers: making them, allocating, figures
 *   leaks     and stacks: the debug library
 */
#ifndef KEGMALLOC_H
#define KEGMALLOC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ==== process =============================================================== */

/*
 * Options of the program itself, `key:value,key:value`, read at the first
 * allocation. Define it to set them; KEGMALLOC_CONF in the environment wins.
 * `kegmalloc run --help-options` prints the keys.
 */
extern const char *kegmalloc_conf;

/* The version, "major.minor.patch"; static storage. */
const char *keg_version(void);

/*
 * Writes the zone table, then the totals in bytes, to file descriptor `fd`, as
 * vmstat -z does for a kernel's zones. Allocates nothing.
 */
void keg_stats_print(int fd);

/* How much keg_reclaim takes back (FreeBSD uma_reclaim(9)). */
enum keg_reclaim_level {
  KEG_RECLAIM_TRIM = 1,      /* what the zones' working sets do not need */
  KEG_RECLAIM_DRAIN = 2,     /* all cached buckets */
  KEG_RECLAIM_DRAIN_CPU = 3  /* and the arrays of threads: the caller's now, the
                                others' at their next slow path */
};

/*
 * Gives cached items of all zones back to their slabs and free pages back to the
 * kernel. Returns 0, or EINVAL for an unknown level. For one zone: keg_zone_reclaim.
 */
int keg_reclaim(int level);

/* ==== zones =================================================================
 *
 * A zone allocates items of one size (FreeBSD uma(9)):
 *
 *   thread's array -> depot of full buckets -> keg: slabs -> back end
 *      no lock            zone lock            keg lock
 *
 * A call that the thread's array can serve takes no lock, makes no system call and
 * costs what malloc of that size costs. Functions of the program are called with no
 * lock held and may use the allocator; they must return normally.
 *
 *   init / fini     an item enters / leaves a slab: what outlives its uses
 *   zinit / zfini   an item leaves / enters the keg through this zone
 *   ctor / dtor     every allocation / free
 *
 * Functions that get `flags` get the allocation's; but where a slab or a cache is filled
 * for whoever comes, KEG_NOWAIT: init always, zinit, import and back ends mostly. If such
 * a fill brings nothing, zinit, import and the back end are asked for one item with the
 * flags of the allocation.
 *
 * `zone` is a zone that exists. After it was destroyed a call ends the process with a
 * message, as long as no new zone has its place. So does NULL where nothing else is said;
 * but alloc, alloc_arg, free, free_arg and the bulk calls, which do not look, get a
 * segmentation fault, as the functions of string.h do. With libkegmalloc-debug.so wrong
 * calls are reports of class `zone`, with stacks, and items are checked at the call.
 *
 * The zones of malloc are zones of this API as well: keg_zone_find("malloc-64").
 */
typedef struct keg_zone keg_zone;

/* Flags of an allocation. Exactly one of the first two; with both or neither the
 * call waits, and the first ten such calls are reported on standard error. */
enum keg_alloc_flags {
  KEG_WAITOK = 1,      /* at the zone's limit: sleep, first come first served */
  KEG_NOWAIT = 2,      /* at the zone's limit: NULL, EAGAIN */
  KEG_ZERO = 4,        /* all bytes of the item are zero, before ctor sees it */
  KEG_NOVM = 8,        /* only what is cached or free in slabs: no system call */
  KEG_USE_RESERVE = 16 /* may take what keg_zone_reserve keeps back */
};

/* ctor: prepares an item for its user; non-zero: the allocation fails and the item
 * goes back without dtor. `arg` is that of keg_zone_alloc_arg, else NULL. */
typedef int (*keg_ctor)(void *item, size_t size, void *arg, int flags);
typedef void (*keg_dtor)(void *item, size_t size, void *arg);
/* init: non-zero is failure; what was initialised before it is undone by fini. */
typedef int (*keg_init)(void *item, size_t size, int flags);
typedef void (*keg_fini)(void *item, size_t size);

/* Flags of a zone; 64 bits. */
#define KEG_ZONE_ZINIT ((uint64_t)1 << 0)    /* items are zero when they enter a slab (not with init) */
#define KEG_ZONE_NOFREE ((uint64_t)1 << 1)   /* slabs stay until destroy: an address always holds such an item */
#define KEG_ZONE_ALLFINI ((uint64_t)1 << 2)  /* with NOFREE: destroy calls fini for every free item */
#define KEG_ZONE_NOTOUCH ((uint64_t)1 << 3)  /* items are not memory; needs a back end; excludes ZERO, ZINIT */
#define KEG_ZONE_NOBUCKET ((uint64_t)1 << 4) /* no caches: every item goes to and from its slab */
#define KEG_ZONE_MAXBUCKET ((uint64_t)1 << 5) /* the largest buckets from the start */
#define KEG_ZONE_REFCNT ((uint64_t)1 << 6)   /* a counter for each item (keg_refcnt); implies NOFREE */
#define KEG_ZONE_NODUMP ((uint64_t)1 << 7)   /* items are left out of core files (MADV_DONTDUMP) */

/* Where a keg's slabs come from instead of the heap (uma_zone_set_allocf).
 * alloc: at least `bytes`, aligned for the items, or NULL. */
struct keg_backend {
  void *(*alloc)(void *arg, size_t bytes, int flags);
  void (*free)(void *arg, void *memory, size_t bytes);
  void *arg;
};

/* Where a cache zone gets items from and puts them back (uma_zcache_create).
 * import: stores up to `count` items and returns how many. */
typedef int (*keg_import)(void *arg, void **items, int count, int flags);
typedef void (*keg_release)(void *arg, void **items, int count);

/* Everything a zone can be created with; members that are 0 have their default.
 * Set `struct_size` to sizeof(struct keg_zone_attr). */
struct keg_zone_attr {
  size_t struct_size;
  keg_ctor ctor;
  keg_dtor dtor;
  keg_init init;         /* zinit of a secondary or cache zone */
  keg_fini fini;         /* zfini of a secondary or cache zone */
  size_t align;          /* a power of two up to 64 KiB; default 16, 8 for items below 16 bytes */
  uint64_t flags;
  size_t max_items;      /* as keg_zone_set_max */
  size_t cache_capacity; /* most items in a bucket, up to 254; a thread has two. Default by
                            size: 254 up to 64 bytes, 16 from 4 KiB on, 4 from 4 MiB on.
                            Made for 2, 4, 8, 16, 30, 62, 126, 254: the next of these */
  struct keg_backend backend;
  void *buffer;          /* the keg's only slab: caller's memory, which must outlive the zone */
  size_t buffer_bytes;
  size_t slab_bytes;     /* of a back end's slab; default: eight items, at least 64 KiB */
  keg_zone *primary;     /* secondary zone: shares the keg of this one (uma_zsecond_create) */
  keg_import import;     /* cache zone */
  keg_release release;
  void *import_arg;
};

/* Creates a zone. `name` is copied (31 bytes); where another zone has it, _1, _2, ... is added.
 * size: 1 byte to 1 MiB (64 KiB with REFCNT), or any number with NOTOUCH.
 * EINVAL: size, alignment or flags that make no sense. ENOMEM. ENOSPC: 2,047 zones exist. */
keg_zone *keg_zone_create(const char *name, size_t size, keg_ctor ctor, keg_dtor dtor,
                          keg_init init, keg_fini fini, size_t align, uint64_t flags);
keg_zone *keg_zone_create_attr(const char *name, size_t size, const struct keg_zone_attr *attr);
/* A zone with its own ctor, caches, limit and statistics on the keg of `primary`. */
keg_zone *keg_zone_create_secondary(const char *name, keg_ctor ctor, keg_dtor dtor,
                                    keg_init zinit, keg_fini zfini, keg_zone *primary);
/* UMA's caches over any resource; items are what `import` stores, not NULL. */
keg_zone *keg_zone_create_cache(const char *name, size_t size, keg_ctor ctor, keg_dtor dtor,
                                keg_init zinit, keg_fini zfini, keg_import import,
                                keg_release release, void *arg, uint64_t flags);

/* Destroys a zone that no other thread uses (uma_zdestroy). With live items: EBUSY and
 * a list of them on standard error, the zone is as before; with KEG_DESTROY_FORCE the
 * list, and slabs with live items are never used again. A primary zone with secondary
 * zones, and a zone of malloc: EBUSY. NULL: EINVAL. Destroying twice: EINVAL, as long as no new zone
 * has taken its place. */
enum { KEG_DESTROY_FORCE = 1 };
int keg_zone_destroy(keg_zone *zone, int flags);

/* An item (uma_zalloc). The caller owns it until it frees it to the same zone.
 * NULL: ENOMEM, no memory, and the drain hook did not help; EAGAIN: limit; EINTR: a
 * signal handler that interrupted the allocator; ECANCELED: ctor failed. */
void *keg_zone_alloc(keg_zone *zone, int flags);
void *keg_zone_alloc_arg(keg_zone *zone, void *arg, int flags);
/* The same, waiting at most `milliseconds` at the limit: ETIMEDOUT. */
void *keg_zone_alloc_timeout(keg_zone *zone, void *arg, int flags, unsigned milliseconds);
/* Frees an item; NULL is ignored (uma_zfree). An item of another zone, a double free
 * or an address inside an item ends the process with a message, at the latest when it
 * reaches its slab; free(3) of an item does so at once. */
void keg_zone_free(keg_zone *zone, void *item);
void keg_zone_free_arg(keg_zone *zone, void *item, void *arg);
/* Waits until the zone can give an item: allocates one with WAITOK and frees it (uma_zwait). */
int keg_zone_wait(keg_zone *zone);

/* As n calls of the above, three times faster from 64 on (kmem_cache_alloc_bulk).
 * alloc: the number of items stored, 0 ... n; fewer: errno says why; WAITOK waits at
 * the limit before each item that it has no room for. free: NULL among them ends the
 * process. */
size_t keg_zone_alloc_bulk(keg_zone *zone, void **items, size_t n, int flags);
void keg_zone_free_bulk(keg_zone *zone, void **items, size_t n);

/* The zone of that name, or NULL and ENOENT. */
keg_zone *keg_zone_find(const char *name);
/* Valid until the zone is destroyed. */
const char *keg_zone_name(keg_zone *zone);
size_t keg_zone_size(keg_zone *zone);

/* ---- limits -------------------------------------------------------------------
 * A limit counts items in use and cached. Zones with a limit use arrays per CPU with
 * a lock that is only tried, so that what others have cached is drained before a
 * caller fails or sleeps. */

/* Sets the most items, at once; 0: no limit. Returns what is in force. Below use:
 * nothing is taken away, and nobody gets an item until enough are freed. For a zone
 * of malloc: malloc returns NULL at the limit. */
size_t keg_zone_set_max(keg_zone *zone, size_t items);
size_t keg_zone_get_max(keg_zone *zone);
/* Most items in the depot (uma_zone_set_maxcache). */
void keg_zone_set_maxcache(keg_zone *zone, size_t items);
/* Items in use; approximate while other threads are in the zone. */
size_t keg_zone_get_cur(keg_zone *zone);
/* Whether threads sleep at the limit now. */
int keg_zone_exhausted(keg_zone *zone);
/* Printed when the limit refuses or delays somebody, at most every 300 s. The text is
 * kept, not copied; NULL: none. */
void keg_zone_set_warning(keg_zone *zone, const char *text);
/* Called by the thread that meets the limit, before it fails or sleeps. NULL: none. */
void keg_zone_set_maxaction(keg_zone *zone, void (*action)(keg_zone *zone, void *arg), void *arg);
/* Called when the back end has no memory, before the one retry; zone NULL: for malloc
 * and every zone without one of its own (NetBSD pool_set_drain_hook). NULL hook: none. */
int keg_zone_set_drain_hook(keg_zone *zone, void (*hook)(void *arg), void *arg);
/* Reclaim keeps slabs for `low` items; wholly free slabs beyond those for `high` items
 * go back at once. Default 0 and one slab (NetBSD pool_setlowat, pool_sethiwat). */
int keg_zone_set_watermarks(keg_zone *zone, size_t low, size_t high);
/* The most bytes that all zones and large blocks may take from the heap; 0: no limit.
 * Option `limit`. Beyond it malloc returns NULL; below use nothing is taken away, and
 * what is there already is used. Returns the old limit. */
size_t keg_set_limit(size_t bytes);

/* ---- guarantees -----------------------------------------------------------------*/

/* The last `n` free items are for USE_RESERVE alone (uma_zone_reserve). Allocates nothing. */
int keg_zone_reserve(keg_zone *zone, size_t n);
/* Makes slabs for `n` items, resident (uma_prealloc). They stay until a reclaim. */
int keg_zone_prealloc(keg_zone *zone, size_t n);
/* Takes address space for `n` items now, and makes them the limit; the zone becomes
 * NOFREE (uma_zone_reserve_kva). */
int keg_zone_reserve_va(keg_zone *zone, size_t n);

/* The calling thread's next `n` allocations, with no frees in between, succeed without a
 * lock or a system call (Linux RFC kmem_cache_prefill_percpu_array). EINVAL: n is above
 * 254, or the zone has a limit or no buckets. ENOMEM: fewer were to be had; they stay. */
int keg_prefill(keg_zone *zone, size_t n);

/* A sheaf: items taken and constructed in advance, for those who may not fail
 * (Linux kmem_cache_prefill_sheaf). One sheaf belongs to one thread and its handlers.
 * NULL: as keg_zone_alloc; EINVAL: n is 0 or above 2^32. The calls below do not look
 * whether the sheaf is NULL, but for the last. */
typedef struct keg_sheaf keg_sheaf;
keg_sheaf *keg_sheaf_alloc(keg_zone *zone, size_t n, int flags);
/* The next item, or NULL when `n` are taken. One fetch-and-subtract: no lock, no system
 * call, not affected by limits or memory. The only call of a zone for signal handlers. */
void *keg_sheaf_take(keg_sheaf *sheaf);
/* Fills the sheaf up to `n` items, at most what it was made for: EINVAL. On ENOMEM or
 * EAGAIN it has fewer. Not for handlers, which find it empty meanwhile. */
int keg_sheaf_refill(keg_sheaf *sheaf, size_t n, int flags);
/* Items left. */
size_t keg_sheaf_size(keg_sheaf *sheaf);
/* Frees the items left and the sheaf. NULL is ignored. Not for handlers. */
void keg_sheaf_return(keg_sheaf *sheaf);

/* The counter of an item of a REFCNT zone, 0 when its slab is made and then the
 * program's; it stays readable after the item is freed. Use it atomically. NULL, EINVAL:
 * no such item (FreeBSD's historic uma_find_refcnt). */
uint32_t *keg_refcnt(keg_zone *zone, void *item);

/* ---- enumeration and control -------------------------------------------------- */

enum keg_item_state { KEG_ITEM_ALLOCATED = 1, KEG_ITEM_FREE = 2, KEG_ITEM_CACHED = 4, KEG_ITEM_ALL = 7 };
/* Calls `visit` for every item of the zone's keg in one of the states `which` (with
 * cache zones: the cached ones), until it returns non-zero; returns that, else 0, or
 * ENOMEM. The states are of one moment, in which no other thread may be in a zone of
 * this keg. */
int keg_zone_foreach(keg_zone *zone, int which,
                     int (*visit)(void *item, int state, void *arg), void *arg);
/* keg_reclaim for one zone; what other threads' arrays hold comes with
 * KEG_RECLAIM_DRAIN_CPU, and then of all zones. */
int keg_zone_reclaim(keg_zone *zone, int level);

struct keg_zone_stats {
  size_t size;         /* of an item */
  size_t stride;       /* from item to item */
  size_t slabs;        /* of the keg */
  size_t slab_items;   /* per slab */
  size_t slab_bytes;   /* all of them */
  size_t used;         /* items in use through this zone */
  size_t in_arrays;    /* cached: threads' or CPUs' arrays */
  size_t in_depot;     /* cached: full buckets */
  size_t free_items;   /* in slabs */
  size_t max_items;    /* the limit, 0: none */
  uint64_t imported;   /* items that came from the keg or import */
  uint64_t released;   /* items that went back */
  uint64_t exchanged;  /* items that moved between threads in buckets */
  uint64_t failures;   /* allocations that failed, for whatever reason */
  uint64_t sleeps;     /* allocations that slept at the limit */
  uint64_t sleepers;   /* asleep now */
  uint64_t bucket_size; /* entries */
};
/* Figures of one moment; `size` is sizeof(struct keg_zone_stats). */
int keg_zone_stats(keg_zone *zone, struct keg_zone_stats *stats, size_t size);

/* Reads and writes figures by name, as mallctl(3) does:
 *
 *   zone.<name>.size flags bucket_size bucket_size_max
 *              .keg.{name,rsize,ppera,ipers,align,reserve,efficiency}
 *              .keg.domain.0.{pages,free_items,free_slabs}
 *              .limit.{items,max_items*,sleepers,sleeps,bucket_max*}
 *              .domain.0.{nitems,imax,imin,bimin,wss,limin,timin}
 *              .stats.{current,allocs,frees,fails,xdomain}   .mtbf*
 *   limit* mtbf*                                      of the process
 *
 * In <name>, . / \ - and space are written _ (or as they are). Numbers are uint64_t,
 * texts NUL-terminated; leaves with * can be written. `old` may be NULL, or has room
 * for *old_size bytes, which is set to what was needed; `value` may be NULL.
 * ENOENT: no such name. EINVAL: a size that does not fit. EPERM: not to be written. */
int keg_ctl(const char *name, void *old, size_t *old_size, const void *value, size_t value_size);

/* Fault injection: on average one in `n` allocations that need not wait fails; 0: none.
 * zone NULL: malloc and all zones (libumem umem_setmtbf; option `mtbf`). EOPNOTSUPP: a
 * zone of malloc, which fails with malloc only. */
int keg_set_mtbf(keg_zone *zone, unsigned n);

/* ==== arenas ================================================================
 *
 * An arena allocates ranges of integers: addresses, identifiers, device memory (vmem(9)
 * of NetBSD and illumos; Bonwick & Adams 2001). It never looks at what they stand for.
 *
 *   quantum cache -> free segments -> import a span: from another arena,
 *   (small sizes)    (boundary tags)                 or by a function of the program
 *
 * Starts and sizes are integers (bytes, identifiers ...), multiples of the arena's
 * quantum: a requested size is rounded up to it. No range contains UINTPTR_MAX. What an
 * arena must remember lies in the allocator's own memory, 80 bytes a segment.
 *
 * All calls may be made by any thread. In a signal handler that interrupted the
 * allocator they do nothing and return EINTR, in other handlers they work. A NULL or
 * destroyed handle: EINVAL. The allocator's own arena, keg_arena_find("heap"), answers
 * the questions and refuses everything else with EPERM.
 */
typedef struct keg_arena keg_arena;

/*
 * Creates an arena over base ... base+size-1; with size 0 over nothing yet.
 *   name       copied, 31 bytes; need not be unique
 *   quantum    a power of two; 1 for identifiers
 *   qcache_max sizes up to it, at most 16 quanta, are cached when they are freed:
 *              allocating such a size again takes neither tags nor the arena's lock.
 *              0: no caches, which an arena that others import from does not need
 * NULL: EINVAL, quantum, base or size that make no sense; ENOMEM; EINTR.
 */
keg_arena *keg_arena_create(const char *name, uintptr_t base, size_t size,
                            size_t quantum, size_t qcache_max);

/*
 * Ends an arena that no other thread uses; imported spans go back (vmem_destroy).
 * EBUSY, and nothing has changed but that the caches are drained: something is
 * allocated, or another arena imports from this one. With KEG_DESTROY_FORCE what is
 * allocated is forgotten. The handle is invalid afterwards: EINVAL, until an arena
 * that is created later takes its place.
 */
int keg_arena_destroy(keg_arena *arena, int flags);

/* Adds the span start ... start+size-1, which stays (vmem_add). EINVAL: not multiples
 * of the quantum, size 0, or beyond the integers. EEXIST: overlaps a span. ENOMEM. */
int keg_arena_add(keg_arena *arena, uintptr_t start, size_t size);

/*
 * Makes `source` what the arena imports spans from when it has no room, and gives
 * wholly free spans back to (stacking: vmem_create's source). import_quantum: spans
 * of a multiple of it are asked for first, a power of two; 0: the arena's quantum.
 * To be called before the first allocation. EBUSY: it has a source. EINVAL: `source`
 * is the arena itself or imports from it.
 */
int keg_arena_set_source(keg_arena *arena, keg_arena *source, size_t import_quantum);

/*
 * The same with functions of the program (vmem_set_import of FreeBSD).
 *   import     stores the start of a span of `size` integers, a multiple of the
 *              quantum, that no arena above it has now; returns 0, or an error number
 *   release    takes a whole span back; NULL: imported spans stay
 * Both are called with no lock held, by the thread that allocates or frees, and may
 * use the allocator, this arena too; they must return. An import that overlaps what
 * the arena has ends the process.
 */
typedef int (*keg_arena_import)(void *arg, size_t size, uintptr_t *start);
typedef void (*keg_arena_release)(void *arg, uintptr_t start, size_t size);
int keg_arena_set_import(keg_arena *arena, keg_arena_import import,
                         keg_arena_release release, void *arg, size_t import_quantum);

/* No import may raise the total of the arena's spans above `size` (vmem_set_limit of
 * FreeBSD); rounding to import_quantum may. SIZE_MAX, as at first: no limit. */
int keg_arena_set_limit(keg_arena *arena, size_t size);

/* Keeps tags for `operations` allocations in hand, which then succeed without memory
 * if there is room (A free never needs any). ENOMEM: there is no memory for them. */
int keg_arena_reserve(keg_arena *arena, size_t operations);

/* Flags of an allocation. */
enum keg_arena_flags {
  KEG_ARENA_INSTANTFIT = 0, /* any segment of a size class whose every member fits: O(1) */
  KEG_ARENA_BESTFIT = 1,    /* the first of the lowest class that has one that fits */
  KEG_ARENA_NOIMPORT = 2    /* only from the spans that are there */
};

/*
 * Allocates `size` integers and stores the first (vmem_alloc). The caller owns them
 * until it frees them. EINVAL: size 0, unknown flags. ENOMEM: no room, the source has
 * none, the limit, or no memory for tags. `start` is written on success only.
 */
int keg_arena_alloc(keg_arena *arena, size_t size, int flags, uintptr_t *start);

/*
 * As keg_arena_alloc with constraints (vmem_xalloc); passes the quantum caches by.
 *   align      start is `phase` past a multiple of it: a power of two; 0: the quantum
 *   phase      below align, a multiple of the quantum
 *   nocross    no multiple of it, a power of two, lies inside the range; 0: any may
 *   min, max   the range lies in min ... max, both included; 0 and UINTPTR_MAX: anywhere
 * Imports only if align and phase are all that is asked for. EINVAL also for
 * constraints that contradict each other.
 */
int keg_arena_xalloc(keg_arena *arena, size_t size, size_t align, size_t phase,
                     size_t nocross, uintptr_t min, uintptr_t max, int flags,
                     uintptr_t *start);

/*
 * Frees what keg_arena_alloc or _xalloc gave, with the same size. xfree passes the
 * caches by, so that the range coalesces with its neighbours at once. Needs no memory.
 * A range that is not allocated, or of another size, ends the process with one line,
 * as a double free does. EINVAL: size 0.
 */
int keg_arena_free(keg_arena *arena, uintptr_t start, size_t size);
int keg_arena_xfree(keg_arena *arena, uintptr_t start, size_t size);

/* Frees what the quantum caches hold (vmem_qcache_reap); keg_reclaim does so from
 * KEG_RECLAIM_DRAIN on. */
int keg_arena_reap(keg_arena *arena);

/* A sum of sizes (vmem_size); 0 for no arena. O(1); LARGEST: O(free segments). */
enum keg_arena_what {
  KEG_ARENA_ALLOCATED = 1, /* what callers own */
  KEG_ARENA_AVAILABLE = 2, /* what they do not, caches among it; 1|2: all spans */
  KEG_ARENA_LARGEST = 4    /* the largest free segment; not with the others */
};
size_t keg_arena_size(const keg_arena *arena, int what);

/* total == allocated + free + cached (+ what the heap is purging). */
struct keg_arena_stats {
  size_t total;        /* of all spans */
  size_t allocated;    /* what callers own */
  size_t free;         /* free segments */
  size_t cached;       /* in the quantum caches */
  size_t largest_free; /* the largest free segment */
  size_t quantum;
  size_t spans;
  size_t tags;         /* boundary tags: of spans, of segments, and in hand */
  size_t tag_bytes;    /* bytes of the allocator's memory that they take */
  size_t hash_buckets; /* follows the number of allocated segments */
  size_t allocations;  /* successful ones so far, imports of other arenas among them */
  size_t cache_hits;   /* of these, served by the quantum caches */
  size_t frees;
  size_t failures;     /* allocations that found no room */
  size_t imports;
  size_t releases;
};
/* Fills `stats`; size: sizeof *stats. O(segments). */
int keg_arena_stats(const keg_arena *arena, struct keg_arena_stats *stats, size_t size);

enum keg_arena_kind {
  KEG_ARENA_SPAN = 1,     /* a span that stays; its segments follow it */
  KEG_ARENA_IMPORTED = 2, /* a span that goes back when it is wholly free */
  KEG_ARENA_FREE = 4,
  KEG_ARENA_BUSY = 8,
  KEG_ARENA_CACHED = 16,  /* in a quantum cache */
  KEG_ARENA_PURGING = 32  /* of the heap: on its way back to the kernel */
};
struct keg_arena_segment {
  uintptr_t start;
  size_t size;
  size_t offset;          /* keg_arena_whatis: how far into it the integer is */
  uint32_t kind;
  uint32_t reserved;
};

/*
 * Calls `visit` with the spans and segments whose kind is in the set `kinds`, by
 * address, each span before its segments (vmem_walk). `visit` may use the arena. What
 * does not change meanwhile is visited once. Stops at the first result that is not 0
 * and returns it.
 */
int keg_arena_walk(const keg_arena *arena, int kinds,
                   int (*visit)(void *arg, const struct keg_arena_segment *segment), void *arg);

/* The segment that `integer` is in (vmem_whatis). ENOENT: in no span. O(segments). */
int keg_arena_whatis(const keg_arena *arena, uintptr_t integer, struct keg_arena_segment *segment);

/* The name, valid as long as the arena; and the first arena of a name, or NULL. */
const char *keg_arena_name(const keg_arena *arena);
keg_arena *keg_arena_find(const char *name);

/* ==== leaks =================================================================
 *
 * Only libkegmalloc-debug.so looks for leaks; with libkegmalloc.so these return -1 and
 * set errno to ENOSYS.
 *
 * keg_leak_check looks for blocks that nothing points at, reports them where reports
 * go, and returns how many there are: all, or those allocated since keg_leak_mark was
 * last called. Other threads stand still meanwhile. -1: errno is ENOMEM, or EAGAIN in
 * a signal handler that interrupted malloc.
 *
 * keg_leak_request asks for the same and returns at once; it may be called in a signal
 * handler. A thread made for it does the work, or the next malloc or free. The result
 * goes to `file` as JSON lines, of which the last one has "kind":"summary"; NULL: where
 * reports go.
 */
int keg_leak_mark(void);
long keg_leak_check(void);
int keg_leak_request(const char *file);

/*
 * The calling stack as reports show it, innermost first, without the frames of this
 * library. At most `limit` addresses, and no more than option stack_depth says; each
 * lies inside the call that is under way, so that it can be looked up as it is.
 * Returns how many, 0 in a signal handler that interrupted malloc. The fast library
 * returns -1, errno ENOSYS.
 */
int keg_backtrace(void **frames, int limit);

#ifdef __cplusplus
}
#endif
#endif
