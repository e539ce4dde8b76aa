// interpose.c: the calls of other kinds that we stand in front of, each with the
// reason why malloc alone would not be enough.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "platform.h"

// Sources/Malloc/Limits.swift
extern void keg_release_address_space(void) KEG_HIDDEN;
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
// the part that is not used goes, so that its next mmap succeeds as without us.

static void prepare_for_limit(int resource, const void *limit) {
  if (resource == RLIMIT_AS && limit &&
      ((const struct rlimit *)limit)->rlim_cur != RLIM_INFINITY)
    keg_release_address_space();
}

static long set_limit(long pid, int resource, const void *new_limit, void *old_limit) {
  if (pid == 0 || pid == keg_syscall6(KEG_SYS_getpid, 0, 0, 0, 0, 0, 0))
    prepare_for_limit(resource, new_limit);
  long result = keg_syscall6(KEG_SYS_prlimit64, pid, resource, (long)new_limit,
                             (long)old_limit, 0, 0);
  if (result < 0) {
    keg_set_errno((int)-result);
    return -1;
  }
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

int mlockall(int flags) {
  // Locking counts address space too, and with MCL_FUTURE fills what is mapped.
  keg_release_address_space();
  long result = keg_syscall6(151 /* mlockall */, flags, 0, 0, 0, 0, 0);
  if (result < 0) {
    keg_set_errno((int)-result);
    return -1;
  }
  return 0;
}
