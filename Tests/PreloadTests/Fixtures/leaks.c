// leaks.c: one way to lose or to keep memory per argument. The verdicts, to the byte,
// are in LeakTests.swift. Nothing here frees what it is about.
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>

#include "fixture.h"

#define APART __attribute__((noinline))

extern long keg_leak_check(void) __attribute__((weak));
extern int keg_leak_mark(void) __attribute__((weak));
extern int keg_leak_request(const char *) __attribute__((weak));

void *volatile global, *volatile second;
static __thread void *local;

// Allocates and forgets, and leaves no copy of the pointer on the stack above it.
APART static void lose(size_t size) {
  void *volatile block = malloc(size);
  block = NULL;
  (void)block;
}

static void lost(void) {
  for (int i = 0; i < 3; i++) lose(40);
}

static void overwritten(void) {
  global = malloc(100);
  global = malloc(50);
}

struct node {
  struct node *next;
  void *text;
  char pad[16];
};

APART static struct node *make_list(int count) {
  struct node *head = NULL;
  for (int i = 0; i < count; i++) {
    struct node *node = calloc(1, sizeof *node);
    node->next = head;
    head = node;
  }
  return head;
}

static void list(void) { hide(make_list(10)); }

static void ring(void) {
  struct node *head = make_list(3), *last = head;
  for (struct node *node = head; node; node = node->next) {
    node->text = malloc(16);
    last = node;
  }
  last->next = head;
}

static void two_rings(void) {
  // One ring leads to another through an item that is on neither.
  struct node *first = make_list(2), *other = make_list(4), *between = make_list(1), *last;
  first->next->next = first;
  first->text = between;
  between->text = other;
  for (last = other; last->next; last = last->next) {}
  last->next = other;
}

static void self(void) {
  struct node *node = make_list(1);
  node->next = node;
}

static void tree(void) {
  struct node *head = make_list(1);
  head->text = make_list(5);
  head->next = make_list(2);
}

static void kept(void) {
  global = malloc(64);
  second = (char *)malloc(200) + 150;
}
static void past_end(void) { global = (char *)malloc(64) + 64; }

static void by_stack(void) {
  void *volatile here[8] = {0};
  here[3] = malloc(72);
  if (here[3]) exit(0);
}
static void by_returned_stack(void) {
  void *volatile here = malloc(72);
  (void)here;
}
static void by_register(void) {
  void *block = malloc(72);
  // exit does not return: rbx holds the pointer when it is called.
  __asm__ volatile(
      "mov %0, %%rbx\n mov $0, %0\n xor %%edi, %%edi\n xor %%eax, %%eax\n call *%1"
      : "+r"(block)
      : "r"(exit)
      : "rbx", "rdi", "memory");
}

// ---- threads ---------------------------------------------------------------------

static volatile int started;
static void *const NOTHING = NULL;

static pthread_t start(void *(*body)(void *), void *argument) {
  pthread_t thread;
  int before = started;
  CHECK(pthread_create(&thread, NULL, body, argument) == 0);
  while (started == before) usleep(1000);
  return thread;
}

