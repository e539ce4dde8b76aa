// signal.c: sigaction and signal, so that the handler for SIGSEGV stays ours while the
// debug library guards pages: what the program installs is kept, reported back to it,
// and called for every fault once ours has had its look.
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
extern void keg_debug_fault(uintptr_t address, int is_write, void *context) KEG_DEBUG_HIDDEN;

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
  // Bit 1 of the page fault's error code: a write.
  if (!is_sent && info->si_code != SI_KERNEL)
    keg_debug_fault((uintptr_t)info->si_addr, (machine->uc_mcontext.gregs[REG_ERR] & 2) != 0,
                    context);
  struct sigaction action = read_action();
  errno = saved;
  if (is_ignored(&action) && is_sent) return;
  if (is_default(&action) || is_ignored(&action)) {
    take_default(number, info);
    return;
  }
  // As the kernel does it: the program's mask, one call, once if it asked for that.
  sigset_t mask = action.sa_mask;
  if (!(action.sa_flags & SA_NODEFER)) sigaddset(&mask, number);
  if (action.sa_flags & SA_RESETHAND) {
    struct sigaction reset;
    memset(&reset, 0, sizeof reset);
    reset.sa_handler = SIG_DFL;
    write_action(&reset);
  }
  pthread_sigmask(SIG_BLOCK, &mask, NULL);
  if (action.sa_flags & SA_NODEFER) {
    sigset_t own;
    sigemptyset(&own);
    sigaddset(&own, number);
    pthread_sigmask(SIG_UNBLOCK, &own, NULL);
  }
  if (action.sa_flags & SA_SIGINFO)
    action.sa_sigaction(number, info, context);
  else
    action.sa_handler(number);
}

void keg_debug_take_faults(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  __sigaction(SIGSEGV, NULL, &program_action);
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  sigemptyset(&action.sa_mask);
  has_faults = __sigaction(SIGSEGV, &action, NULL) == 0;
}

static int change(const struct sigaction *action, struct sigaction *old) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_mutex_lock(&change_lock);
  if (old) *old = program_action;
  if (action) write_action(action);
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

// What `signal` is in a strict C or POSIX build: the handler serves once.
sighandler_t __sysv_signal(int number, sighandler_t handler) {
  struct sigaction action, old;
  if (number == SIGSEGV && has_faults) return set_handler(handler, SA_RESETHAND | SA_NODEFER);
  memset(&action, 0, sizeof action);
  action.sa_handler = handler;
  action.sa_flags = (int)(SA_RESETHAND | SA_NODEFER);
  return __sigaction(number, &action, &old) == 0 ? old.sa_handler : SIG_ERR;
}
