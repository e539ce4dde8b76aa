// fault_stack.c: the stack on which a fault is looked at: the program's may be 2 KiB, or full.
//
//   handler, on whatever stack ─▶ lock ─▶ keg_look(body) │ body on 128 KiB of our own │ ─▶ unlock
//
// Its owner is known: a fault that finds its own thread there is one of the look itself, or
// came over a fork, which holds the stack so that nobody looks meanwhile.
#include "fault_stack.h"

#include <string.h>
#include <unistd.h>

#include "debug.h"
#include "platform.h"

// One at a time. Page tables pay for it when the first fault comes.
static char fault_stack[128 << 10] __attribute__((aligned(64)));
// The thread that has it; 0: nobody. A fork has it too: nobody looks meanwhile.
static int fault_stack_owner;

static int own_thread(void) { return (int)keg_syscall6(KEG_SYS_gettid, 0, 0, 0, 0, 0, 0); }

// False: this thread has it. Its fault is ours, or that of a handler over a fork.
bool keg_fault_stack_lock(void) {
  int self = own_thread(), found = 0;
  while (!__atomic_compare_exchange_n(&fault_stack_owner, &found, self, false, __ATOMIC_ACQUIRE,
                                      __ATOMIC_RELAXED)) {
    if (found == self) return false;
    found = 0;
    keg_debug_yield();
  }
  return true;
}

void keg_fault_stack_unlock(void) { __atomic_store_n(&fault_stack_owner, 0, __ATOMIC_RELEASE); }

void keg_say_that_nobody_looks(uintptr_t address) {
  char line[] = "kegmalloc: fault at 0x0000000000000000 over a call of the debug library: not looked at\n";
  char *digits = strstr(line, "0x") + 2;
  for (int i = 15; i >= 0; i--, address >>= 4) digits[i] = "0123456789abcdef"[address & 15];
  keg_syscall6(KEG_SYS_write, STDERR_FILENO, (long)line, sizeof line - 1, 0, 0, 0);
}

// body(address, is_write, context) on the stack that ends at `top`.
extern bool look_from(void *top, uintptr_t address, int is_write, void *context,
                      bool (*body)(uintptr_t, int, void *)) KEG_DEBUG_HIDDEN;
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
    "  callq *%r8\n"
    "  movq %rbp, %rsp\n"
    "  popq %rbp\n"
    "  .cfi_def_cfa %rsp, 8\n"
    "  retq\n"
    "  .cfi_endproc\n"
    ".size look_from,.-look_from\n"
    ".popsection");

bool keg_look(uintptr_t address, int is_write, void *context,
              bool (*body)(uintptr_t, int, void *)) {
  return look_from(fault_stack + sizeof fault_stack, address, is_write, context, body);
}

bool keg_is_on_fault_stack(uintptr_t address) {
  return address - (uintptr_t)fault_stack < sizeof fault_stack;
}