static void *in_register(void *unused) {
  (void)unused;
  void *block = malloc(72);
  __asm__ volatile(
      "mov %0, %%r13\n xor %0, %0\n xor %%eax, %%eax\n movl $1, started(%%rip)\n"
      "1: pause\n jmp 1b"
      : "+r"(block)
      :
      : "r13", "rax", "memory");
  return NULL;
}
static void *in_vector(void *unused) {
  (void)unused;
  void *block = malloc(72);
  __asm__ volatile(
      "movq %0, %%xmm9\n xor %0, %0\n xor %%eax, %%eax\n movl $1, started(%%rip)\n"
      "1: pause\n jmp 1b"
      : "+r"(block)
      :
      : "xmm9", "rax", "memory");
  return NULL;
}
static void *in_frame(void *unused) {
  (void)unused;
  void *volatile block = malloc(72);
  started++;
  while (block) pause();
  return NULL;
}
static void *in_local(void *unused) {
  (void)unused;
  local = malloc(72);
  started++;
  while (local) pause();
  return NULL;
}
static pthread_key_t keys[40];
static void *in_specific(void *unused) {
  (void)unused;
  for (int i = 0; i < 40; i++) CHECK(pthread_key_create(&keys[i], NULL) == 0);
  pthread_setspecific(keys[0], malloc(72));
  pthread_setspecific(keys[39], malloc(73));
  started++;
  while (started) pause();
  return NULL;
}
static void thread_register(void) { start(in_register, NULL); }
static void thread_vector(void) { start(in_vector, NULL); }
static void thread_frame(void) { start(in_frame, NULL); }
static void thread_local_(void) { start(in_local, NULL); }
static void thread_specific(void) { start(in_specific, NULL); }
static void main_local(void) { local = malloc(72); }
static void main_specific(void) {
  CHECK(pthread_key_create(&keys[0], NULL) == 0);
  pthread_setspecific(keys[0], malloc(72));
}

// Until the kernel knows that thread no more. One that is detached cannot be joined, and
// one whose result must stay in its descriptor may not be.
static volatile pid_t last_thread;
static void outlive_last_thread(void) {
  while (syscall(SYS_tgkill, getpid(), last_thread, 0) == 0) usleep(1000);
  CHECK(errno == ESRCH);
}

static void *ends(void *size) {
  void *volatile block = malloc((size_t)size);
  local = block;
  CHECK(pthread_key_create(&keys[0], NULL) == 0);
  pthread_setspecific(keys[0], block);
  last_thread = gettid();
  started++;
  return NOTHING;
}
static void ended(void) { pthread_join(start(ends, (void *)72), NULL); }
static void ended_detached(void) {
  pthread_detach(start(ends, (void *)72));
  outlive_last_thread();
}
static void *returns(void *unused) {
  (void)unused;
  last_thread = gettid();
  started++;
  return malloc(88);
}
static void result(void) {
  start(returns, NULL);
  outlive_last_thread();
}
static void argument_lost(void) { pthread_join(start(returns, malloc(24)), (void **)&global); }

static void *on_heap_stack(void *unused) {
  (void)unused;
  void *volatile block = malloc(72);
  local = malloc(73);
  started++;
  while (block) pause();
  return NULL;
}
static void heap_stack(void) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  void *stack = aligned_alloc(4096, 256 * KIB);
  CHECK(pthread_attr_setstack(&attributes, stack, 256 * KIB) == 0);
  pthread_t thread;
  CHECK(pthread_create(&thread, &attributes, on_heap_stack, NULL) == 0);
  while (started == 0) usleep(1000);
}

static void *churns(void *unused) {
  (void)unused;
  void *volatile blocks[64] = {0};
  uint64_t seed = 88172645463325252u;
  started++;
  while (started) {
    int i = (int)(random_next(&seed) % 64);
    free(blocks[i]);
    blocks[i] = malloc(random_size(&seed, 2000) + 1);
    if (i == 7) blocks[i] = realloc(blocks[i], random_size(&seed, 3000) + 1);
  }
  return NULL;
}
static void running(void) {
  for (int i = 0; i < 4; i++) start(churns, NULL);
  lose(40);
}

static void *defies(void *unused) {
  (void)unused;
  void *volatile block = malloc(72);
  uint64_t all = ~(uint64_t)0;
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, 8);
  started++;
  while (block) usleep(1000);
  return NULL;
}
static void defiant(void) {
  start(defies, NULL);
  lose(40);
}

static void *leaves(void *unused) {
  wait_for_end_of_first_thread();
  (void)unused;
  lose(40);
  exit(0);
}
static void main_left(void) {
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, leaves, NULL) == 0);
  void *volatile block = malloc(24);
  (void)block;
  pthread_exit(NULL);
}

