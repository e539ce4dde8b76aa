// stack_neighbour.c: a thread whose stack ends where other memory begins, which comes and
// goes meanwhile. The allocator looks for signal frames on the stack, and on nothing else.
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "fixture.h"

#define STACK (64 * KIB)

static char *neighbour;
static atomic_int is_done;

static void nothing(int number) { (void)number; }

// Near the end of its stack; after every signal the next slow path looks.
static void *allocate(void *argument) {
  (void)argument;
  static void *blocks[512];
  for (int round = 0; round < 20000; round++) {
    raise(SIGUSR1);
    for (int i = 0; i < 512; i++) CHECK(blocks[i] = malloc(512), "no memory");
    for (int i = 0; i < 512; i++) free(blocks[i]);
  }
  is_done = 1;
  return NULL;
}

int main(void) {
  char *memory = mmap(NULL, 2 * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED, "mmap");
  neighbour = memory + STACK;
  signal(SIGUSR1, nothing);
  pthread_attr_t attributes;
  pthread_t thread;
  pthread_attr_init(&attributes);
  CHECK(pthread_attr_setstack(&attributes, memory, STACK) == 0, "setstack");
  CHECK(pthread_create(&thread, &attributes, allocate, NULL) == 0, "pthread_create");
  while (!is_done) {
    mprotect(neighbour, STACK, PROT_NONE);
    mprotect(neighbour, STACK, PROT_READ | PROT_WRITE);
  }
  pthread_join(thread, NULL);
  return puts("ok") < 0;
}
