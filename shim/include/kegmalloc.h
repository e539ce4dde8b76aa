/*
 * kegmalloc.h: what a program can ask of the allocator beyond malloc(3).
 *
 * Link with -lkegmalloc, or run under LD_PRELOAD and look the functions up with
 * dlsym. All functions may be called by any thread at any time; none keeps what is
 * passed to it. malloc, free and the rest of the C and C++ surface have their usual
 * headers.
 */
#ifndef KEGMALLOC_H
#define KEGMALLOC_H

#ifdef __cplusplus
extern "C" {
#endif

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
 * Gives cached items back to their slabs and free pages back to the kernel.
 * Returns 0, or EINVAL for an unknown level.
 */
int keg_reclaim(int level);

#ifdef __cplusplus
}
#endif
#endif