// ---- other memory ------------------------------------------------------------------

static void mapped(void) {
  void **page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  page[100] = malloc(72);
}
static void mapped_shared(void) {
  void **page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  page[100] = malloc(72);
}
// Pages of every kind that were filled and then made read-only. Each holds a block.
static void *in_data[1024] __attribute__((aligned(4096))) = {(void *)1};
static void *in_bss[1024] __attribute__((aligned(4096)));
static void sealed(void) {
  int file = open("/proc/self/exe", O_RDONLY), memory = memfd_create("leaks", 0);
  CHECK(ftruncate(memory, 4096) == 0);
  void **pages[] = {
      in_data, in_bss, mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
      mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0),
      mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0)};
  for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
    CHECK(pages[i] != MAP_FAILED);
    pages[i][100] = malloc(72 << i % 4);
    CHECK(mprotect(pages[i], 4096, PROT_READ) == 0);
  }
}
static void mapped_large(void) {
  size_t size = (size_t)64 << 30;
  void **pages = mmap(NULL, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(pages != MAP_FAILED);
  pages[size / 16] = malloc(72);
  lose(40);
}
static void mapped_holes(void) {
  // A file that became shorter than its mapping, beside a page that nobody may read.
  int file = memfd_create("leaks", 0);
  CHECK(ftruncate(file, 16384) == 0);
  void **pages = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  pages[1] = malloc(72);
  CHECK(ftruncate(file, 4096) == 0);
  void *none = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(none != MAP_FAILED);
  lose(40);
}
static void unmapped(void) {
  void **page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  page[100] = malloc(72);
  munmap(page, 4096);
}
static void by_break(void) {
  void **block = sbrk(4096);
  block[10] = malloc(72);
}

static const char *library;
static void closed(void) {
  void *handle = dlopen(library, RTLD_NOW);
  CHECK(handle, "%s", dlerror());
  void (*keep)(size_t);
  *(void **)&keep = dlsym(handle, "keep");
  keep(72);
  dlclose(handle);
}
static void open_(void) {
  void *handle = dlopen(library, RTLD_NOW);
  CHECK(handle, "%s", dlerror());
  void (*keep)(size_t);
  *(void **)&keep = dlsym(handle, "keep");
  keep(72);
}
static void *(*keep_in_thread)(void *);
static void *in_dynamic_tls(void *size) {
  keep_in_thread(size);
  started++;
  while (size == (void *)72) pause();
  return NULL;
}
static void dynamic_tls_of(size_t size, bool joins) {
  void *handle = dlopen(library, RTLD_NOW);
  CHECK(handle, "%s", dlerror());
  *(void **)&keep_in_thread = dlsym(handle, "keep_in_thread");
  pthread_t thread = start(in_dynamic_tls, (void *)size);
  if (joins) pthread_join(thread, NULL);
}
static void dynamic_tls(void) { dynamic_tls_of(72, false); }
static void dynamic_tls_ended(void) { dynamic_tls_of(73, true); }

static void moved(void) {
  void *block = malloc(10);
  block = realloc(block, 200);
  hide(block);
}
static void nothing_asked(void) { lose(0); }
static void large(void) {
  lose(MIB);
  global = (char *)malloc(3 * MIB) + 2 * MIB;
}
static void aligned(void) {
  void *block;
  CHECK(posix_memalign(&block, 4096, 100) == 0);
  hide(block);
}
static void in_large(void) {
  // Held by the middle of a large block that was never touched elsewhere.
  void **block = calloc(1, 256 * MIB);
  block[16 * MIB] = malloc(72);
  global = block;
}
static void environment(void) {
  setenv("KEPT_BY_THE_C_LIBRARY", "some text", 1);
  char *text = malloc(32);
  strcpy(text, "ALSO_KEPT=1");
  putenv(text);
  FILE *file = fopen("/dev/null", "w");
  fputs("x", file);
  printf("%d\n", 1);
  freopen("/dev/null", "w", stdout);
}

// ---- processes -----------------------------------------------------------------------

static void in_child(void) {
  pid_t child = fork();
  if (child == 0) {
    lose(56);
    exit(0);
  }
  waitpid(child, NULL, 0);
}
static void child_of_threads(void) {
  start(in_frame, NULL);
  pid_t child = fork();
  if (child == 0) {
    lose(56);
    exit(0);
  }
  waitpid(child, NULL, 0);
}
static void child_execs(void) {
  lose(40);
  pid_t child = fork();
  if (child == 0) _exit(3);
  waitpid(child, NULL, 0);
  child = vfork();
  if (child == 0) _exit(3);
  waitpid(child, NULL, 0);
}
static void leaves_at_once(void) {
  lose(40);
  void *volatile block = malloc(72);
  (void)block;
  _exit(0);
}

static unsigned refusal = SECCOMP_RET_ERRNO | EPERM;

static void forbid(const int *calls, int count) {
  struct sock_filter filter[64];
  int n = 0;
  filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0);
  for (int i = 0; i < count; i++) {
    filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i], 0, 1);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, refusal);
  }
  filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  struct sock_fprog program = {(unsigned short)n, filter};
  CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0);
}
static void sandboxed(void) {
  start(in_frame, NULL);
  static const int calls[] = {SYS_ptrace, SYS_clone, SYS_clone3, SYS_fork, SYS_process_vm_readv,
                              SYS_rt_tgsigqueueinfo, SYS_rt_sigqueueinfo};
  forbid(calls, sizeof calls / sizeof *calls);
  lose(40);
}

