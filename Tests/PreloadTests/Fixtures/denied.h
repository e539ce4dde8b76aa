// denied.h: how fixtures take memory or the kernel away from themselves.
//
// Memory goes by a seccomp filter under which mmap, mprotect, mremap and brk fail with
// ENOMEM, in every thread. That there is no system call at all is shown in strict mode,
// in which any but write and exit kill.
#ifndef DENIED_H
#define DENIED_H

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "fixture.h"

__attribute__((unused)) static void deny_memory(void) {
#define DENY(number) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), \
                     BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOMEM)
  struct sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0), DENY(SYS_mmap), DENY(SYS_mprotect),
                               DENY(SYS_mremap), DENY(SYS_brk), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  struct sock_fprog program = {sizeof code / sizeof *code, code};
  CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0);
}

__attribute__((unused)) static void deny_system_calls(void) {
  CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0);
}

// The end of a test in strict mode.
__attribute__((unused, noreturn)) static void leave(void) {
  ok();
  for (;;) syscall(SYS_exit, 0);
}

#endif
