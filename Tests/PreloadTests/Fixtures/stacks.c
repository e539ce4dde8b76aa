// stacks.c: one double free in each place that is hard to unwind. The report must name
// allocate_9 … allocate_0 and release_9 … release_0 under "allocated by" and "freed by".
//   stacks chain      plainly, both ten functions deep
//   stacks small      in a thread whose stack has 24 KiB
//   stacks signal     in a handler on a stack of its own, over interrupted()
//   stacks jit        below machine code without unwind data, with a frame pointer
//   stacks bare       the same without a frame pointer: at least the inner part
//   stacks closed     with every descriptor above 2 closed, in another directory
//   stacks forked     in a child of a process with threads
// And with guard:right, a fault:
//   stacks fault      in touch(), which reads a freed block
//   stacks wild       in nothing: call() jumps to a freed block
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "fixture.h"

#define BARRIER __asm__ volatile("" ::: "memory")

__attribute__((noinline)) void *allocate_0(size_t size) {
  void *block = malloc(size);
  BARRIER;
  return block;
}
__attribute__((noinline)) void release_0(void *block) {
  free(block);
  BARRIER;
}
// Each with a frame of another size and other registers saved.
#define LEVEL(n, below, room)                                          \
  __attribute__((noinline)) void *allocate_##n(size_t size) {          \
    volatile char frame[room];                                         \
    frame[0] = (char)size;                                             \
    void *block = allocate_##below(size + n);                          \
    frame[0] = frame[0] + 1;                                           \
    return block;                                                      \
  }                                                                    \
  __attribute__((noinline)) void release_##n(void *block) {            \
    volatile char frame[room];                                         \
    frame[0] = 1;                                                      \
    release_##below(block);                                            \
    frame[0] = frame[0] + 1;                                           \
  }
LEVEL(1, 0, 8)
LEVEL(2, 1, 40)
LEVEL(3, 2, 64)
LEVEL(4, 3, 100)
LEVEL(5, 4, 16)
LEVEL(6, 5, 24)
LEVEL(7, 6, 48)
LEVEL(8, 7, 72)
LEVEL(9, 8, 128)

__attribute__((noinline)) static void free_twice(void) {
  void *block = allocate_9(40);
  release_9(block);
  release_9(block);
  BARRIER;
}

static void *in_thread(void *unused) {
  (void)unused;
  free_twice();
  return 0;
}

static void on_signal(int number) {
  (void)number;
  free_twice();
}

__attribute__((noinline)) void interrupted(void) {
  // Not raise(): the signal comes between two instructions of this function.
  __asm__ volatile(
      "syscall" ::"a"(62L /* kill */), "D"((long)getpid()), "S"((long)SIGUSR1)
      : "rcx", "r11", "memory");
  BARRIER;
}

static void with_signal(void) {
  static char memory[64 * 1024];
  stack_t stack = {.ss_sp = memory, .ss_size = sizeof memory};
  CHECK(sigaltstack(&stack, 0) == 0);
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
  sigaction(SIGUSR1, &action, 0);
  interrupted();
}

// f(callback): calls it, with `push %rbp; mov %rsp, %rbp` or with neither.
static const unsigned char framed[] = {0x55, 0x48, 0x89, 0xe5, 0xff, 0xd7, 0x5d, 0xc3};
static const unsigned char bare[] = {0x48, 0x83, 0xec, 0x08, 0xff, 0xd7, 0x48, 0x83, 0xc4, 0x08, 0xc3};

static void with_code(const unsigned char *code, size_t size) {
  void *page = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(page != MAP_FAILED);
  memcpy(page, code, size);
  ((void (*)(void (*)(void)))page)(free_twice);
}

static void *wait_for_ever(void *unused) {
  for (;;) free(malloc(100));
  return unused;
}

static void in_child(void) {
  pthread_t thread;
  for (int i = 0; i < 3; i++) CHECK(pthread_create(&thread, 0, wait_for_ever, 0) == 0);
  for (int i = 0; i < 20; i++) {
    pid_t child = fork();
    if (child == 0) {
      free_twice();
      _exit(0);
    }
    CHECK(waitpid(child, 0, 0) == child);
  }
}

__attribute__((noinline)) int touch(volatile char *block) { return block[3]; }
__attribute__((noinline)) int reach(char *block) { return touch(block) + 1; }
__attribute__((noinline)) void call(void *block) {
  ((void (*)(void))block)();
  BARRIER;
}

int main(int argc, char **argv) {
  const char *mode = argc > 1 ? argv[1] : "";
  if (strcmp(mode, "chain") == 0) {
    free_twice();
  } else if (strcmp(mode, "small") == 0) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    CHECK(pthread_attr_setstacksize(&attributes, 24 * KIB) == 0);
    pthread_t thread;
    CHECK(pthread_create(&thread, &attributes, in_thread, 0) == 0);
    pthread_join(thread, 0);
  } else if (strcmp(mode, "signal") == 0) {
    with_signal();
  } else if (strcmp(mode, "jit") == 0) {
    with_code(framed, sizeof framed);
  } else if (strcmp(mode, "bare") == 0) {
    with_code(bare, sizeof bare);
  } else if (strcmp(mode, "closed") == 0) {
    for (int i = 3; i < 1024; i++) close(i);
    CHECK(chdir("/") == 0);
    free_twice();
  } else if (strcmp(mode, "forked") == 0) {
    in_child();
  } else if (strcmp(mode, "fault") == 0 || strcmp(mode, "wild") == 0) {
    void *block = allocate_9(40), *volatile again = block;
    release_9(block);
    volatile int result = 0;
    if (mode[0] == 'f') result = reach(again);
    else call(again);
    return result;
  } else {
    CHECK(0, "unknown mode %s", mode);
  }
  puts("ok");
  return 0;
}
