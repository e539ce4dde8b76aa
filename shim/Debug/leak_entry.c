// leak_entry.c: how the leak check begins: with the registers of its caller saved where
// they are found again, on a thread of its own, or when somebody asks for it.
#define _GNU_SOURCE
#include "leak.h"

#include <sched.h>
#include <signal.h>

#include "platform.h"

// The six registers that a caller may keep its values in, then the return address:
// the start of the calling thread's stack as the check sees it.
__asm__(
    ".pushsection .text.keg_leak_with_registers, \"ax\", @progbits\n"
    ".globl keg_leak_with_registers\n"
    ".hidden keg_leak_with_registers\n"
    ".type keg_leak_with_registers, @function\n"
    "keg_leak_with_registers:\n"
    "  .cfi_startproc\n"
    "  push %rbp\n"
    "  .cfi_adjust_cfa_offset 8\n"
    "  .cfi_rel_offset %rbp, 0\n"
    "  push %rbx\n"
    "  .cfi_adjust_cfa_offset 8\n"
    "  push %r12\n"
    "  .cfi_adjust_cfa_offset 8\n"
    "  push %r13\n"
    "  .cfi_adjust_cfa_offset 8\n"
    "  push %r14\n"
    "  .cfi_adjust_cfa_offset 8\n"
    "  push %r15\n"
    "  .cfi_adjust_cfa_offset 8\n"
    "  mov %rdi, %rax\n"
    "  mov %rsp, %rdi\n"
    "  sub $8, %rsp\n"
    "  .cfi_adjust_cfa_offset 8\n"
    "  call *%rax\n"
    "  add $8, %rsp\n"
    "  .cfi_adjust_cfa_offset -8\n"
    "  pop %r15\n"
    "  .cfi_adjust_cfa_offset -8\n"
    "  pop %r14\n"
    "  .cfi_adjust_cfa_offset -8\n"
    "  pop %r13\n"
    "  .cfi_adjust_cfa_offset -8\n"
    "  pop %r12\n"
    "  .cfi_adjust_cfa_offset -8\n"
    "  pop %rbx\n"
    "  .cfi_adjust_cfa_offset -8\n"
    "  pop %rbp\n"
    "  .cfi_adjust_cfa_offset -8\n"
    "  .cfi_restore %rbp\n"
    "  ret\n"
    "  .cfi_endproc\n"
    ".size keg_leak_with_registers, . - keg_leak_with_registers\n"
    ".popsection\n");

// ---- the helper thread ---------------------------------------------------------------

// One mapping: stack, static TLS as large as the C library gives every thread, thread
// block. It is kept for the next request.
enum { STACK_BYTES = 256 << 10, CONTROL_BYTES = 8 << 10 };
static char *memory;
static uintptr_t tls_bytes;
static int32_t helper_tid;  // cleared by the kernel when the thread has ended

void keg_leak_forget_helper(void) { __atomic_store_n(&helper_tid, 0, __ATOMIC_SEQ_CST); }

uintptr_t keg_leak_helper_memory(uintptr_t *bytes) {
  *bytes = STACK_BYTES + tls_bytes + CONTROL_BYTES;
  return (uintptr_t)memory;
}

int32_t keg_leak_helper(void) { return __atomic_load_n(&helper_tid, __ATOMIC_SEQ_CST); }

bool keg_leak_start_helper(void (*body)(void)) {
  int32_t expected = 0;
  if (!__atomic_compare_exchange_n(&helper_tid, &expected, -1, false, __ATOMIC_SEQ_CST,
                                   __ATOMIC_SEQ_CST))
    return false;
  if (!memory) {
    tls_bytes = (keg_leak_static_tls() + 4095) & ~4095ul;
    long mapped = keg_syscall6(KEG_SYS_mmap, 0, (long)(STACK_BYTES + tls_bytes + CONTROL_BYTES), 3,
                               0x4022 /* PRIVATE ANONYMOUS NORESERVE */, -1, 0);
    if (mapped < 0 && mapped >= -4095) {
      __atomic_store_n(&helper_tid, 0, __ATOMIC_SEQ_CST);
      return false;
    }
    memory = (char *)mapped;
  }
  uintptr_t *control = (uintptr_t *)(memory + STACK_BYTES + tls_bytes);
  __builtin_memset(memory + STACK_BYTES, 0, tls_bytes + CONTROL_BYTES);
  control[0] = (uintptr_t)control;   // fs:0, itself
  control[2] = (uintptr_t)control;   // fs:16, itself
  control[5] = 0x595e9fbd94fda766u;  // fs:0x28, the stack guard
  uintptr_t *stack = (uintptr_t *)(memory + STACK_BYTES - 64);
  *--stack = (uintptr_t)body;

  unsigned long all = KEG_ALL_SIGNALS, before;
  keg_syscall6(KEG_SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, (long)&before, 8, 0, 0);
  const long flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
                     CLONE_SYSVSEM | CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
  long result;
  register long r10 __asm__("r10") = (long)&helper_tid;
  register long r8 __asm__("r8") = (long)control;
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
      : "a"(56L /* clone */), "D"(flags), "S"(stack), "d"((long)&helper_tid), "r"(r10), "r"(r8)
      : "rcx", "r11", "memory");
  keg_syscall6(KEG_SYS_rt_sigprocmask, SIG_SETMASK, (long)&before, 0, 8, 0, 0);
  if (result < 0) __atomic_store_n(&helper_tid, 0, __ATOMIC_SEQ_CST);
  return result > 0;
}

// ---- requests ---------------------------------------------------------------------------

extern void keg_leak_help(void) KEG_HIDDEN;  // Sources/Debug/LeakRequest.swift

char keg_leak_requested;
static char file[4096];
static char file_lock;

int keg_leak_ask(const char *path) {
  // One at a time: a second one is served by the check that the first asked for.
  if (__atomic_exchange_n(&file_lock, 1, __ATOMIC_SEQ_CST)) return 0;
  long length = 0;
  while (path && path[length] && length < (long)sizeof file - 1) {
    file[length] = path[length];
    length++;
  }
  file[length] = 0;
  __atomic_store_n(&keg_leak_requested, 1, __ATOMIC_SEQ_CST);
  // Without a helper the next call of malloc or free does it.
  keg_leak_start_helper(keg_leak_help);
  return 0;
}

bool keg_leak_take_request(void) {
  return __atomic_exchange_n(&keg_leak_requested, 0, __ATOMIC_SEQ_CST) != 0;
}

const char *keg_leak_request_file(void) { return file[0] ? file : 0; }

void keg_leak_finish_request(void) { __atomic_store_n(&file_lock, 0, __ATOMIC_SEQ_CST); }

static void on_signal(int number) {
  (void)number;
  keg_leak_ask(0);
}

__asm__(
    ".pushsection .text.keg_leak_signal_return, \"ax\", @progbits\n"
    ".type keg_leak_signal_return, @function\n"
    "keg_leak_signal_return:\n"
    "  mov $15, %eax\n"
    "  syscall\n"
    ".popsection\n");
extern void keg_leak_signal_return(void) KEG_HIDDEN;

bool keg_leak_install_signal(int number) {
  struct {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    unsigned long mask;
  } action = {on_signal, SA_RESTART | SA_ONSTACK | 0x04000000ul, keg_leak_signal_return, 0};
  return keg_syscall6(13 /* rt_sigaction */, number, (long)&action, 0, 8, 0, 0) == 0;
}
