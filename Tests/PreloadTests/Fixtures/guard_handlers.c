// guard_handlers.c: programs with handlers of their own for SIGSEGV, which stay in force
// with guard pages: `guard_handlers CASE`. A fault of a guard page is told in a report
// and then reaches the handler as the kernel would have brought it.
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>

#include "fixture.h"

static __thread sigjmp_buf place;
static __thread char *expected;
static volatile sig_atomic_t calls;
static char *alternate;
static size_t alternate_size;

__attribute__((noinline)) static int read_freed(void) {
  volatile char *block = hide(malloc(100));
  free((void *)block);
  expected = (char *)block + 50;
  return block[50];
}

static int is_blocked(int number) {
  sigset_t mask;
  pthread_sigmask(SIG_BLOCK, NULL, &mask);
  return sigismember(&mask, number);
}

static int is_on_alternate(void) {
  char here;
  return alternate && &here >= alternate && &here < alternate + alternate_size;
}

static void check_mask(void) {
  CHECK(is_blocked(SIGSEGV), "the signal itself");
  CHECK(is_blocked(SIGUSR1), "sa_mask");
  CHECK(!is_blocked(SIGUSR2), "a signal nobody asked for");
}

static void jump_with_info(int number, siginfo_t *info, void *context) {
  ucontext_t *machine = context;
  CHECK(number == SIGSEGV && info->si_code > 0, "%d", info->si_code);
  CHECK(info->si_addr == expected, "%p, not %p", info->si_addr, (void *)expected);
  CHECK(machine->uc_mcontext.gregs[REG_RIP] != 0, "no context");
  check_mask();
  calls++;
  siglongjmp(place, 1);
}
static void jump(int number) {
  CHECK(number == SIGSEGV, "%d", number);
  calls++;
  siglongjmp(place, 1);
}
static void jump_on_alternate(int number) {
  CHECK(is_on_alternate(), "not on the alternate stack");
  jump(number);
}
static void jump_on_plain(int number) {
  CHECK(!is_on_alternate(), "on the alternate stack");
  jump(number);
}
static void count_call(int number) {
  (void)number;
  calls++;
}

static void install(void (*handler)(int), int flags) {
  struct sigaction action = {.sa_handler = handler, .sa_flags = flags}, now;
  sigemptyset(&action.sa_mask);
  sigaddset(&action.sa_mask, SIGUSR1);
  CHECK(sigaction(SIGSEGV, &action, NULL) == 0, "sigaction");
  CHECK(sigaction(SIGSEGV, NULL, &now) == 0, "sigaction");
  // Bit 26 is the C library's own (SA_RESTORER).
  CHECK(now.sa_handler == handler && (now.sa_flags & ~(1 << 26)) == flags, "what was installed");
  CHECK(sigismember(&now.sa_mask, SIGUSR1) && !sigismember(&now.sa_mask, SIGUSR2), "its mask");
}

static void fault_and_return(void) {
  if (sigsetjmp(place, 1) == 0) {
    read_freed();
    CHECK(0, "no fault");
  }
  CHECK(!is_blocked(SIGSEGV) && !is_blocked(SIGUSR1), "the mask is back");
}

static void use_alternate_stack(size_t size) {
  alternate_size = size;
  alternate = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  stack_t stack = {.ss_sp = alternate, .ss_size = size};
  CHECK(alternate != MAP_FAILED && sigaltstack(&stack, NULL) == 0, "sigaltstack");
}

// A thread with handler and alternate stack runs out of its own.
__attribute__((noinline)) static int recurse(int depth) {
  volatile char room[1024];
  room[depth % 1024] = 1;
  return depth < 100000 ? recurse(depth + 1) + room[5] : 0;
}
static void *overflow_stack(void *unused) {
  use_alternate_stack(64 * KIB);
  if (sigsetjmp(place, 1) == 0) recurse(0);
  return unused;
}

static char *own_page;
static void open_own_page(int number, siginfo_t *info, void *context) {
  (void)number, (void)context;
  CHECK(info->si_addr == own_page + 8, "%p", info->si_addr);
  mprotect(own_page, 4096, PROT_READ | PROT_WRITE);
  calls++;
}

static void fault_in_handler(int number) {
  if (++calls == 1) {
    sigjmp_buf outer;
    memcpy(outer, place, sizeof outer);
    if (sigsetjmp(place, 1) == 0) read_freed();
    memcpy(place, outer, sizeof outer);
  }
  CHECK(number == SIGSEGV, "%d", number);
  siglongjmp(place, 1);
}

