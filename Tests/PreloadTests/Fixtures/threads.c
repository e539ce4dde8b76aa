// Threads at their edges; the argument names the case.
#include "fixture.h"
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <ucontext.h>

static void churn(uint64_t seed, int steps, size_t limit) {
  void *blocks[64] = {NULL};
  size_t sizes[64];
  for (int step = 0; step < steps; step++) {
    int i = random_next(&seed) % 64;
    if (blocks[i]) {
      CHECK(is_marked(blocks[i], sizes[i], i), "block %d overwritten", i);
      free(blocks[i]);
      blocks[i] = NULL;
    } else {
      sizes[i] = random_size(&seed, limit);
      blocks[i] = malloc(sizes[i]);
      CHECK(blocks[i] != NULL);
      mark(blocks[i], sizes[i], i);
    }
  }
  for (int i = 0; i < 64; i++) free(blocks[i]);
}

// Every thread leaves with memory it used and freed: it must come to others, not add up.
static void *use_and_leave(void *argument) {
  void **blocks = malloc(4000 * sizeof *blocks);
  for (int i = 0; i < 4000; i++) blocks[i] = malloc(1000), memset(blocks[i], 1, 1000);
  for (int i = 0; i < 4000; i++) free(blocks[i]);
  free(blocks);
  return argument;
}
static void exit_returns(void) {
  pthread_t thread;
  size_t early = 0;
  for (int i = 0; i < 300; i++) {
    CHECK(pthread_create(&thread, NULL, use_and_leave, NULL) == 0);
    pthread_join(thread, NULL);
    if (i == 20) early = status_kib("VmRSS:");
  }
  size_t late = status_kib("VmRSS:");
  CHECK(late < early + 8192, "%zu KiB after 20 threads, %zu after 300", early, late);
}

// Destructors of thread-specific data run after, or again after, the allocator's own.
static pthread_key_t keys[8];
static void destroy(void *value) {
  static int runs;
  for (size_t size = 8; size < 300 * KIB; size = size * 2 + 3) {
    char *block = malloc(size);
    CHECK(block != NULL);
    mark(block, size, 1);
    block = realloc(block, size * 2);
    CHECK(is_marked(block, size, 1));
    free(block);
  }
  free(value);
  // Comes back in each of the four rounds that POSIX allows.
  if (__atomic_add_fetch(&runs, 1, __ATOMIC_RELAXED) % 4)
    pthread_setspecific(keys[7], malloc(100));
}
static void *with_data(void *argument) {
  for (int i = 0; i < 8; i++) pthread_setspecific(keys[i], malloc(64 << i));
  return argument;
}
static void tsd(void) {
  pthread_t threads[8];
  free(malloc(1));
  for (int i = 0; i < 8; i++) pthread_key_create(&keys[i], destroy);
  for (int round = 0; round < 50; round++) {
    for (int i = 0; i < 8; i++) CHECK(pthread_create(&threads[i], NULL, with_data, NULL) == 0);
    for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
  }
}

static void *free_first(void *block) {
  free(block);
  return NULL;
}
static void first_call_is_free(void) {
  pthread_t thread;
  for (size_t size = 1; size < 8 * MIB; size = size * 3 + 1)
    for (int i = 0; i < 20; i++) {
      char *block = malloc(size);
      memset(block, 1, size);
      CHECK(pthread_create(&thread, NULL, free_first, block) == 0);
      pthread_join(thread, NULL);
    }
  // Two hundred MiB freed by threads that do nothing else must not stay away.
  size_t before = status_kib("VmRSS:");
  for (int i = 0; i < 200; i++) {
    char *block = malloc(MIB);
    memset(block, 1, MIB);
    pthread_create(&thread, NULL, free_first, block);
    pthread_join(thread, NULL);
  }
  CHECK(status_kib("VmRSS:") < before + 64 * 1024, "%zu KiB", status_kib("VmRSS:"));
}

static void *churn_small(void *argument) {
  churn((uintptr_t)argument + 1, 20000, 100 * KIB);
  return NULL;
}
static void small_stacks(void) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  // 24 KiB of stack, plus what this C library takes out of it for static TLS.
  CHECK(pthread_attr_setstacksize(&attributes, 24 * KIB) == 0);
  pthread_t threads[16];
  for (int i = 0; i < 16; i++)
    CHECK(pthread_create(&threads[i], &attributes, churn_small, (void *)(uintptr_t)i) == 0);
  for (int i = 0; i < 16; i++) pthread_join(threads[i], NULL);
}

static ucontext_t main_context, contexts[8];
static void *passed[8];
static void coroutine(int number) {
  uint64_t seed = number + 1;
  for (int i = 0; i < 2000; i++) {
    size_t size = random_size(&seed, 64 * KIB);
    char *block = malloc(size);
    mark(block, size, number);
    swapcontext(&contexts[number], &main_context);
    CHECK(is_marked(block, size, number), "coroutine %d", number);
    free(passed[number]);
    passed[number] = block;
  }
}
static void contexts_switch(void) {
  int running = 8;
  for (int i = 0; i < 8; i++) {
    getcontext(&contexts[i]);
    contexts[i].uc_stack.ss_sp = malloc(24 * KIB);
    contexts[i].uc_stack.ss_size = 24 * KIB;
    contexts[i].uc_link = &main_context;
    makecontext(&contexts[i], (void (*)(void))coroutine, 1, i);
  }
  for (int turn = 0; turn < 2001 * running; turn++) swapcontext(&main_context, &contexts[turn % 8]);
  for (int i = 0; i < 8; i++) free(passed[i]), free(contexts[i].uc_stack.ss_sp);
}

