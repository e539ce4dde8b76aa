// A storm of timer signals whose handler allocates and frees, while the interrupted
// code does the same. No C library promises this; we promise that balanced calls in
// a handler neither hang nor hand out a block twice nor lose one.
//
// Shadow checker: every live block carries the number of its owner in all its words,
// and no number is used twice. Two owners of one address overwrite each other, which
// shows when the first of them is freed.
//
// Arguments: number of threads, `alternate` for handlers on an alternate stack.
// KEGMALLOC_STORM_SECONDS lengthens the storm from three seconds.
#include "fixture.h"
#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

enum { LIVE = 400, HELD = 12 };
static const long interval_ns = 150000;  // 6,666 Hz for each thread

struct block {
  uint64_t *words;
  size_t size;
  uint64_t owner;
};

static volatile int stop;
static uint64_t owners;
static uint64_t signals_seen;
static __thread uint64_t handler_seed;

// Large blocks are rarer, or the storm would be one of page faults.
static const size_t handler_sizes[] = {8, 24, 64, 100, 333, 500, 1000, 1024, 2000, 4096, 9000, 40000, 70000, 200000};

static size_t pick_size(uint64_t choice) { return handler_sizes[choice % 16 == 0 ? 10 + choice / 16 % 4 : choice / 16 % 10]; }
static size_t words_of(size_t size) { return size / sizeof(uint64_t); }
// Every word of a small block is marked, every eighth of a larger one.
static size_t step_of(size_t size) { return size <= 4096 ? 1 : 8; }

static struct block take(size_t size, unsigned kind) {
  struct block block = {NULL, size, __atomic_add_fetch(&owners, 1, __ATOMIC_RELAXED)};
  if (kind == 0) {
    block.words = calloc(1, size);
    CHECK(block.words != NULL && is_zero(block.words, size), "calloc of %zu", size);
  } else if (kind == 1) {
    block.words = realloc(malloc(size / 2 + 1), size);
  } else if (kind == 2) {
    CHECK(posix_memalign((void **)&block.words, 64, size) == 0);
  } else {
    block.words = malloc(size);
  }
  CHECK(block.words != NULL, "size %zu", size);
  for (size_t i = 0; i < words_of(size); i += step_of(size)) block.words[i] = block.owner;
  return block;
}

static void give(struct block *block) {
  for (size_t i = 0; i < words_of(block->size); i += step_of(block->size))
    CHECK(block->words[i] == block->owner, "word %zu of %zu bytes at %p: owner %lu, not %lu", i, block->size,
          (void *)block->words, (unsigned long)block->words[i], (unsigned long)block->owner);
  free(block->words);
  block->words = NULL;
}

static void on_signal(int number) {
  (void)number;
  int saved = errno;
  struct block held[HELD];
  unsigned count = 1 + random_next(&handler_seed) % HELD;
  for (unsigned i = 0; i < count; i++) {
    uint64_t choice = random_next(&handler_seed);
    held[i] = take(pick_size(choice), (choice >> 32) % 6);
  }
  if (random_next(&handler_seed) & 1)
    for (unsigned i = 0; i < count; i++) give(&held[i]);  // first in, first out
  else
    for (unsigned i = count; i-- > 0;) give(&held[i]);  // last in, first out
  __atomic_add_fetch(&signals_seen, 1, __ATOMIC_RELAXED);
  errno = saved;
}

static int by_address(const void *a, const void *b) {
  const struct block *x = a, *y = b;
  return x->words < y->words ? -1 : x->words > y->words;
}

static void *storm(void *argument) {
  uint64_t seed = (uintptr_t)argument * 977 + 1;
  handler_seed = seed ^ 0x5555;
  struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGALRM};
  event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
  timer_t timer;
  CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
  struct itimerspec often = {{0, interval_ns}, {0, interval_ns}}, never = {{0, 0}, {0, 0}};
  CHECK(timer_settime(timer, 0, &often, NULL) == 0);

  static __thread struct block live[LIVE];
  while (!stop) {
    uint64_t choice = random_next(&seed);
    struct block *block = &live[choice % LIVE];
    if (block->words) {
      give(block);
    } else {
      *block = take(8 + random_size(&seed, choice % 50 == 0 ? 300 * KIB : 2000), (choice >> 20) % 8);
    }
  }
  CHECK(timer_settime(timer, 0, &never, NULL) == 0);
  timer_delete(timer);
  sigset_t alarms;
  sigemptyset(&alarms);
  sigaddset(&alarms, SIGALRM);
  pthread_sigmask(SIG_BLOCK, &alarms, NULL);

  qsort(live, LIVE, sizeof *live, by_address);
  for (int i = 1; i < LIVE; i++)
    CHECK(!live[i].words || !live[i - 1].words ||
              (char *)live[i - 1].words + live[i - 1].size <= (char *)live[i].words,
          "two live blocks overlap at %p", (void *)live[i].words);
  for (int i = 0; i < LIVE; i++)
    if (live[i].words) give(&live[i]);
  return NULL;
}

static void *storm_alternate(void *argument) {
  stack_t stack = {.ss_sp = argument, .ss_size = 256 * KIB};
  CHECK(sigaltstack(&stack, NULL) == 0);
  return storm(argument);
}

int main(int argc, char **argv) {
  int threads = argc > 1 ? atoi(argv[1]) : 1;
  int alternate = argc > 2 && !strcmp(argv[2], "alternate");
  const char *asked = getenv("KEGMALLOC_STORM_SECONDS");
  int seconds = asked ? atoi(asked) : 3;
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART | (alternate ? SA_ONSTACK : 0)};
  CHECK(sigaction(SIGALRM, &action, NULL) == 0);

  pthread_t workers[16];
  CHECK(threads >= 1 && threads <= 16);
  for (int i = 0; i < threads; i++) {
    void *argument = alternate ? malloc(256 * KIB) : (void *)(uintptr_t)(i + 1);
    CHECK(pthread_create(&workers[i], NULL, alternate ? storm_alternate : storm, argument) == 0);
  }
  struct timespec pause_for = {seconds, 0};
  while (nanosleep(&pause_for, &pause_for) != 0) {
  }
  // A slow or busy machine gets the time it needs, a minute at most.
  for (int i = 0; i < 600 && signals_seen <= 1000; i++) {
    pause_for = (struct timespec){0, 100000000};
    while (nanosleep(&pause_for, &pause_for) != 0) {
    }
  }
  stop = 1;
  for (int i = 0; i < threads; i++) pthread_join(workers[i], NULL);
  CHECK(signals_seen > 1000, "only %lu signals arrived", (unsigned long)signals_seen);
  dprintf(1, "%lu signals, %lu blocks\n", (unsigned long)signals_seen, (unsigned long)owners);
  return ok();
}
