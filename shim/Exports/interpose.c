// interpose.c: the calls of other kinds that we stand in front of, each with the
// reason why malloc alone would not be enough.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "platform.h"

// Sources/Malloc/Limits.swift
extern void keg_release_address_space(size_t kept) KEG_HIDDEN;
extern void keg_limits_changed(void) KEG_HIDDEN;
extern int keg_clears_deep_bind(void) KEG_HIDDEN;

static void *next_function(const char *name, void **cache) {
  void *found = __atomic_load_n(cache, __ATOMIC_RELAXED);
  if (!found) {
    found = dlsym(RTLD_NEXT, name);
    __atomic_store_n(cache, found, __ATOMIC_RELAXED);
  }
  return found;
}

// ---- dlopen -------------------------------------------------------------------
//
// A plugin loaded with RTLD_DEEPBIND finds the C library's malloc before ours, and
// then frees what the program allocated with us, and the other way round (G05). So
// the flag is cleared. dlopen looks at its return address to find the caller's
// RUNPATH and namespace: the call must stay the caller's, hence the jump.

static void *real_dlopen;

KEG_HIDDEN __attribute__((used)) void *keg_find_dlopen(void) {
  return next_function("dlopen", &real_dlopen);
}

KEG_HIDDEN __attribute__((used)) int keg_dlopen_flags(int flags) {
  return keg_clears_deep_bind() ? flags & ~RTLD_DEEPBIND : flags;
}

__asm__(
    ".pushsection .text.dlopen, \"ax\", @progbits\n"
    ".globl dlopen\n"
    ".type dlopen, @function\n"
    "dlopen:\n"
    "  .cfi_startproc\n"
    "  push %rdi\n"
    "  .cfi_adjust_cfa_offset 8\n"
    "  push %rsi\n"
    "  .cfi_adjust_cfa_offset 8\n"
    "  sub $8, %rsp\n"
    "  .cfi_adjust_cfa_offset 8\n"
    "  mov %esi, %edi\n"
    "  call keg_dlopen_flags\n"
    "  mov %eax, 8(%rsp)\n"
    "  call keg_find_dlopen\n"
    "  add $8, %rsp\n"
    "  .cfi_adjust_cfa_offset -8\n"
    "  pop %rsi\n"
    "  .cfi_adjust_cfa_offset -8\n"
    "  pop %rdi\n"
    "  .cfi_adjust_cfa_offset -8\n"
    "  jmp *%rax\n"
    "  .cfi_endproc\n"
    ".size dlopen, .-dlopen\n"
    ".popsection\n");

// ---- limits -------------------------------------------------------------------
//
// Our reservation is larger than any limit a program sets itself. Before it does,
// what is not used goes, so that its next mmap succeeds as without us; but for an
// eighth of the limit, as when a program starts under one. Limits decide, too,
// whether blocks get headroom.

static void prepare_for_limit(int resource, const void *limit) {
  if (resource != RLIMIT_AS || !limit) return;
  rlim_t most = ((const struct rlimit *)limit)->rlim_cur;
  if (most != RLIM_INFINITY) keg_release_address_space(most / 8);
}

__attribute__((noinline)) static long set_limit(long pid, int resource, const void *new_limit, void *old_limit) {
  if (pid == 0 || pid == keg_syscall6(KEG_SYS_getpid, 0, 0, 0, 0, 0, 0))
    prepare_for_limit(resource, new_limit);
  long result = keg_syscall6(KEG_SYS_prlimit64, pid, resource, (long)new_limit,
                             (long)old_limit, 0, 0);
  if (result < 0) {
    keg_set_errno((int)-result);
    return -1;
  }
  if (new_limit && (resource == RLIMIT_DATA || resource == RLIMIT_AS)) keg_limits_changed();
  return 0;
}

#undef setrlimit
#undef setrlimit64
#undef prlimit
#undef prlimit64
int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit) {
  return (int)set_limit(0, (int)resource, limit, NULL);
}
int setrlimit64(__rlimit_resource_t resource, const struct rlimit64 *limit) {
  return (int)set_limit(0, (int)resource, limit, NULL);
}
int prlimit(pid_t pid, __rlimit_resource_t resource,
            const struct rlimit *new_limit, struct rlimit *old_limit) {
  return (int)set_limit(pid, (int)resource, new_limit, old_limit);
}
int prlimit64(pid_t pid, __rlimit_resource_t resource,
              const struct rlimit64 *new_limit, struct rlimit64 *old_limit) {
  return (int)set_limit(pid, (int)resource, new_limit, old_limit);
}

// Locking counts address space too, and with MCL_FUTURE fills what is mapped: the heap
// keeps a part to grow in if the program is likely to have a right to lock without limit.
int mlockall(int flags) {
  enum { KEPT = 256 << 20 };
  struct rlimit limit = {0, 0};
  keg_syscall6(KEG_SYS_prlimit64, 0, RLIMIT_MEMLOCK, 0, (long)&limit, 0, 0);
  bool has_right = limit.rlim_cur == RLIM_INFINITY || keg_auxiliary(AT_EUID) == 0;
  keg_release_address_space(has_right ? KEPT : 0);
  keg_limits_changed();
  long result = keg_syscall6(KEG_SYS_mlockall, flags, 0, 0, 0, 0, 0);
  if (result == -ENOMEM && has_right) {
    keg_release_address_space(0);
    result = keg_syscall6(KEG_SYS_mlockall, flags, 0, 0, 0, 0, 0);
  }
  if (result < 0) {
    keg_set_errno((int)-result);
    return -1;
  }
  return 0;
}