// A sandbox that answers calls itself, as those of browsers do.
static void answer(int number, siginfo_t *info, void *context) {
  (void)number, (void)info;
  ((ucontext_t *)context)->uc_mcontext.gregs[REG_RAX] = -EPERM;
}
static void trapped(void) {
  static const int calls[] = {SYS_ptrace, SYS_clone,   SYS_clone3,    SYS_fork,     SYS_open,
                              SYS_openat, SYS_mincore, SYS_rt_tgsigqueueinfo};
  struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER};
  CHECK(sigaction(SIGSYS, &action, NULL) == 0);
  refusal = SECCOMP_RET_TRAP;
  forbid(calls, sizeof calls / sizeof *calls);
  CHECK(open("/", O_RDONLY) == -1 && errno == EPERM);
  lose(40);
}

static void sandboxed_request(void) {
  static const int calls[] = {SYS_clone, SYS_clone3, SYS_fork};
  forbid(calls, sizeof calls / sizeof *calls);
  CHECK(keg_leak_request(NULL) == 0);
  lose(40);
  free(malloc(10));
}

// Stacks for signals whose addresses the kernel keeps, of a thread that goes on and of one
// that has ended.
static void give_signal_stack(void) {
  stack_t stack = {.ss_sp = malloc(8192), .ss_size = 8192};
  CHECK(sigaltstack(&stack, NULL) == 0);
}
static void *in_signal_stack(void *waits) {
  give_signal_stack();
  if (waits) in_local(NULL);
  return NULL;
}
static void signal_stacks(void) {
  give_signal_stack();
  start(in_signal_stack, in_signal_stack);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, in_signal_stack, NULL) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
}

// What only an event has, of a file and of a timer.
static void events(void) {
  int set = epoll_create1(0), other = epoll_create1(0);
  for (int i = 0; i < 100; i++) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = malloc(72)};
    CHECK(epoll_ctl(i % 2 ? set : other, EPOLL_CTL_ADD, eventfd(0, 0), &event) == 0);
  }
  struct sigevent event = {.sigev_notify = SIGEV_NONE, .sigev_value.sival_ptr = malloc(88)};
  timer_t timer;
  CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
  lose(40);
}

