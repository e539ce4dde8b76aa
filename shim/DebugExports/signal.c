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
// for that. Faults of guard pages are SIGSEGV on every kernel; SIGBUS is not touched.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>

#include "debug.h"
#include "platform.h"

// The C library's own, under the names that it keeps for itself.
extern int __sigaction(int, const struct sigaction *, struct sigaction *);
extern sighandler_t ssignal(int, sighandler_t);

// Sources/Debug/Fault.swift
extern bool keg_debug_is_guarded(uintptr_t address) KEG_DEBUG_HIDDEN;
extern uintptr_t keg_debug_usable_end(uintptr_t address) KEG_DEBUG_HIDDEN;
extern bool keg_debug_fault(uintptr_t address, int is_write, void *context) KEG_DEBUG_HIDDEN;

static bool has_faults;
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

// 64 bits of 0xdeadc0de, or 32 as an index: near them lie members and elements.
static bool is_trash(uintptr_t word) {
  if (word - 0xdeadc0dedeadc0de + 0x10000 < 0x20000) return true;
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

// ---- a stack for the look at a fault ---------------------------------------------

// One at a time. Page tables pay for it when the first fault comes.
static char fault_stack[128 << 10] __attribute__((aligned(64)));
static char fault_stack_busy;

static void lock_fault_stack(void) {
  while (__atomic_exchange_n(&fault_stack_busy, 1, __ATOMIC_ACQUIRE)) keg_debug_yield();
}

static void unlock_fault_stack(void) {
  __atomic_store_n(&fault_stack_busy, 0, __ATOMIC_RELEASE);
}

// keg_debug_fault(address, is_write, context) on the stack that ends at `top`.
extern bool look_from(void *top, uintptr_t address, int is_write, void *context) KEG_DEBUG_HIDDEN;
__asm__(
    ".pushsection .text.look_from,\"ax\",@progbits\n"
    ".hidden look_from\n"
    ".globl look_from\n"
    ".type look_from,@function\n"
    "look_from:\n"
    "  .cfi_startproc\n"
    "  pushq %rbp\n"
    "  .cfi_def_cfa_offset 16\n"
    "  .cfi_offset %rbp, -16\n"
    "  movq %rsp, %rbp\n"
    "  .cfi_def_cfa_register %rbp\n"
    "  movq %rdi, %rsp\n"
    "  movq %rsi, %rdi\n"
    "  movl %edx, %esi\n"
    "  movq %rcx, %rdx\n"
    "  callq keg_debug_fault\n"
    "  movq %rbp, %rsp\n"
    "  popq %rbp\n"
    "  .cfi_def_cfa %rsp, 8\n"
    "  retq\n"
    "  .cfi_endproc\n"
    ".size look_from,.-look_from\n"
    ".popsection");

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
  // The last fault of a process is the last moment for a check.
  if (!is_sent && (keg_debug_is_guarded(address) || keg_debug_trash_in(address, context) ||
                   keg_debug_ends_by_fault())) {
    lock_fault_stack();
    char *top = fault_stack + sizeof fault_stack;
    bool goes_on = look_from(top, address, is_write, context);
    if (goes_on && is_aligned && !keg_is_readable(move.address + 15))
      goes_on = look_from(top, move.address + 15, is_write, context);
    unlock_fault_stack();
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

// Ours in the kernel, on the stack that the program's handler wants.
static bool install(const struct sigaction *program) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = on_fault;
  bool has_handler = !is_default(program) && !is_ignored(program);
  action.sa_flags = SA_SIGINFO;
  action.sa_flags |= has_handler ? program->sa_flags & (SA_ONSTACK | SA_RESTART) : SA_ONSTACK | SA_RESTART;
  sigfillset(&action.sa_mask);
  return __sigaction(SIGSEGV, &action, NULL) == 0;
}

static long owner;

void keg_debug_take_faults(void) {
  __sigaction(SIGSEGV, NULL, &program_action);
  // What a program ignores from its start its children shall ignore.
  if (is_ignored(&program_action)) return;
  owner = keg_syscall6(KEG_SYS_getpid, 0, 0, 0, 0, 0, 0);
  has_faults = install(&program_action);
}

void keg_debug_fork_faults(int where) {
  if (where == KEG_FORK_PREPARE) {
    lock_fault_stack();
    pthread_mutex_lock(&change_lock);
  } else if (where == KEG_FORK_PARENT) {
    pthread_mutex_unlock(&change_lock);
    unlock_fault_stack();
  } else {
    pthread_mutex_init(&change_lock, NULL);
    unlock_fault_stack();
    owner = keg_syscall6(KEG_SYS_getpid, 0, 0, 0, 0, 0, 0);
  }
}

static int change(const struct sigaction *action, struct sigaction *old) {
  // A child of vfork has signal actions of its own, but its parent's memory.
  if (keg_syscall6(KEG_SYS_getpid, 0, 0, 0, 0, 0, 0) != owner) {
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
  return __sigaction(number, &action, &old) == 0 ? old.sa_handler : SIG_ERR;
}

sighandler_t sysv_signal(int number, sighandler_t handler) {
  return __sysv_signal(number, handler);
}
