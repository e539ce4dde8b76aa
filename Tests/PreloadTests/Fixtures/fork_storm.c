// fork while four threads allocate: no child may hang on a lock that some thread of
// the parent held, and a child's heap works: it frees the parent's blocks, allocates,
// starts a thread, forks again. Argument: number of forks of the main thread.
#include "fixture.h"
#include <sys/wait.h>

static volatile int stop;
static void *_Atomic shared[64];

static void churn(uint64_t *seed, int steps) {
  for (int i = 0; i < steps; i++) {
    size_t size = sizeof(size_t) + random_size(seed, i % 100 == 0 ? MIB : 4000);
    size_t *block = i % 3 ? malloc(size) : calloc(1, size);
    CHECK(block != NULL);
    *block = size;
    block[size / sizeof *block - 1] = size;
    size_t *old = __atomic_exchange_n(&shared[random_next(seed) % 64], block, __ATOMIC_ACQ_REL);
    if (!old) continue;
    CHECK(old[*old / sizeof *old - 1] == *old, "block of %zu", *old);
    free(old);
  }
}

static void *keep_busy(void *argument) {
  uint64_t seed = (uintptr_t)argument + 1;
  while (!stop) churn(&seed, 100);
  return NULL;
}

static void *in_child(void *argument) {
  uint64_t seed = 77;
  churn(&seed, 200);
  return argument;
}

static void child(int depth, void **blocks) {
  uint64_t seed = 99 + depth;
  for (int i = 0; i < 100; i++) free(blocks[i]);  // the parent's
  churn(&seed, 300);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, in_child, NULL) == 0);
  pthread_join(thread, NULL);
  if (depth < 2) {
    for (int i = 0; i < 100; i++) blocks[i] = malloc(i * 40);
    pid_t grandchild = fork();
    CHECK(grandchild >= 0);
    if (grandchild == 0) {
      child(depth + 1, blocks);
      // With atexit handlers, as most programs end, or without.
      depth == 0 ? exit(0) : _exit(0);
    }
    int status;
    CHECK(waitpid(grandchild, &status, 0) == grandchild && status == 0, "status %x", status);
  }
}

int main(int argc, char **argv) {
  int forks = argc > 1 ? atoi(argv[1]) : 300;
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, keep_busy, (void *)(uintptr_t)i);
  void *blocks[100];
  for (int i = 0; i < forks; i++) {
    for (int k = 0; k < 100; k++) blocks[k] = malloc(k * 50);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
      child(0, blocks);
      _exit(0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0, "fork %d: status %x", i, status);
    for (int k = 0; k < 100; k++) free(blocks[k]);
  }
  stop = 1;
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  return ok();
}
