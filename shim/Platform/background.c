// background.c: a thread that the C library does not know of (Malloc/Background.swift).
//
// Made with pthread_create it would keep a process alive whose threads have all
// ended, and could not be made inside malloc. It blocks all signals, has TLS of its
// own, and may call nothing of the C library.
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>

#include "platform.h"

enum { STACK_BYTES = 32 << 10, TLS_BYTES = 8 << 10 };

// From high to low: thread control block, space for TLS below it, stack.
static char memory[STACK_BYTES + TLS_BYTES] __attribute__((aligned(64)));

static int32_t thread_id;
int32_t keg_background_thread(void) { return thread_id; }

bool keg_start_background_thread(void (*body)(void)) {
  uintptr_t *control = (uintptr_t *)(memory + sizeof memory - 1024);
  control[0] = (uintptr_t)control;                // fs:0, itself
  control[2] = (uintptr_t)control;                // fs:16, itself
  control[5] = 0x595e9fbd94fda766u;               // fs:0x28, the stack guard
  uintptr_t *stack = (uintptr_t *)(memory + STACK_BYTES);
  *--stack = (uintptr_t)body;

  unsigned long all = KEG_ALL_SIGNALS, before;
  keg_syscall6(KEG_SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, (long)&before, 8, 0, 0);
  const long flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND |
                     CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS;
  long result;
  register long r10 __asm__("r10") = 0;
  register long r8 __asm__("r8") = (long)control;
  // The child starts on its own stack and never returns from the body.
  __asm__ volatile(
      "syscall\n"
      "test %%rax, %%rax\n"
      "jnz 1f\n"
      "xor %%ebp, %%ebp\n"
      "pop %%rax\n"
      "call *%%rax\n"
      "mov $60, %%eax\n"
      "xor %%edi, %%edi\n"
      "syscall\n"
      "1:\n"
      : "=a"(result)
      : "a"(56L /* clone */), "D"(flags), "S"(stack), "d"(0L), "r"(r10), "r"(r8)
      : "rcx", "r11", "memory");
  keg_syscall6(KEG_SYS_rt_sigprocmask, SIG_SETMASK, (long)&before, 0, 8, 0, 0);
  if (result > 0) thread_id = (int32_t)result;
  return result > 0;
}
