// leaks_left.c: pointers that are left over on a stack, or in what nobody uses any more,
// and pointers that only look so. One way per argument; the verdicts are in LeakTests.swift.
#include <fcntl.h>
#include <poll.h>
#include <semaphore.h>
#include <signal.h>

#include "fixture.h"

#define APART __attribute__((noinline))
#define SHOW(pointer) __asm__ volatile("" ::"r"(pointer) : "memory")

// Loses a block of 72 bytes and leaves the pointer wherever its frame has been.
APART static void litter(void) {
  void *volatile copies[100];
  void *block = malloc(72);
  for (int i = 0; i < 100; i++) copies[i] = block;
  SHOW(copies);
}

// Ends the process with a hole in each frame where litter has been.
APART static void leave(int depth, void (*end)(int)) {
  void *hole[24];
  SHOW(hole);
  if (depth > 0)
    leave(depth - 1, end);
  else
    end(0);
  SHOW(hole);
}

static void left_exit(void) { litter(), leave(3, exit); }
static void left_Exit(void) { litter(), leave(3, _exit); }
static void left_quick_exit(void) { litter(), leave(3, quick_exit); }
static void *leaves(void *unused) {
  left_exit();
  return unused;
}
static void left_thread_exit(void) {
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, leaves, NULL) == 0);
  pthread_join(thread, NULL);
}

// ---- threads that wait -----------------------------------------------------------

static sem_t started, never;
static int pipes[2];

APART static void wait_in_hole(const char *way) {
  char hole[400];
  SHOW(hole);
  sem_post(&started);
  if (strcmp(way, "semaphore") == 0) sem_wait(&never);
  if (strcmp(way, "poll") == 0) poll(NULL, 0, -1);
  if (strcmp(way, "read") == 0) CHECK(read(pipes[0], hole, sizeof hole) >= 0);
  if (strcmp(way, "pause") == 0) pause();
  SHOW(hole);
}
static void *waits(void *way) {
  litter();
  wait_in_hole(way);
  return NULL;
}
static void waiting(void) {
  static const char *const ways[] = {"semaphore", "poll", "read", "pause"};
  for (int i = 0; i < 4; i++) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, waits, (void *)ways[i]) == 0);
    sem_wait(&started);
  }
  usleep(20000);
}

// The process ends when its last thread does, and the first is gone by then.
static void *outlives(void *unused) {
  wait_for_end_of_first_thread();
  return unused;
}
static void first_left(void) {
  pthread_t thread;
  litter();
  CHECK(pthread_create(&thread, NULL, outlives, NULL) == 0);
  pthread_exit(NULL);
}

// ---- what nobody uses any more ------------------------------------------------------

static void deleted_keys(void) {
  pthread_key_t keys[40];
  for (int i = 0; i < 40; i++) CHECK(pthread_key_create(&keys[i], NULL) == 0);
  for (int i = 0; i < 40; i += 39) pthread_setspecific(keys[i], malloc(36));
  for (int i = 0; i < 40; i++) pthread_key_delete(keys[i]);
}

static char idle[64 << 10];
static void on_signal(int number) {
  (void)number;
  litter();
}
static void idle_stack(void) {
  stack_t stack = {.ss_sp = idle, .ss_size = sizeof idle};
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
  CHECK(sigaltstack(&stack, NULL) == 0 && sigaction(SIGUSR1, &action, NULL) == 0);
  raise(SIGUSR1);
}

// ---- what is kept all the same ---------------------------------------------------------

APART static void fill(void **array) { array[5] = hide(malloc(72)); }
// Its callers do not know that it never returns.
APART static void go(void) {
  if (hide(pipes)) exit(0);
}
// In an array, by a function that was called from here.
APART static void kept_array(void) {
  void *array[10] = {0};
  fill(array);
  go();
  SHOW(array);
}
// By a function that has nothing to do with who keeps it: in a variable, in a register.
APART static void *make(void) { return hide(malloc(36)); }
APART static void keep(void *first, void *second) {
  void *volatile variable = first;
  go();
  SHOW(second);
  (void)variable;
}
static void kept_variables(void) {
  void *first = make();
  keep(first, make());
}
APART static void *keeps_and_waits(void *unused) {
  void *array[10] = {0};
  fill(array);
  sem_post(&started);
  sem_wait(&never);
  SHOW(array);
  return unused;
}
// In a place that only the waiting call has.
static void *is_read_into(void *unused) {
  void *block = malloc(72);
  sem_post(&started);
  return read(pipes[0], block, 72) ? unused : NULL;
}
static void kept_waiting(void) {
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, keeps_and_waits, NULL) == 0);
  sem_wait(&started);
  CHECK(pthread_create(&thread, NULL, is_read_into, NULL) == 0);
  sem_wait(&started);
  usleep(20000);
}

static const struct {
  const char *name;
  void (*body)(void);
} scenarios[] = {
    {"exit", left_exit}, {"_exit", left_Exit}, {"quick_exit", left_quick_exit},
    {"thread-exit", left_thread_exit}, {"waiting", waiting}, {"first-left", first_left},
    {"deleted-keys", deleted_keys}, {"idle-stack", idle_stack}, {"kept-array", kept_array},
    {"kept-variables", kept_variables}, {"kept-waiting", kept_waiting},
};

int main(int count, char **arguments) {
  CHECK(count == 2 && pipe(pipes) == 0);
  sem_init(&started, 0, 0);
  sem_init(&never, 0, 0);
  for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++)
    if (strcmp(scenarios[i].name, arguments[1]) == 0) {
      scenarios[i].body();
      return 0;
    }
  CHECK(0, "no scenario %s", arguments[1]);
}
