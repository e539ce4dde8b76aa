// debug_storms.c: forks and ends of the process while threads end, give memory back and
// are interrupted: whoever forks waits for the others, and they for nobody who forks.
// The argument names a case.
#include "fixture.h"
#include <malloc.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int stop;
static void *volatile blocks[2000];

// Leaves slabs of many sizes empty, which go back when the thread ends.
static void *fill_and_end(void *argument) {
  uint64_t seed = (uintptr_t)argument + 1;
  void *blocks[200];
  for (int round = 0; round < 3; round++) {
    for (int i = 0; i < 200; i++) {
      size_t size = 500 + random_size(&seed, 6000);
      CHECK((blocks[i] = hide(malloc(size))) != NULL, "no memory");
      memset(blocks[i], 1, size);
    }
    for (int i = 0; i < 200; i++) free(blocks[i]);
  }
  return NULL;
}

static void *start_threads(void *argument) {
  uintptr_t number = (uintptr_t)argument;
  pthread_t threads[8];
  while (!stop) {
    for (int i = 0; i < 8; i++)
      CHECK(pthread_create(&threads[i], NULL, fill_and_end, (void *)number++) == 0, "no thread");
    for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
  }
  return NULL;
}

static void *trim(void *unused) {
  while (!stop) malloc_trim(0);
  return unused;
}

static void fork_once(void (*in_child)(int)) {
  pid_t child = fork();
  CHECK(child >= 0, "no child");
  if (child == 0) {
    free(hide(malloc(100)));
    in_child(0);
  }
  int status;
  pid_t ended;
  do ended = waitpid(child, &status, 0);
  while (ended < 0 && errno == EINTR);
  CHECK(ended == child && status == 0, "status %x", status);
}

static void among_ending_threads(const char *what) {
  pthread_t thread;
  for (uintptr_t i = 0; i < 2; i++) pthread_create(&thread, NULL, start_threads, (void *)(i * 1000));
  pthread_create(&thread, NULL, trim, NULL);
  if (!strcmp(what, "forks"))
    for (int i = 0; i < 60; i++) fork_once(i % 2 ? exit : _exit);
  else
    usleep(50000 + getpid() % 37 * 1000);
  // The threads run on while the process ends.
}

// Allocates for the first time in a given round of the destructors of pthread's keys,
// the last of which nobody hears of.
static pthread_key_t key;
static __thread int rounds;
static int first_round;
static void destroy(void *data) {
  if (++rounds < first_round) pthread_setspecific(key, data);
  else free(hide(malloc(100)));
}
static void *set_key(void *unused) {
  pthread_setspecific(key, &key);
  return unused;
}

static void late_calls(void) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  // Too great to be kept: unmapped, with the thread's variables, when it has ended.
  pthread_attr_setstacksize(&attributes, 128 * MIB);
  free(hide(malloc(1)));
  pthread_key_create(&key, destroy);
  for (first_round = 1; first_round <= 4; first_round++) {
    pthread_t thread;
    CHECK(pthread_create(&thread, &attributes, set_key, NULL) == 0, "no thread");
    pthread_join(thread, NULL);
  }
  for (int i = 0; i < 3; i++) fork_once(exit);
}

static void allocate_in_handler(int number) {
  (void)number;
  char *block = malloc(100);
  CHECK(block != NULL, "no memory in a handler");
  memset(block, 1, 100);
  free(block);
}

static void *allocate(void *unused) {
  while (!stop) free(hide(malloc(300)));
  return unused;
}

static void over_handlers(void) {
  sigset_t alarms;
  sigemptyset(&alarms);
  sigaddset(&alarms, SIGALRM);
  pthread_sigmask(SIG_BLOCK, &alarms, NULL);
  pthread_t threads[2];
  for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, allocate, NULL);
  signal(SIGALRM, allocate_in_handler);
  // Handlers over fork, and over nothing else of the allocator's.
  struct itimerval often = {{0, 150}, {0, 150}}, never = {{0, 0}, {0, 0}};
  setitimer(ITIMER_REAL, &often, NULL);
  for (int i = 0; i < 60; i++) {
    pid_t child = 0;
    pthread_sigmask(SIG_UNBLOCK, &alarms, NULL);
    child = fork();
    pthread_sigmask(SIG_BLOCK, &alarms, NULL);
    CHECK(child >= 0, "no child");
    if (child == 0) {
      free(hide(malloc(100)));
      _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0, "status %x", status);
  }
  setitimer(ITIMER_REAL, &never, NULL);
  stop = 1;
  for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
}

// Two threads end the process at once: the one that comes second waits for the report.
static pthread_barrier_t barrier;
static void *leave(void *unused) {
  pthread_barrier_wait(&barrier);
  exit(0);
  return unused;
}
static void two_ends(void) {
  for (int i = 0; i < 2000; i++) blocks[i] = hide(malloc(500));
  memset(hide(malloc(77)), 1, 77);
  pthread_t thread;
  pthread_barrier_init(&barrier, NULL, 2);
  CHECK(pthread_create(&thread, NULL, leave, NULL) == 0, "no thread");
  ok();
  pthread_barrier_wait(&barrier);
  _exit(0);
}

int main(int count, char **arguments) {
  CHECK(count == 2, "one argument");
  const char *what = arguments[1];
  if (!strcmp(what, "forks") || !strcmp(what, "exit")) among_ending_threads(what);
  else if (!strcmp(what, "late")) late_calls();
  else if (!strcmp(what, "handlers")) over_handlers();
  else if (!strcmp(what, "two-ends")) two_ends();
  else CHECK(0, "no such case");
  return ok();
}
