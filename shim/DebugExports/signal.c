// signal.c: sigaction and signal, so that the handler for SIGSEGV stays ours: what the
// program installs is kept, reported back to it, and called for every fault once ours
// has had its look.
//
//   fault ─▶ on_fault, all signals blocked ─▶ look, on a stack of our own
//                     │                       (the program's may be 2 KiB, or full)
//                     ▼
//   the program's handler, its mask, its stack: the kernel's flags follow its flags
//
// The kernel puts SIGSEGV on the alternate stack only if the program's handler asked
// for that. Faults of guard pages are SIGSEGV on every kernel. An address that cannot be,
// in %rbp or %rsp, is SIGBUS.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "closed.h"
#include "debug.h"
#include "fault_stack.h"
#include "platform.h"

// The C library's own, under the names that it keeps for itself.
extern int __sigaction(int, const struct sigaction *, struct sigaction *);
extern sighandler_t ssignal(int, sighandler_t);

// Sources/Debug/Fault.swift
extern bool keg_debug_is_ours(uintptr_t address) KEG_DEBUG_HIDDEN;
extern uintptr_t keg_debug_usable_end(uintptr_t address) KEG_DEBUG_HIDDEN;
extern bool keg_debug_fault(uintptr_t address, int is_write, void *context) KEG_DEBUG_HIDDEN;
// Sources/Debug/Closed.swift
extern void keg_debug_at_bad_stream(void *context) KEG_DEBUG_HIDDEN;
// Sources/Debug/Ending.swift
extern void keg_debug_at_abort(void) KEG_DEBUG_HIDDEN;

static bool has_faults;
// The process whose faults they are.
static long owner;
// What the program wants done at SIGSEGV. Read by handlers of any thread, so it is
// written under a lock that they do not take, with a count that is odd meanwhile.
static struct sigaction program_action;
static unsigned int changes;
static pthread_mutex_t change_lock = PTHREAD_MUTEX_INITIALIZER;

static struct sigaction read_action(void) {
  for (;;) {
    unsigned int before = __atomic_load_n(&changes, __ATOMIC_ACQUIRE);
    struct sigaction action = program_action;
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    // A handler over the change itself cannot wait for its end.
    if (before % 2 == 0 && __atomic_load_n(&changes, __ATOMIC_RELAXED) == before) return action;
    if (before % 2 == 1) return action;
  }
}

static void write_action(const struct sigaction *action) {
  __atomic_fetch_add(&changes, 1, __ATOMIC_ACQ_REL);
  program_action = *action;
  __atomic_fetch_add(&changes, 1, __ATOMIC_ACQ_REL);
}

static bool is_default(const struct sigaction *action) {
  return !(action->sa_flags & SA_SIGINFO) && action->sa_handler == SIG_DFL;
}

static bool is_ignored(const struct sigaction *action) {
  return !(action->sa_flags & SA_SIGINFO) && action->sa_handler == SIG_IGN;
}

bool keg_debug_ends_by_fault(void) {
  struct sigaction action = read_action();
  return is_default(&action) || is_ignored(&action);
}

// ---- pointers that were read from freed memory -------------------------------------

// 64 bits of 0xdeadc0de, or 32 as an index: near them lie elements.
static bool is_trash(uintptr_t word) {
  if (keg_debug_is_trash_pointer(word)) return true;
  uintptr_t high = word >> 32;
  return (high == 0 || high == 0xffffffff) && (uint32_t)word - 0xdeadc0deu + 0x100 < 0x200;
}