static void without_proc(void) {
  start(in_frame, NULL);
  start(in_local, NULL);
  mapped();
  char directory[] = "/tmp/kegmalloc-leaks-XXXXXX";
  CHECK(mkdtemp(directory));
  CHECK(chroot(directory) == 0 && chdir("/") == 0);
  global = malloc(64);
  lose(40);
  ended();
}

// ---- on demand ------------------------------------------------------------------------

static void marked(void) {
  lose(10);
  CHECK(keg_leak_mark() == 0);
  lose(20);
  lose(20);
  global = malloc(30);
  CHECK(keg_leak_check() == 2);
  CHECK(keg_leak_mark() == 0);
  CHECK(keg_leak_check() == 0);
}

static char report[4096];
static const char *wait_for(const char *path, const char *what) {
  for (int i = 0; i < 20000; i++) {
    int file = open(path, O_RDONLY);
    ssize_t length = file < 0 ? 0 : read(file, report, sizeof report - 1);
    report[length > 0 ? length : 0] = 0;
    if (file >= 0) close(file);
    if (strstr(report, what)) return report;
    usleep(1000);
  }
  CHECK(0, "no %s in %s: %s", what, path, report);
  return NULL;
}

static const char *path;
static void requested(void) {
  void *volatile here = malloc(72);
  lose(40);
  unlink(path);
  CHECK(keg_leak_request(path) == 0);
  wait_for(path, "\"kind\":\"summary\"");
  CHECK(strstr(report, "\"leak\":\"definite\",\"bytes\":40,\"count\":1"), "%s", report);
  CHECK(strstr(report, "\"leaks\":1,\"leaked_bytes\":40"), "%s", report);
  CHECK(here);
}

static void signalled(void) {
  lose(40);
  kill(getpid(), SIGUSR1);
  wait_for(path, "leaks of process");
  CHECK(strstr(report, "definite 40 bytes in 1 block,"), "%s", report);
}

// Threads that wait in every kind of call that a handler would interrupt.
static sem_t semaphore;
static volatile int done;
static void *waits(void *number) {
  struct timespec short_time = {0, 700000000}, until;
  struct timeval same = {0, 700000};
  int result = 0, pipes[2];
  struct epoll_event event;
  sigset_t set;
  started++;
  switch ((size_t)number) {
    case 0: result = poll(NULL, 0, 700); break;
    case 1: result = ppoll(NULL, 0, &short_time, NULL); break;
    case 2: result = nanosleep(&short_time, NULL); break;
    case 3: result = usleep(700000); break;
    case 4: result = select(0, NULL, NULL, NULL, &same); break;
    case 5: result = pselect(0, NULL, NULL, NULL, &short_time, NULL); break;
    case 6: result = epoll_wait(epoll_create1(0), &event, 1, 700); break;
    case 7:
      clock_gettime(CLOCK_REALTIME, &until);
      until.tv_sec += 1;
      result = sem_timedwait(&semaphore, &until) == -1 && errno == ETIMEDOUT ? 0 : -1;
      break;
    case 8:
      sigemptyset(&set);
      sigaddset(&set, SIGUSR2);
      result = sigtimedwait(&set, NULL, &short_time) == -1 && errno == EAGAIN ? 0 : -1;
      break;
    case 9: {
      CHECK(pipe(pipes) == 0);
      struct pollfd descriptor = {pipes[0], POLLIN, 0};
      result = poll(&descriptor, 1, 700);
      break;
    }
    case 10: result = (int)clock_nanosleep(CLOCK_MONOTONIC, 0, &short_time, NULL); break;
    case 11: result = (int)sleep(1); break;
  }
  CHECK(result == 0, "call %zu: %d, errno %d", (size_t)number, result, errno);
  __atomic_add_fetch(&done, 1, __ATOMIC_SEQ_CST);
  return NULL;
}
static void interrupted(void) {
  sem_init(&semaphore, 0, 0);
  pthread_t threads[12];
  for (size_t i = 0; i < 12; i++) threads[i] = start(waits, (void *)i);
  for (int i = 0; i < 5; i++) {
    CHECK(keg_leak_check() == 0);
    usleep(20000);
  }
  for (int i = 0; i < 12; i++) pthread_join(threads[i], NULL);
  CHECK(done == 12);
}