static void unwind(void *block) { free(block); }
static void *until_cancelled(void *argument) {
  char *block = malloc(1000);
  pthread_cleanup_push(unwind, block);
  for (;;) {
    churn((uintptr_t)argument + 1, 200, 200 * KIB);
    pthread_testcancel();
  }
  pthread_cleanup_pop(0);
  return NULL;
}
static void cancellation(void) {
  for (int round = 0; round < 40; round++) {
    pthread_t threads[4];
    void *result;
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, until_cancelled, (void *)(uintptr_t)i);
    usleep(1000);
    for (int i = 0; i < 4; i++) pthread_cancel(threads[i]);
    for (int i = 0; i < 4; i++) {
      pthread_join(threads[i], &result);
      CHECK(result == PTHREAD_CANCELED);
    }
  }
  churn(1, 20000, MIB);
}

static void *forever(void *argument) {
  for (;;) churn((uintptr_t)argument + 1, 1000, 300 * KIB);
  return NULL;
}
static void at_exit(void) {
  churn(9, 1000, MIB);
  ok();
}
static void exit_while_running(void) {
  pthread_t thread;
  atexit(at_exit);
  for (int i = 0; i < 4; i++) pthread_create(&thread, NULL, forever, (void *)(uintptr_t)i);
  usleep(20000);
  exit(0);
}

static void *outlive_main(void *argument) {
  pthread_join(*(pthread_t *)argument, NULL);
  churn(4, 20000, MIB);
  ok();
  return NULL;
}
static void main_leaves_first(void) {
  static pthread_t self;
  pthread_t thread;
  self = pthread_self();
  churn(4, 1000, MIB);
  pthread_create(&thread, NULL, outlive_main, &self);
  pthread_exit(NULL);  // the process must end with the last thread, with status 0
}

static pthread_barrier_t barrier;
static void *touch(void *argument) {
  pthread_barrier_wait(&barrier);
  char *block = malloc(48);
  CHECK(block != NULL);
  mark(block, 48, (uintptr_t)argument);
  sched_yield();
  CHECK(is_marked(block, 48, (uintptr_t)argument));
  churn((uintptr_t)argument + 1, 500, 20 * KIB);
  return block;
}
static void first_touch(void) {
  pthread_t threads[64];
  char *blocks[64];
  pthread_barrier_init(&barrier, NULL, 64);
  for (int i = 0; i < 64; i++) CHECK(pthread_create(&threads[i], NULL, touch, (void *)(uintptr_t)i) == 0);
  for (int i = 0; i < 64; i++) pthread_join(threads[i], (void **)&blocks[i]);
  for (int i = 0; i < 64; i++) CHECK(is_marked(blocks[i], 48, i), "block of thread %d", i);
  for (int i = 0; i < 64; i++) free(blocks[i]);
}

enum { RING = 1024, PASSED = 300000 };
static struct item {
  unsigned number;
  unsigned size;
} *ring[RING];
static sem_t room, filled;
static void *produce(void *argument) {
  uint64_t seed = 8;
  for (unsigned i = 0; i < PASSED; i++) {
    size_t size = sizeof(struct item) + random_size(&seed, i % 1000 == 0 ? MIB : 2000);
    struct item *item = malloc(size);
    item->number = i;
    item->size = size - sizeof *item;
    mark(item + 1, item->size, i);
    sem_wait(&room);
    ring[i % RING] = item;
    sem_post(&filled);
  }
  return argument;
}
static void producer_consumer(void) {
  pthread_t thread;
  sem_init(&room, 0, RING);
  sem_init(&filled, 0, 0);
  pthread_create(&thread, NULL, produce, NULL);
  for (unsigned i = 0; i < PASSED; i++) {
    sem_wait(&filled);
    struct item *item = ring[i % RING];
    CHECK(item->number == i && is_marked(item + 1, item->size, i), "item %u", i);
    free(item);
    sem_post(&room);
  }
  pthread_join(thread, NULL);
  CHECK(status_kib("VmRSS:") < 256 * 1024, "RSS %zu KiB", status_kib("VmRSS:"));
}

// Blocks handed round among threads that all allocate and free them.
static void *_Atomic shared[256];
static void *swap_blocks(void *argument) {
  uint64_t seed = (uintptr_t)argument + 1;
  for (int i = 0; i < 150000; i++) {
    size_t size = sizeof(size_t) + random_size(&seed, i % 500 == 0 ? 600 * KIB : 3000);
    size_t *block = malloc(size);
    *block = size;
    mark(block + 1, size - sizeof *block, size);
    size_t *old = __atomic_exchange_n(&shared[random_next(&seed) % 256], block, __ATOMIC_ACQ_REL);
    if (!old) continue;
    CHECK(is_marked(old + 1, *old - sizeof *old, *old), "block of %zu", *old);
    free(old);
  }
  return NULL;
}
static void swapping(void) {
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, swap_blocks, (void *)(uintptr_t)i);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
}

static const struct {
  const char *name;
  void (*run)(void);
} cases[] = {
    {"exit-returns", exit_returns}, {"tsd", tsd}, {"first-call-is-free", first_call_is_free},
    {"small-stacks", small_stacks}, {"contexts", contexts_switch}, {"cancellation", cancellation},
    {"exit-while-running", exit_while_running}, {"main-leaves-first", main_leaves_first},
    {"first-touch", first_touch}, {"producer-consumer", producer_consumer}, {"swapping", swapping},
};

int main(int argc, char **argv) {
  for (size_t i = 0; argc == 2 && i < sizeof cases / sizeof *cases; i++)
    if (!strcmp(argv[1], cases[i].name)) {
      cases[i].run();
      return ok();
    }
  CHECK(0, "no such case");
}