// Where a call or a jump through memory would have gone, such as that of a virtual
// function: no register has it. 0: it is another instruction.
static uintptr_t called_through(const greg_t *registers) {
  static const uint8_t order[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                  REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                  REG_R12, REG_R13, REG_R14, REG_R15};
  const uint8_t *code = (const uint8_t *)registers[REG_RIP];
  if (!keg_is_readable((uintptr_t)code) || !keg_is_readable((uintptr_t)code + 7)) return 0;
  int extended = 0;
  if ((code[0] & 0xf0) == 0x40) extended = (*code++ & 1) << 3;
  int mode = code[1] >> 6, operation = code[1] >> 3 & 7, base = code[1] & 7;
  // ff /2 is call, ff /4 is jmp; 4 and 5 are other kinds of operands.
  if (code[0] != 0xff || (operation != 2 && operation != 4) || mode == 3 || base == 4 ||
      (mode == 0 && base == 5))
    return 0;
  int32_t distance = 0;
  if (mode == 1) distance = (int8_t)code[2];
  if (mode == 2) memcpy(&distance, code + 2, sizeof distance);
  uintptr_t place = (uintptr_t)registers[order[base | extended]] + (uintptr_t)(intptr_t)distance;
  if (!keg_is_readable(place) || !keg_is_readable(place + 7)) return 0;
  uintptr_t target;
  memcpy(&target, (const void *)place, sizeof target);
  return target;
}

uintptr_t keg_debug_trash_in(uintptr_t address, const void *context) {
  // 0 is what the kernel says of addresses that there cannot be; other small ones are null
  // pointers, whatever else registers hold.
  if (address != 0 && address < 0x10000) return 0;
  const greg_t *registers = ((const ucontext_t *)context)->uc_mcontext.gregs;
  for (int i = 0; i <= REG_RIP; i++)
    if (is_trash((uintptr_t)registers[i])) return (uintptr_t)registers[i];
  if (is_trash(address)) return address;
  uintptr_t target = address == 0 ? called_through(registers) : 0;
  return is_trash(target) ? target : 0;
}

// ---- faults ---------------------------------------------------------------------------

static const uint64_t all_but_faults = KEG_ALL_SIGNALS & ~((uint64_t)1 << (SIGSEGV - 1));

static void set_all_signals(sigset_t *mask) {
  sigfillset(mask);
  sigdelset(mask, SIGSYS);
}

// False in a child of vfork, and in one that the fork handlers do not know yet.
static bool is_own_process(void) {
  return keg_syscall6(KEG_SYS_getpid, 0, 0, 0, 0, 0, 0) == owner;
}

static void set_mask(const uint64_t *mask) {
  keg_syscall6(14 /* rt_sigprocmask */, SIG_SETMASK, (long)mask, 0, sizeof *mask, 0, 0);
}

// The default action: taken by the faulting instruction, which runs again, or by the
// signal, which is sent again when somebody had sent it.
static void take_default(int number, const siginfo_t *info) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = SIG_DFL;
  __sigaction(number, &action, NULL);
  if (info->si_code <= 0) {
    long pid = keg_syscall6(KEG_SYS_getpid, 0, 0, 0, 0, 0, 0);
    long tid = keg_syscall6(KEG_SYS_gettid, 0, 0, 0, 0, 0, 0);
    keg_syscall6(234 /* tgkill */, pid, tid, number, 0, 0, 0);
  }
}

