// bench.h: what every workload shares: arguments, random numbers, touching of
// memory, threads, and the checksum line.
//
// A workload does a fixed amount of work and prints one line that depends on
// its arguments only, so that `kegmalloc compare` can tell a wrong run from a
// fast one. Anything that may differ between two runs goes to stderr.
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/// The n-th argument as a number; `otherwise` when it is absent.
static inline long argument(int argc, char **argv, int n, long otherwise) {
  long value = argc > n ? strtol(argv[n], NULL, 10) : otherwise;
  if (value <= 0) {
    fprintf(stderr, "%s: argument %d must be a positive number\n", argv[0], n);
    exit(2);
  }
  return value;
}

// ---- random numbers (xorshift64*, Vigna 2016) -------------------------------

struct random_state {
  uint64_t word;
};

static inline struct random_state random_seed(uint64_t seed) {
  struct random_state state = {(seed + 1) * 0x9E3779B97F4A7C15u};
  return state;
}

static inline uint64_t random_next(struct random_state *state) {
  uint64_t word = state->word;
  word ^= word >> 12;
  word ^= word << 25;
  word ^= word >> 27;
  state->word = word;
  return word * 0x2545F4914F6CDD1Du;
}

/// A number below `limit` (the bias is of no matter here).
static inline uint64_t random_below(struct random_state *state, uint64_t limit) {
  return (uint64_t)(((unsigned __int128)random_next(state) * limit) >> 64);
}

/// A size between `low` and `high`, small ones more likely: uniform in the
/// logarithm, as sizes in real programs roughly are.
static inline size_t random_size(struct random_state *state, size_t low, size_t high) {
  int lowest = 63 - __builtin_clzl(low), highest = 63 - __builtin_clzl(high);
  size_t base = (size_t)1 << (lowest + random_below(state, highest - lowest + 1));
  size_t size = base + random_below(state, base);
  return size < low ? low : size > high ? high : size;
}

// ---- memory ------------------------------------------------------------------

/// Ends the run: a workload without memory has no result.
static inline void *checked(void *memory) {
  if (memory == NULL) {
    fputs("out of memory\n", stderr);
    exit(3);
  }
  return memory;
}

static inline void *take(size_t size) { return checked(malloc(size)); }

/// Writes the first and last byte and one byte of every OS page between.
static inline void touch(void *memory, size_t size, unsigned char value) {
  volatile unsigned char *bytes = (volatile unsigned char *)memory;
  for (size_t i = 0; i < size; i += 4096) bytes[i] = value;
  bytes[size - 1] = value;
}

/// What `touch` left, as a number for the checksum.
static inline uint64_t peek(const void *memory, size_t size) {
  const unsigned char *bytes = (const unsigned char *)memory;
  return bytes[0] * 3u + bytes[size - 1];
}

static inline uint64_t mixed(uint64_t sum, uint64_t value) {
  return (sum ^ value) * 0x100000001B3u + (sum >> 32);
}

// ---- threads -----------------------------------------------------------------

struct worker {
  pthread_t thread;
  int index, count;
  long iterations;  ///< this worker's share
  void *shared;
  uint64_t sum;
};

enum { MOST_WORKERS = 1024 };

/// Runs `body` in `count` threads, each with its share of `iterations`, and
/// adds up their sums. One worker runs in the calling thread: a program without
/// threads must stay one, because some allocators are faster there.
static inline uint64_t run_workers(int count, long iterations, void *shared,
                                   void *(*body)(void *)) {
  static struct worker workers[MOST_WORKERS];
  if (count > MOST_WORKERS) exit(2);
  for (int i = 0; i < count; i++) {
    struct worker fresh = {0, i, count, iterations / count, shared, 0};
    workers[i] = fresh;
    if (count == 1) body(&workers[i]);
    else if (pthread_create(&workers[i].thread, NULL, body, &workers[i]) != 0) exit(3);
  }
  uint64_t sum = 0;
  for (int i = 0; i < count; i++) {
    if (count > 1) pthread_join(workers[i].thread, NULL);
    sum += workers[i].sum;
  }
  return sum;
}

// ---- result --------------------------------------------------------------------

static inline int finish(uint64_t sum) {
  printf("checksum %016llx\n", (unsigned long long)sum);
  return 0;
}

/// Resident bytes of this process; 0 when /proc is not there.
static inline size_t resident_bytes(void) {
  char text[64] = {0};
  size_t pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (file == NULL) return 0;
  if (fgets(text, sizeof text, file) != NULL) {
    char *rest = strchr(text, ' ');
    if (rest != NULL) pages = strtoul(rest, NULL, 10);
  }
  fclose(file);
  return pages * 4096;
}