// A stack that is not running holds what it holds.
static ucontext_t main_context, other_context;
static void on_other_stack(void) {
  void *volatile block = malloc(72);
  swapcontext(&other_context, &main_context);
  CHECK(block);
}
static void coroutine(void) {
  getcontext(&other_context);
  other_context.uc_stack.ss_sp =
      mmap(NULL, 64 * KIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  other_context.uc_stack.ss_size = 64 * KIB;
  other_context.uc_link = &main_context;
  makecontext(&other_context, on_other_stack, 0);
  swapcontext(&main_context, &other_context);
}

// Memory for the speed of the scan: `MIB` of nodes that point at each other.
static void many(void) {
  struct node *nodes = NULL;
  uint64_t seed = 88172645463325252u;
  size_t count = 1 << 20;
  struct node **table = malloc(count * sizeof *table);
  for (size_t i = 0; i < count; i++) {
    table[i] = calloc(1, 96);
    table[i]->next = nodes;
    nodes = table[i];
    table[i]->text = table[random_next(&seed) % (i + 1)];
  }
  memset(table, 0, count * sizeof *table);
  free(table);
  global = nodes;
}

static const struct {
  const char *name;
  void (*body)(void);
} scenarios[] = {
    {"nothing", main_local}, {"lost", lost}, {"overwritten", overwritten}, {"list", list},
    {"ring", ring}, {"two-rings", two_rings}, {"self", self}, {"tree", tree}, {"kept", kept},
    {"past-end", past_end}, {"stack", by_stack}, {"returned-stack", by_returned_stack},
    {"register", by_register}, {"thread-register", thread_register},
    {"thread-vector", thread_vector}, {"thread-frame", thread_frame},
    {"thread-local", thread_local_}, {"thread-specific", thread_specific},
    {"main-local", main_local}, {"main-specific", main_specific}, {"ended", ended},
    {"ended-detached", ended_detached}, {"result", result}, {"argument-lost", argument_lost},
    {"heap-stack", heap_stack}, {"running", running}, {"defiant", defiant},
    {"main-left", main_left}, {"mapped", mapped}, {"mapped-shared", mapped_shared},
    {"sealed", sealed}, {"mapped-large", mapped_large},
    {"mapped-holes", mapped_holes}, {"unmapped", unmapped},
    {"break", by_break}, {"closed", closed}, {"open", open_}, {"dynamic-tls", dynamic_tls},
    {"dynamic-tls-ended", dynamic_tls_ended}, {"moved", moved}, {"nothing-asked", nothing_asked},
    {"large", large}, {"aligned", aligned}, {"in-large", in_large},
    {"environment", environment}, {"child", in_child}, {"child-of-threads", child_of_threads},
    {"child-execs", child_execs}, {"leaves-at-once", leaves_at_once}, {"sandboxed", sandboxed}, {"trapped", trapped}, {"events", events},
    {"signal-stacks", signal_stacks},
    {"sandboxed-request", sandboxed_request}, {"without-proc", without_proc},
    {"marked", marked}, {"requested", requested}, {"signalled", signalled},
    {"interrupted", interrupted}, {"coroutine", coroutine}, {"many", many},
};

int main(int count, char **arguments) {
  CHECK(count >= 2);
  if (count > 2) library = path = arguments[2];
  for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++)
    if (strcmp(scenarios[i].name, arguments[1]) == 0) {
      scenarios[i].body();
      return 0;
    }
  CHECK(0, "no scenario %s", arguments[1]);
}
