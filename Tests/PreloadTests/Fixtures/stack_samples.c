// stack_samples.c: thousands of stacks of many shapes, each as keg_backtrace(3) and as
// the C library's backtrace(3) see it. They must be the same, frame by frame: frames
// without frame pointers, of changing size, with aligned stacks, below callbacks of
// the C library, in threads, and in a signal handler. Prints how many there were.
//   stack_samples count [library]    dlopens and dlcloses `library` meanwhile
#include <alloca.h>
#include <dlfcn.h>
#include <execinfo.h>
#include <pthread.h>
#include <signal.h>

#include "fixture.h"

extern int keg_backtrace(void **frames, int limit) __attribute__((weak));

enum { DEPTH = 24, MORE = 64 };
#define BARRIER __asm__ volatile("" ::: "memory")

static _Thread_local uint64_t seed;
static _Thread_local unsigned samples, longest;

static unsigned next(unsigned bound) {
  seed = seed * 6364136223846793005u + 1442695040888963407u;
  return (unsigned)(seed >> 33) % bound;
}

__attribute__((noinline)) static void sample(void) {
  void *ours[DEPTH], *theirs[MORE];
  // Between two samples the allocator captures as well: the record must survive it.
  void *block = malloc(next(100));
  int count = keg_backtrace(ours, DEPTH);
  free(block);
  int others = backtrace(theirs, MORE);
  CHECK(count == (others < DEPTH ? others : DEPTH), "%d frames, not %d", count, others);
  // The first frame is this function, at another call.
  for (int i = 1; i < count; i++) {
    uintptr_t mine = (uintptr_t)ours[i], other = (uintptr_t)theirs[i];
    // Of code that a signal interrupted the address is exact.
    CHECK(mine == other - 1 || mine == other, "frame %d of %d: %#lx, not %#lx", i, count,
          (unsigned long)mine, (unsigned long)other);
  }
  samples++;
  if ((unsigned)others > longest) longest = (unsigned)others;
}

static void any(unsigned depth);

__attribute__((noinline)) static void plain(unsigned depth) {
  any(depth);
  BARRIER;
}
__attribute__((noinline)) static int busy_registers(unsigned depth, int a, int b) {
  int c = a * b, d = a + b, e = a - b, f = a ^ b;
  any(depth);
  BARRIER;
  return c + d * e + f + a * 3 + b * 5;
}
__attribute__((noinline)) static void sized(unsigned depth) {
  volatile char *room = alloca(16 + next(2000));
  room[0] = 1;
  any(depth);
  room[1] = 2;
}
__attribute__((noinline)) static void aligned(unsigned depth) {
  _Alignas(64) volatile char room[128];
  room[0] = 1;
  any(depth);
  room[1] = room[0];
}
__attribute__((noinline)) static void aligned_and_sized(unsigned depth) {
  _Alignas(128) volatile char room[128];
  volatile char *more = alloca(16 + next(500));
  room[0] = more[0] = 1;
  any(depth);
  room[1] = more[1] = room[0];
}
__attribute__((noinline, optimize("no-omit-frame-pointer"))) static void framed(unsigned depth) {
  any(depth);
  BARRIER;
}
static _Thread_local unsigned callback_depth;
static int compare(const void *a, const void *b) {
  if (callback_depth > 0) {
    unsigned depth = callback_depth;
    callback_depth = 0;
    any(depth);
  }
  return *(const int *)a - *(const int *)b;
}
__attribute__((noinline)) static void through_qsort(unsigned depth) {
  int numbers[4] = {4, 2, 3, 1};
  callback_depth = depth;
  qsort(numbers, 4, sizeof numbers[0], compare);
  callback_depth = 0;
}
// Twice the same place, from two callers with frames of one size.
__attribute__((noinline)) static void left(unsigned depth) {
  plain(depth);
  BARRIER;
}
__attribute__((noinline)) static void right(unsigned depth) {
  plain(depth);
  BARRIER;
}

static void any(unsigned depth) {
  if (depth == 0 || next(8) == 0) sample();
  if (depth == 0) return;
  switch (next(9)) {
    case 0: plain(depth - 1); break;
    case 1: busy_registers(depth - 1, (int)next(9), (int)next(9)); break;
    case 2: sized(depth - 1); break;
    case 3: aligned(depth - 1); break;
    case 4: aligned_and_sized(depth - 1); break;
    case 5: framed(depth - 1); break;
    case 6: through_qsort(depth - 1); break;
    case 7:
      left(depth / 2);
      right(depth / 2);
      break;
    default: plain(depth > 40 ? depth - 3 : depth - 1); break;
  }
  if (next(4) == 0) sample();
  BARRIER;
}

static void on_signal(int number) {
  (void)number;
  any(next(6));
}

static unsigned long wanted, total;

static void *walk_about(void *number) {
  seed = (uintptr_t)number;
  while (samples < wanted) {
    any(next(60));
    if (next(20) == 0) raise(SIGUSR1);
  }
  __atomic_fetch_add(&total, samples, __ATOMIC_RELAXED);
  CHECK(longest > DEPTH, "the longest stack had %u frames", longest);
  return 0;
}

static int is_over;
static void *load_and_unload(void *library) {
  while (!__atomic_load_n(&is_over, __ATOMIC_RELAXED)) {
    void *handle = dlopen(library, RTLD_NOW);
    CHECK(handle, "%s", dlerror());
    dlclose(handle);
  }
  return 0;
}

int main(int argc, char **argv) {
  CHECK(argc >= 2 && keg_backtrace, "stack_samples count [library]");
  wanted = strtoul(argv[1], 0, 10);
  signal(SIGUSR1, on_signal);
  void *warm[1];
  backtrace(warm, 1);  // loads libgcc_s
  pthread_t threads[3], loader;
  if (argc > 2) CHECK(pthread_create(&loader, 0, load_and_unload, argv[2]) == 0, "thread");
  for (uintptr_t i = 0; i < 3; i++)
    CHECK(pthread_create(&threads[i], 0, walk_about, (void *)(i + 1)) == 0, "thread");
  for (int i = 0; i < 3; i++) pthread_join(threads[i], 0);
  walk_about((void *)99);
  __atomic_store_n(&is_over, 1, __ATOMIC_RELAXED);
  if (argc > 2) pthread_join(loader, 0);
  CHECK(total >= 4 * wanted, "%lu samples", total);
  puts("ok");
  return 0;
}
