// debug_options.c: what the debug library's options and a program's signals and exec do
// to each other. The argument names a case; `plain` ones behave so without the library too.
#include "fixture.h"
#include <errno.h>
#include <signal.h>
#include <unistd.h>

long keg_leak_check(void) __attribute__((weak));

enum { BLOCKS = 20000 };
static void *blocks[BLOCKS];

// The argument is the mean number of calls between two failures; 0: none fail.
static void some_fail(unsigned long mean) {
  unsigned long failures = 0;
  for (int i = 0; i < BLOCKS; i++) {
    errno = 0;
    blocks[i] = hide(i % 3 == 0 ? calloc(1, 40) : i % 3 == 1 ? malloc(100) : realloc(NULL, 3000));
    if (blocks[i] == NULL) failures++;
    CHECK((blocks[i] == NULL) == (errno == ENOMEM), "block %d, errno %d", i, errno);
  }
  for (int i = 0; i < BLOCKS; i++) free(blocks[i]);
  // Of so many the deviation is below 140: seven of them to each side.
  unsigned long expected = mean ? BLOCKS / mean : 0;
  CHECK(failures + 1000 >= expected && failures <= expected + 1000, "%lu failures", failures);
  CHECK((failures == 0) == (mean == 0), "%lu failures", failures);
}

// The argument is the limit in MiB.
static void limited(unsigned long limit) {
  for (int round = 0; round < 3; round++) {
    unsigned long count = 0;
    errno = 0;
    while (count < 4 * limit && (blocks[count] = hide(malloc(MIB))) != NULL) count++;
    CHECK(errno == ENOMEM && count <= limit && count >= limit / 2, "round %d: %lu blocks", round, count);
    for (unsigned long i = 0; i < count; i++) free(blocks[i]);
    void *small = hide(malloc(1000));
    CHECK(small != NULL, "no room after all was freed");
    free(small);
  }
}

static void same_mask(const char *when) {
  sigset_t now;
  CHECK(pthread_sigmask(SIG_SETMASK, NULL, &now) == 0);
  for (int number = 1; number < 65; number++)
    if (number != SIGKILL && number != SIGSTOP && number != 32 && number != 33)
      CHECK(sigismember(&now, number) == (number != SIGUSR2), "%s: signal %d", when, number);
}

static volatile int seen;
static void note(int number) { seen = number; }

// All signals but one are blocked, and one of these waits.
static void masks(void) {
  sigset_t most;
  signal(SIGUSR1, note);
  sigfillset(&most);
  sigdelset(&most, SIGUSR2);
  CHECK(pthread_sigmask(SIG_SETMASK, &most, NULL) == 0);
  raise(SIGUSR1);
  for (int i = 0; i < 3000; i++) {
    void *block = hide(malloc((size_t)i * 37));
    free(realloc(block, (size_t)i * 11 + 1));
  }
  same_mask("malloc");
  if (keg_leak_check) CHECK(keg_leak_check() == 0);
  same_mask("leak check");
  struct sigaction action = {.sa_handler = note}, old;
  CHECK(sigaction(SIGSEGV, &action, &old) == 0 && sigaction(SIGSEGV, &old, NULL) == 0);
  same_mask("sigaction");
  sigset_t waiting;
  CHECK(seen == 0 && sigpending(&waiting) == 0 && sigismember(&waiting, SIGUSR1));
  sigemptyset(&most);
  CHECK(pthread_sigmask(SIG_SETMASK, &most, NULL) == 0 && seen == SIGUSR1);
}

// What a handler leaves to the next program: caught signals are the default's there,
// ignored ones ignored, blocked ones blocked.
static void replaced(char **arguments) {
  signal(SIGSEGV, note);
  signal(SIGUSR1, SIG_IGN);
  sigset_t one;
  sigemptyset(&one);
  sigaddset(&one, SIGUSR2);
  CHECK(pthread_sigmask(SIG_SETMASK, &one, NULL) == 0);
  for (int i = 0; i < 100; i++) blocks[i] = malloc(100);
  char *const next[] = {arguments[0], "after-exec", NULL};
  execv(arguments[0], next);
  CHECK(0, "exec");
}

static void after_exec(void) {
  struct sigaction action;
  CHECK(sigaction(SIGSEGV, NULL, &action) == 0 && action.sa_handler == SIG_DFL, "SIGSEGV");
  CHECK(sigaction(SIGUSR1, NULL, &action) == 0 && action.sa_handler == SIG_IGN, "SIGUSR1");
  sigset_t now;
  CHECK(pthread_sigmask(SIG_SETMASK, NULL, &now) == 0 && sigismember(&now, SIGUSR2) &&
        !sigismember(&now, SIGSEGV));
  free(hide(malloc(100)));
}

// ---- a handler over the allocator, as often as is asked ------------------------

static volatile int handled, finished;

static void allocate_in_handler(int number) {
  (void)number;
  char *block = hide(malloc(64));
  CHECK(block != NULL);
  memset(block, 7, 64);
  free(block);
  handled++;
}

static void *work(void *argument) {
  uint64_t seed = 5;
  while (!finished) {
    size_t size = random_size(&seed, 5000);
    char *block = hide(malloc(size));
    CHECK(block != NULL);
    mark(block, size, 3);
    CHECK(is_marked(block, size, 3));
    free(block);
  }
  return argument;
}

static void storm(int count) {
  pthread_t thread;
  signal(SIGUSR1, allocate_in_handler);
  CHECK(pthread_create(&thread, NULL, work, NULL) == 0);
  // Each is sent when the one before has been handled.
  for (int i = 0; i < count; i++) {
    CHECK(pthread_kill(thread, SIGUSR1) == 0);
    while (handled == i) sched_yield();
  }
  finished = 1;
  CHECK(pthread_join(thread, NULL) == 0 && handled == count);
}

int main(int count, char **arguments) {
  CHECK(count >= 2, "a case");
  const char *name = arguments[1];
  unsigned long number = count > 2 ? strtoul(arguments[2], NULL, 10) : 0;
  if (strcmp(name, "some-fail") == 0) some_fail(number);
  else if (strcmp(name, "limited") == 0) limited(number);
  else if (strcmp(name, "masks") == 0) masks();
  else if (strcmp(name, "exec") == 0) replaced(arguments);
  else if (strcmp(name, "after-exec") == 0) after_exec();
  else if (strcmp(name, "storm") == 0) storm((int)number);
  else CHECK(0, "no case %s", name);
  return ok();
}