static void *work(void *argument) {
  uint64_t state = (uintptr_t)argument;
  char *blocks[64] = {0};
  size_t sizes[64] = {0};
  for (unsigned i = 0; i < 3000; i++) {
    unsigned k = random_next(&state) % 64;
    if (blocks[k]) CHECK(is_marked(blocks[k], sizes[k], k), "contents");
    free(blocks[k]);
    sizes[k] = random_size(&state, 20000);
    blocks[k] = malloc(sizes[k]);
    mark(blocks[k], sizes[k], k);
    if (i % 100 == 0) fault_and_return();
  }
  for (int k = 0; k < 64; k++) free(blocks[k]);
  return NULL;
}

int main(int count, char **arguments) {
  CHECK(count == 2, "one argument");
  const char *name = arguments[1];
  if (strcmp(name, "sigaction") == 0) {
    struct sigaction action = {.sa_sigaction = jump_with_info, .sa_flags = SA_SIGINFO};
    sigaddset(&action.sa_mask, SIGUSR1);
    CHECK(sigaction(SIGSEGV, &action, NULL) == 0, "sigaction");
    fault_and_return();
    fault_and_return();
    CHECK(calls == 2, "%d calls", calls);
  } else if (strcmp(name, "signal") == 0) {
    CHECK(signal(SIGSEGV, jump) == SIG_DFL, "the default was in force");
    CHECK(signal(SIGSEGV, jump) == jump, "and now this");
    fault_and_return();
    CHECK(calls == 1, "%d calls", calls);
  } else if (strcmp(name, "alternate") == 0) {
    use_alternate_stack(8 * KIB);
    install(jump_on_alternate, SA_ONSTACK);
    fault_and_return();
    install(jump_on_plain, 0);
    fault_and_return();
    CHECK(calls == 2, "%d calls", calls);
  } else if (strcmp(name, "overflow") == 0) {
    install(jump, SA_ONSTACK);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, overflow_stack, NULL) == 0, "no thread");
    pthread_join(thread, NULL);
    CHECK(calls == 1, "%d calls", calls);
  } else if (strcmp(name, "own-page") == 0) {
    own_page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct sigaction action = {.sa_sigaction = open_own_page, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGSEGV, &action, NULL) == 0, "sigaction");
    own_page[8] = 1;
    CHECK(calls == 1 && own_page[8] == 1, "%d calls", calls);
  } else if (strcmp(name, "once") == 0) {
    install(jump, SA_RESETHAND);
    fault_and_return();
    struct sigaction now;
    CHECK(sigaction(SIGSEGV, NULL, &now) == 0 && now.sa_handler == SIG_DFL, "it stays");
    ok();
    read_freed();
  } else if (strcmp(name, "nested") == 0) {
    install(fault_in_handler, SA_NODEFER);
    fault_and_return();
    CHECK(calls == 2, "%d calls", calls);
  } else if (strcmp(name, "sent") == 0) {
    install(count_call, 0);
    raise(SIGSEGV);
    CHECK(calls == 1, "%d calls", calls);
    CHECK(signal(SIGSEGV, SIG_IGN) == count_call, "the handler was in force");
    raise(SIGSEGV);
    CHECK(calls == 1, "%d calls", calls);
  } else if (strcmp(name, "sent-default") == 0) {
    raise(SIGSEGV);
  } else if (strcmp(name, "fork") == 0) {
    char *held = malloc(77);
    mark(held, 77, 3);
    install(jump, 0);
    pid_t child = fork();
    if (child == 0) {
      CHECK(is_marked(held, 77, 3), "the parent's block");
      free(held);
      work((void *)9);
      return 0;
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child, "waitpid");
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 99, "%x", status);
    CHECK(is_marked(held, 77, 3), "its own block");
    free(held);
  } else if (strcmp(name, "vfork") == 0) {
    install(jump, 0);
    pid_t child = vfork();
    if (child == 0) {
      struct sigaction action = {.sa_handler = SIG_DFL};
      sigaction(SIGSEGV, &action, NULL);
      _exit(0);
    }
    CHECK(child > 0 && waitpid(child, NULL, 0) == child, "vfork");
    fault_and_return();
    CHECK(calls == 1, "%d calls", calls);
  } else if (strcmp(name, "threads") == 0) {
    install(jump, 0);
    pthread_t threads[4];
    for (uintptr_t i = 0; i < 4; i++)
      CHECK(pthread_create(&threads[i], NULL, work, (void *)(i + 1)) == 0, "no thread");
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    CHECK(calls == 120, "%d calls", calls);
  } else {
    CHECK(0, "no case %s", name);
  }
  return ok();
}