static void on_fault(int number, siginfo_t *info, void *context) {
  int saved = errno;
  ucontext_t *machine = context;
  bool is_sent = info->si_code <= 0;
  uintptr_t address = (uintptr_t)info->si_addr;
  // Bit 1 of the page fault's error code: a write.
  bool is_write = (machine->uc_mcontext.gregs[REG_ERR] & 2) != 0;
  bool is_aligned = false;
  struct keg_aligned_move move;
  if (info->si_code == SI_KERNEL && keg_debug_decode_aligned(context, &move)) {
    is_aligned = true;
    uintptr_t end = keg_debug_usable_end(move.address);
    if (end >= move.address + 16) {
      keg_debug_do_aligned(context, &move);
      errno = saved;
      return;
    }
    address = end > move.address ? end : move.address;
    is_write = move.is_store;
  } else if (info->si_code == SI_KERNEL) {
    address = 0;
  }
  // The last fault of a process is the last moment for a check. A child that the fork
  // handlers do not know yet has nothing to look at, and may find the stack taken.
  if (!is_sent && is_own_process() &&
      (keg_debug_is_ours(address) || keg_debug_trash_in(address, context) ||
       keg_debug_ends_by_fault())) {
    bool goes_on = false;
    if (keg_fault_stack_lock()) {
      // A fault of the look itself comes here too, and is said.
      set_mask(&all_but_faults);
      goes_on = keg_look(address, is_write, context, keg_debug_fault);
      if (goes_on && is_aligned && !keg_is_readable(move.address + 15))
        goes_on = keg_look(move.address + 15, is_write, context, keg_debug_fault);
      keg_fault_stack_unlock();
    } else {
      keg_say_that_nobody_looks(address);
      // The fault of a look is nothing for the program's handler.
      if (keg_is_on_fault_stack((uintptr_t)machine->uc_mcontext.gregs[REG_RSP]))
        return take_default(number, info);
    }
    if (goes_on) {
      if (is_aligned) keg_debug_do_aligned(context, &move);
      errno = saved;
      return;
    }
  }
  struct sigaction action = read_action();
  errno = saved;
  if (is_ignored(&action) && is_sent) return;
  if (is_default(&action) || is_ignored(&action)) {
    take_default(number, info);
    return;
  }
  if (action.sa_flags & (int)SA_RESETHAND) {
    struct sigaction reset;
    memset(&reset, 0, sizeof reset);
    reset.sa_handler = SIG_DFL;
    write_action(&reset);
  }
  // As the kernel does it: the mask of the interrupted code, and what the program added.
  uint64_t mask, added;
  memcpy(&mask, &machine->uc_sigmask, sizeof mask);
  memcpy(&added, &action.sa_mask, sizeof added);
  mask |= added;
  if (!(action.sa_flags & SA_NODEFER)) mask |= (uint64_t)1 << (number - 1);
  set_mask(&mask);
  if (action.sa_flags & SA_SIGINFO)
    action.sa_sigaction(number, info, context);
  else
    action.sa_handler(number);
}

// ---- other signals by which a program ends itself -------------------------------------

// A failed assert, a smashed stack, a trap, a division by zero: the last moment for a check.
// Unlike SIGSEGV the program takes these over whole; where it wants the default, ours is.
static bool is_death(int number) {
  return has_faults &&
         (number == SIGABRT || number == SIGILL || number == SIGFPE || number == SIGBUS);
}

static bool look_at_the_end(uintptr_t number, int is_stack_fault, void *context) {
  // The kernel does not know the address of a stack fault, which %rbp out of freed memory makes.
  if (is_stack_fault) keg_debug_fault(0, 0, context);
  if (number == SIGABRT && keg_is_bad_stream()) keg_debug_at_bad_stream(context);
  keg_debug_at_abort();
  return false;
}

static void on_death(int number, siginfo_t *info, void *context) {
  bool is_stack_fault = number == SIGBUS && info->si_code == SI_KERNEL;
  if (is_own_process() && keg_fault_stack_lock()) {
    set_mask(&all_but_faults);
    keg_look(number, is_stack_fault, context, look_at_the_end);
    keg_fault_stack_unlock();
  }
  take_default(number, info);
}

static int change_death(int number, const struct sigaction *action, struct sigaction *old) {
  struct sigaction copy;
  if (action) copy = *action;
  if (action && is_default(action)) {
    copy.sa_sigaction = on_death;
    copy.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    set_all_signals(&copy.sa_mask);
  }
  int result = __sigaction(number, action ? &copy : NULL, old);
  if (result == 0 && old && old->sa_sigaction == on_death) memset(old, 0, sizeof *old);
  return result;
}

static void take_deaths(void) {
  static const int numbers[] = {SIGABRT, SIGILL, SIGFPE, SIGBUS};
  for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    struct sigaction action;
    // What is ignored from the start stays so.
    if (__sigaction(numbers[i], NULL, &action) == 0 && is_default(&action))
      change_death(numbers[i], &action, NULL);
  }
}

