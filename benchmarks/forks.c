// forks: a process per request.
//
// Models a pre-loaded server or test runner: the parent holds 16 MiB of live
// items, forks for every request, and the child allocates, changes part of
// what it inherited, and exits. Arguments: requests, threads (that sleep in
// the parent, so that fork has locks to think of).
//
// Punishes fork handlers that walk the heap, children that copy many pages
// because the allocator's bookkeeping lies among the items, and address spaces
// with many mappings, which fork copies.
#include "bench.h"

#include <sys/wait.h>
#include <unistd.h>

enum { LIVE = 60000, REQUEST_ITEMS = 400 };

static void *items[LIVE];
static pthread_barrier_t started;

static void *sleeper(void *argument) {
  free(take(100));
  pthread_barrier_wait(&started);
  pause();
  return argument;
}

/// In the child: some work, whose result is the exit status.
static int serve(uint64_t seed) {
  struct random_state random = random_seed(seed);
  void *fresh[REQUEST_ITEMS];
  uint64_t sum = seed;
  for (int i = 0; i < REQUEST_ITEMS; i++) {
    size_t size = random_size(&random, 16, 4096);
    fresh[i] = take(size);
    touch(fresh[i], size, (unsigned char)i);
    free(items[random_below(&random, LIVE / REQUEST_ITEMS) * REQUEST_ITEMS + i]);
    sum = mixed(sum, peek(fresh[i], size));
  }
  for (int i = 0; i < REQUEST_ITEMS; i++) free(fresh[i]);
  return (int)(sum & 63);
}

int main(int argc, char **argv) {
  long requests = argument(argc, argv, 1, 400);
  int threads = (int)argument(argc, argv, 2, 1);
  struct random_state random = random_seed(1);
  for (int i = 0; i < LIVE; i++) {
    size_t size = random_size(&random, 16, 1024);
    items[i] = take(size);
    touch(items[i], size, 1);
  }
  pthread_barrier_init(&started, NULL, threads);
  for (int i = 1; i < threads; i++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, sleeper, NULL) != 0) return 3;
  }
  pthread_barrier_wait(&started);
  uint64_t sum = 0;
  for (long i = 0; i < requests; i++) {
    pid_t child = fork();
    if (child == 0) _exit(serve((uint64_t)i));
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) return 3;
    sum = mixed(sum, (uint64_t)WEXITSTATUS(status));
  }
  return finish(sum);
}
