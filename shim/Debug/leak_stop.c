// leak_stop.c: stops the other threads of the process for the leak check.
//
//   checker                         thread
//   list, signal each ───────────▶  handler: saves registers, says "stopped",
//   wait for all                    sleeps on a futex
//   … scans …
//   wake ────────────────────────▶  repairs an interrupted system call, returns
//
// The signal is 33, which the C library keeps for itself: its sigprocmask never
// blocks it. It is told apart from the C library's own use (setuid in a threaded
// process) by the table below, and whatever is not ours is handed on. Nothing here
// calls the C library, takes a lock, or needs ptrace or clone.
#define _GNU_SOURCE
#include "leak.h"

#include <errno.h>
#include <signal.h>
#include <ucontext.h>

#include "leak_files.h"

enum { STOP_SIGNAL = 33, MAGIC = 0x6b6567 };
enum {
  SYS_rt_sigaction = 13,
  SYS_rt_sigreturn = 15,
  SYS_tgkill = 234,
  SYS_rt_tgsigqueueinfo = 297,
};

// As the kernel has it (rt_sigaction(2)).
struct kernel_action {
  void (*handler)(int, siginfo_t *, void *);
  unsigned long flags;
  void (*restorer)(void);
  unsigned long mask;
};

static struct {
  struct keg_leak_thread *table;
  long capacity;
  long count;        // entries of the table
  long found;        // threads seen; more than entries when the table is full
  uint32_t stopped;  // futex: counts the threads that have stopped
  uint32_t release;  // futex: 0 while they shall sleep
  uint32_t inside;   // threads in the handler
} stop;
static struct kernel_action before;
static bool installed;

static long futex(uint32_t *word, int operation, uint32_t value, long nanoseconds) {
  struct {
    long seconds, nanoseconds;
  } time = {0, nanoseconds};
  return keg_syscall6(KEG_SYS_futex, (long)word, operation | 128 /* private */, value,
                      nanoseconds ? (long)&time : 0, 0, 0);
}

static int32_t own_tid(void) { return (int32_t)keg_syscall6(KEG_SYS_gettid, 0, 0, 0, 0, 0, 0); }
static int32_t own_pid(void) { return (int32_t)keg_syscall6(KEG_SYS_getpid, 0, 0, 0, 0, 0, 0); }

// ---- in the thread -------------------------------------------------------------

// Calls that return EINTR after a handler even with SA_RESTART (signal(7)), and may be
// made again with the same arguments.
static bool may_be_repeated(uint32_t number) {
  switch (number) {
    case 7: case 23: case 34: case 35: case 44: case 45: case 46: case 47: case 64: case 65:
    case 68: case 69: case 70: case 128: case 130: case 202: case 208: case 219: case 220:
    case 230: case 232: case 247: case 270: case 271: case 281: case 299: case 307: case 333:
    case 441: case 449:
      return true;
    default:
      return false;
  }
}

// Makes the thread repeat a system call that our signal ended with EINTR. The number is
// no longer in a register: it is in the instruction that loaded it, `mov $number, %eax`,
// a few bytes before. Where that is not found, the program sees EINTR.
static void repair(ucontext_t *context) {
  greg_t *registers = context->uc_mcontext.gregs;
  if (registers[REG_RAX] != -EINTR) return;
  const uint8_t *next = (const uint8_t *)registers[REG_RIP];
  if (next[-2] != 0x0f || next[-1] != 0x05) return;
  // What is before belongs to the same function; yet its page may be the first one.
  const uint8_t *first = next - 48;
  if (((uintptr_t)first ^ (uintptr_t)(next - 2)) >> 12 && !keg_is_readable((uintptr_t)first))
    first = (const uint8_t *)((uintptr_t)next & ~4095ul);
  for (const uint8_t *code = next - 7; code >= first; code--) {
    uint32_t number;
    __builtin_memcpy(&number, code + 1, 4);
    if (code[0] != 0xb8 || number > 600) continue;
    if (!may_be_repeated(number)) return;
    // A sleep goes on with the time that is left, where the program asked for it.
    if (number == 35 && registers[REG_RSI]) registers[REG_RDI] = registers[REG_RSI];
    if (number == 230 && registers[REG_R10] && !(registers[REG_RSI] & 1))
      registers[REG_RDX] = registers[REG_R10];
    registers[REG_RAX] = number;
    registers[REG_RIP] -= 2;
    return;
  }
}