// ---- what the program installs --------------------------------------------------------

// Ours in the kernel, on the stack that the program's handler wants.
static bool install(const struct sigaction *program) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = on_fault;
  bool has_handler = !is_default(program) && !is_ignored(program);
  action.sa_flags = SA_SIGINFO;
  action.sa_flags |= has_handler ? program->sa_flags & (SA_ONSTACK | SA_RESTART) : SA_ONSTACK | SA_RESTART;
  set_all_signals(&action.sa_mask);
  return __sigaction(SIGSEGV, &action, NULL) == 0;
}

void keg_debug_take_faults(void) {
  __sigaction(SIGSEGV, NULL, &program_action);
  // What a program ignores from its start its children shall ignore.
  if (is_ignored(&program_action)) return;
  owner = keg_syscall6(KEG_SYS_getpid, 0, 0, 0, 0, 0, 0);
  has_faults = install(&program_action);
  take_deaths();
}

void keg_debug_fork_faults(int where) {
  if (where == KEG_FORK_PREPARE) {
    keg_fault_stack_lock();
    pthread_mutex_lock(&change_lock);
  } else if (where == KEG_FORK_PARENT) {
    pthread_mutex_unlock(&change_lock);
    keg_fault_stack_unlock();
  } else {
    pthread_mutex_init(&change_lock, NULL);
    keg_fault_stack_unlock();
    owner = keg_syscall6(KEG_SYS_getpid, 0, 0, 0, 0, 0, 0);
  }
}

static int change(const struct sigaction *action, struct sigaction *old) {
  // A child of vfork has signal actions of its own, but its parent's memory.
  if (!is_own_process()) {
    struct sigaction before = read_action();
    int result = action ? __sigaction(SIGSEGV, action, NULL) : 0;
    if (result == 0 && old) *old = before;
    return result;
  }
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_mutex_lock(&change_lock);
  if (old) *old = program_action;
  if (action) {
    write_action(action);
    install(action);
  }
  pthread_mutex_unlock(&change_lock);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return 0;
}

int sigaction(int number, const struct sigaction *action, struct sigaction *old) {
  if (is_death(number)) return change_death(number, action, old);
  if (number != SIGSEGV || !has_faults) return __sigaction(number, action, old);
  // The program may pass the same memory twice.
  struct sigaction copy;
  if (action) copy = *action;
  return change(action ? &copy : NULL, old);
}

static sighandler_t set_handler(sighandler_t handler, int flags) {
  struct sigaction action, old;
  memset(&action, 0, sizeof action);
  action.sa_handler = handler;
  action.sa_flags = flags;
  change(&action, &old);
  return old.sa_handler;
}

sighandler_t signal(int number, sighandler_t handler) {
  if (is_death(number) && handler != SIG_ERR) {
    struct sigaction action, old;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    sigaddset(&action.sa_mask, number);
    return change_death(number, &action, &old) == 0 ? old.sa_handler : SIG_ERR;
  }
  if (number != SIGSEGV || !has_faults || handler == SIG_ERR) return ssignal(number, handler);
  return set_handler(handler, SA_RESTART);
}

// Its other names in the C library.
sighandler_t bsd_signal(int number, sighandler_t handler) { return signal(number, handler); }

// What `signal` is in a strict C or POSIX build: the handler serves once.
sighandler_t __sysv_signal(int number, sighandler_t handler) {
  struct sigaction action, old;
  if (number == SIGSEGV && has_faults) return set_handler(handler, SA_RESETHAND | SA_NODEFER);
  memset(&action, 0, sizeof action);
  action.sa_handler = handler;
  action.sa_flags = (int)(SA_RESETHAND | SA_NODEFER);
  return sigaction(number, &action, &old) == 0 ? old.sa_handler : SIG_ERR;
}

sighandler_t sysv_signal(int number, sighandler_t handler) {
  return __sysv_signal(number, handler);
}