static struct keg_leak_thread *find(int32_t tid) {
  for (long i = 0; i < stop.count; i++)
    if (stop.table[i].tid == tid) return &stop.table[i];
  return 0;
}

static void on_signal(int number, siginfo_t *info, void *context_pointer) {
  ucontext_t *context = context_pointer;
  __atomic_add_fetch(&stop.inside, 1, __ATOMIC_SEQ_CST);
  struct keg_leak_thread *self = stop.table ? find(own_tid()) : 0;
  uint32_t expected = KEG_LEAK_SIGNALLED;
  bool is_ours = info->si_code == SI_QUEUE && info->si_value.sival_int == MAGIC;
  if (self && (is_ours || info->si_code == SI_TKILL)) {
    greg_t *registers = context->uc_mcontext.gregs;
    for (int i = 0; i < 16; i++) self->registers[i] = (uintptr_t)registers[i];  // r8 … rsp
    self->stack_pointer = (uintptr_t)registers[REG_RSP];
    self->pc = (uintptr_t)registers[REG_RIP];
    self->thread_pointer = keg_thread_pointer();
    // There is one, and the thread was not on it.
    if ((context->uc_stack.ss_flags & (SS_ONSTACK | SS_DISABLE)) == 0) {
      self->idle_stack = (uintptr_t)context->uc_stack.ss_sp;
      self->idle_bytes = context->uc_stack.ss_size;
    }
    if (context->uc_mcontext.fpregs)
      __builtin_memcpy(self->vectors, context->uc_mcontext.fpregs->_xmm, sizeof self->vectors);
    if (__atomic_compare_exchange_n(&self->state, &expected, KEG_LEAK_STOPPED, false,
                                    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
      __atomic_add_fetch(&stop.stopped, 1, __ATOMIC_SEQ_CST);
      futex(&stop.stopped, 1 /* wake */, 1, 0);
      while (__atomic_load_n(&stop.release, __ATOMIC_SEQ_CST) == 0)
        futex(&stop.release, 0 /* wait */, 0, 0);
      repair(context);
      __atomic_sub_fetch(&stop.inside, 1, __ATOMIC_SEQ_CST);
      return;
    }
  }
  __atomic_sub_fetch(&stop.inside, 1, __ATOMIC_SEQ_CST);
  // A late one of ours, or the C library's own.
  if (!is_ours && (uintptr_t)before.handler > 1) before.handler(number, info, context_pointer);
}

__asm__(
    ".pushsection .text.keg_leak_return, \"ax\", @progbits\n"
    ".type keg_leak_return, @function\n"
    "keg_leak_return:\n"
    "  mov $15, %eax\n"
    "  syscall\n"
    ".popsection\n");
extern void keg_leak_return(void) KEG_HIDDEN;

// ---- the list of threads ---------------------------------------------------------

static void add(int32_t tid) {
  if (find(tid)) return;
  stop.found++;
  if (stop.count == stop.capacity) return;
  struct keg_leak_thread *thread = &stop.table[stop.count];
  __builtin_memset(thread, 0, sizeof *thread);
  thread->tid = tid;
  __atomic_add_fetch(&stop.count, 1, __ATOMIC_SEQ_CST);
}

// Adds the threads that are not in the table yet. False: there is no /proc, or one
// that does not know us.
static bool list_tasks(int32_t self, int32_t spared) {
  struct keg_names tasks = {.directory = keg_file_open(AT_FDCWD, "/proc/self/task", O_DIRECTORY)};
  if (tasks.directory < 0) return false;
  bool saw_self = false;
  const char *name;
  while ((name = keg_next_name(&tasks))) {
    if (name[0] < '1' || name[0] > '9') continue;
    int32_t tid = 0;
    for (const char *digit = name; *digit; digit++) tid = tid * 10 + (*digit - '0');
    if (tid == self)
      saw_self = true;
    else if (tid != spared)
      add(tid);
  }
  keg_file_close(tasks.directory);
  return saw_self;
}

// Without /proc: asks for every number a thread can have. 0.1 µs each.
extern char __libc_single_threaded __attribute__((weak));
static void guess_tasks(int32_t pid, int32_t self, int32_t spared) {
  if (&__libc_single_threaded && __libc_single_threaded) return;
  for (int32_t tid = 1; tid < 1 << 22; tid++)
    if (tid != self && tid != spared &&
        keg_syscall6(SYS_tgkill, pid, tid, 0, 0, 0, 0) == 0)
      add(tid);
}

// Whether a thread can be waited for: not one that blocks our signal or has ended.
static bool may_answer(int32_t tid, bool *ended) {
  char path[64] = "/proc/self/task/", text[2048], digits[12];
  int length = 16, count = 0;
  for (int32_t rest = tid; rest > 0; rest /= 10) digits[count++] = (char)('0' + rest % 10);
  while (count > 0) path[length++] = digits[--count];
  __builtin_memcpy(path + length, "/status", 8);
  long file = keg_file_open(AT_FDCWD, path, 0);
  if (file < 0) return true;
  long size = keg_file_read(file, text, sizeof text - 1);
  keg_file_close(file);
  text[size > 0 ? size : 0] = 0;
  const char *state = __builtin_strstr(text, "State:\t");
  if (state && (state[7] == 'Z' || state[7] == 'X')) *ended = true;
  const char *blocked = __builtin_strstr(text, "SigBlk:\t");
  if (!blocked) return true;
  uint64_t mask = 0;
  for (const char *digit = blocked + 8; *digit > ' '; digit++)
    mask = mask << 4 | (uint64_t)(*digit <= '9' ? *digit - '0' : *digit - 'a' + 10);
  return !*ended && !(mask >> (STOP_SIGNAL - 1) & 1);
}

// ---- the checker -------------------------------------------------------------------

static void signal_thread(int32_t pid, struct keg_leak_thread *thread) {
  thread->state = KEG_LEAK_SIGNALLED;
  siginfo_t info = {0};
  info.si_signo = STOP_SIGNAL;
  info.si_code = SI_QUEUE;
  info.si_pid = pid;
  info.si_value.sival_int = MAGIC;
  long result = keg_syscall6(SYS_rt_tgsigqueueinfo, pid, thread->tid, STOP_SIGNAL, (long)&info,
                             0, 0);
  if (result != 0 && result != -ESRCH)
    result = keg_syscall6(SYS_tgkill, pid, thread->tid, STOP_SIGNAL, 0, 0, 0);
  if (result != 0) thread->state = result == -ESRCH ? KEG_LEAK_ENDED : KEG_LEAK_DEFIANT;
}

static long count_waiting(long known) {
  long waiting = 0;
  for (long i = 0; i < known; i++)
    if (__atomic_load_n(&stop.table[i].state, __ATOMIC_SEQ_CST) == KEG_LEAK_SIGNALLED) waiting++;
  return waiting;
}

// Waits until every signalled thread has stopped or is known not to. Threads get two
// seconds, counted from the last one that stopped; a third of one when they block all
// signals: every thread does for a moment when it begins and when it ends.
static void wait_for_all(long known) {
  long quiet = 0, waiting = count_waiting(known);
  while (waiting > 0 && quiet < 200) {
    uint32_t seen = __atomic_load_n(&stop.stopped, __ATOMIC_SEQ_CST);
    if (count_waiting(known) == waiting) futex(&stop.stopped, 0, seen, 10000000);
    long now = count_waiting(known);
    quiet = now < waiting ? 0 : quiet + 1;
    waiting = now;
    if (quiet != 5 && quiet != 33 && quiet != 100) continue;
    for (long i = 0; i < known; i++) {
      bool ended = false;
      uint32_t expected = KEG_LEAK_SIGNALLED;
      if (stop.table[i].state == KEG_LEAK_SIGNALLED &&
          !may_answer(stop.table[i].tid, &ended) && (ended || quiet != 5))
        __atomic_compare_exchange_n(&stop.table[i].state, &expected,
                                    ended ? KEG_LEAK_ENDED : KEG_LEAK_DEFIANT, false,
                                    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    waiting = count_waiting(known);
  }
  for (long i = 0; i < known; i++) {
    uint32_t expected = KEG_LEAK_SIGNALLED;
    __atomic_compare_exchange_n(&stop.table[i].state, &expected, KEG_LEAK_DEFIANT, false,
                                __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
  }
}

long keg_leak_stop(struct keg_leak_thread *table, long capacity, int32_t spared) {
  int32_t pid = own_pid(), self = own_tid();
  __atomic_store_n(&stop.release, 0, __ATOMIC_SEQ_CST);
  stop.stopped = 0;
  stop.count = 0;
  stop.capacity = capacity;
  __atomic_store_n(&stop.table, table, __ATOMIC_SEQ_CST);
  if (!installed) {
    struct kernel_action action = {on_signal,
                                   SA_SIGINFO | SA_RESTART | SA_ONSTACK | 0x04000000ul,
                                   keg_leak_return, KEG_ALL_SIGNALS};
    if (keg_syscall6(SYS_rt_sigaction, STOP_SIGNAL, (long)&action, (long)&before, 8, 0, 0) != 0)
      return -1;
    installed = true;
  }
  // A thread may start another before it stops: until a round finds no new one.
  long known = 0;
  while (true) {
    stop.found = stop.count;
    if (!list_tasks(self, spared)) guess_tasks(pid, self, spared);
    if (stop.found > capacity || stop.count == known) break;
    for (long i = known; i < stop.count; i++) signal_thread(pid, &stop.table[i]);
    known = stop.count;
    wait_for_all(known);
  }
  long found = stop.found;
  if (found > capacity) keg_leak_resume();
  return found;
}

void keg_leak_resume(void) {
  bool some_run_on = false;
  for (long i = 0; i < stop.count; i++) {
    // Who has not stopped by now shall not.
    uint32_t expected = KEG_LEAK_SIGNALLED;
    __atomic_compare_exchange_n(&stop.table[i].state, &expected, KEG_LEAK_DEFIANT, false,
                                __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    if (stop.table[i].state == KEG_LEAK_DEFIANT) some_run_on = true;
  }
  __atomic_store_n(&stop.release, 1, __ATOMIC_SEQ_CST);
  futex(&stop.release, 1, 0x7fffffff, 0);
  // The table goes when the last of them has left it.
  for (int i = 0; i < 100000 && __atomic_load_n(&stop.inside, __ATOMIC_SEQ_CST) != 0; i++) {
    struct {
      long seconds, nanoseconds;
    } time = {0, 20000};
    uint32_t nothing = 0;
    keg_syscall6(KEG_SYS_futex, (long)&nothing, 128, 0, (long)&time, 0, 0);
  }
  __atomic_store_n(&stop.table, 0, __ATOMIC_SEQ_CST);
  // A signal that is still pending must not meet the default action, which kills.
  if (some_run_on && (uintptr_t)before.handler <= 1) return;
  keg_syscall6(SYS_rt_sigaction, STOP_SIGNAL, (long)&before, 0, 8, 0, 0);
  installed = false;
}

static struct keg_leak_thread *room;
static long room_capacity;

struct keg_leak_thread *keg_leak_room(long capacity, long *bytes) {
  if (capacity > room_capacity) {
    // The old table stays: a late handler may still look at it.
    long size = (capacity * (long)sizeof *room + 4095) & ~4095l;
    long mapped = keg_syscall6(KEG_SYS_mmap, 0, size, 3, 0x22, -1, 0);
    if (mapped < 0 && mapped >= -4095) return 0;
    room = (struct keg_leak_thread *)mapped;
    room_capacity = capacity;
  }
  *bytes = (room_capacity * (long)sizeof *room + 4095) & ~4095l;
  return room;
}
