// platform.c: what platform.h cannot define inline: storage in TLS and .bss,
// and the few questions to the C library and the kernel that need a symbol.
#include "platform.h"

#include <elf.h>
#include <errno.h>
#include <link.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>
#include <time.h>

// ---- threads --------------------------------------------------------------

char keg_empty_bins[3][KEG_BINS_BYTES] __attribute__((aligned(64)));

__thread uintptr_t keg_thread_bins = (uintptr_t)keg_empty_bins[0] + KEG_BINS_HEADER_BYTES;

__thread uintptr_t keg_thread_section;

char keg_running;
char keg_process_bytes[KEG_PROCESS_BYTES] __attribute__((aligned(64)));

struct keg_fast keg_fast __attribute__((aligned(64)));

// ---- process --------------------------------------------------------------

void keg_abort(void) {
  // Unblock SIGABRT, restore its default action, and die of it. abort(3) would
  // run a handler that may call malloc on the heap that was just found corrupt.
  struct {
    void *handler;
    unsigned long flags;
    void *restorer;
    unsigned long mask;
  } action = {0};
  unsigned long mask = 1ul << (SIGABRT - 1);
  keg_syscall6(13 /* rt_sigaction */, SIGABRT, (long)&action, 0, 8, 0, 0);
  keg_syscall6(KEG_SYS_rt_sigprocmask, SIG_UNBLOCK, (long)&mask, 0, 8, 0, 0);
  long pid = keg_syscall6(KEG_SYS_getpid, 0, 0, 0, 0, 0, 0);
  long tid = keg_syscall6(KEG_SYS_gettid, 0, 0, 0, 0, 0, 0);
  keg_syscall6(234 /* tgkill */, pid, tid, SIGABRT, 0, 0, 0);
  for (;;) __builtin_trap();
}

int keg_get_errno(void) { return errno; }
void keg_set_errno(int value) { errno = value; }

unsigned long keg_auxiliary(unsigned long type) { return getauxval(type); }

// Set by the dynamic linker before anything else runs: the argument block that
// the kernel built. environ is not there yet when the first malloc arrives.
extern void *__libc_stack_end __attribute__((weak));
uintptr_t keg_first_stack_end(void) { return &__libc_stack_end ? (uintptr_t)__libc_stack_end : 0; }

const char *keg_environment_options(void) {
  static const char name[] = "KEGMALLOC_CONF=";
  long *block = (long *)keg_first_stack_end();
  if (!block) return 0;
  char **variable = (char **)(block + 1 + block[0] + 1);
  for (; *variable; variable++)
    if (strncmp(*variable, name, sizeof name - 1) == 0)
      return *variable + sizeof name - 1;
  return 0;
}

extern const char *kegmalloc_conf __attribute__((weak));
const char *keg_program_options(void) {
  return &kegmalloc_conf ? kegmalloc_conf : 0;
}

uintptr_t keg_keep_text(const char *text, long count) {
  static char kept[8192];
  static long used;
  if (count >= (long)sizeof kept - used) return 0;
  char *copy = kept + used;
  memcpy(copy, text, (size_t)count);
  copy[count] = 0;
  used += count + 1;
  return (uintptr_t)copy;
}

// ---- children that nobody announced -------------------------------------------

// Published with the mark in it: threads may wait for locks while the first one boots.
static _Atomic(uint32_t *) process_mark;
static void (*orphaned_process)(void);

static uint32_t *make_mark(void) {
  long page = keg_syscall6(KEG_SYS_mmap, 0, 4096, 3, 0x22, -1, 0);
  if (page < 0 && page >= -4095) return 0;
  if (keg_syscall6(KEG_SYS_madvise, page, 4096, 18 /* MADV_WIPEONFORK */, 0, 0, 0) == 0)
    return (uint32_t *)page;
  keg_syscall6(KEG_SYS_munmap, page, 4096, 0, 0, 0, 0);
  return 0;
}

void keg_mark_process(void (*orphaned)(void)) {
  uint32_t *mark = process_mark;
  if (mark) {
    *mark = 1;
  } else if ((mark = make_mark())) {
    *mark = 1;
    orphaned_process = orphaned;
    process_mark = mark;
  }
}

bool keg_adopt_if_orphaned(void) {
  uint32_t *mark = process_mark;
  if (!mark || *mark != 0) return false;
  *mark = 1;
  orphaned_process();
  return true;
}

// ---- clock ----------------------------------------------------------------

typedef int (*clock_function)(clockid_t, struct timespec *);

// Looks `name` up in the vDSO's dynamic symbol table (vdso(7)).
static clock_function find_in_vdso(const char *name) {
  const char *base = (const char *)getauxval(AT_SYSINFO_EHDR);
  if (!base) return 0;
  const ElfW(Ehdr) *header = (const void *)base;
  const ElfW(Phdr) *segment = (const void *)(base + header->e_phoff);
  const ElfW(Dyn) *dynamic = 0;
  uintptr_t slide = 0;
  bool loaded = false;
  for (int i = 0; i < header->e_phnum; i++) {
    if (segment[i].p_type == PT_LOAD && !loaded) {
      slide = (uintptr_t)base + segment[i].p_offset - segment[i].p_vaddr;
      loaded = true;
    }
    if (segment[i].p_type == PT_DYNAMIC)
      dynamic = (const void *)(base + segment[i].p_offset);
  }
  if (!loaded || !dynamic) return 0;
  const ElfW(Sym) *symbols = 0;
  const char *strings = 0;
  const uint32_t *hash = 0;
  for (; dynamic->d_tag != DT_NULL; dynamic++) {
    uintptr_t address = slide + dynamic->d_un.d_ptr;
    if (dynamic->d_tag == DT_SYMTAB) symbols = (const void *)address;
    if (dynamic->d_tag == DT_STRTAB) strings = (const void *)address;
    if (dynamic->d_tag == DT_HASH) hash = (const void *)address;
  }
  if (!symbols || !strings || !hash) return 0;
  for (uint32_t i = 0; i < hash[1]; i++)
    if (symbols[i].st_shndx != SHN_UNDEF &&
        strcmp(strings + symbols[i].st_name, name) == 0)
      return (clock_function)(slide + symbols[i].st_value);
  return 0;
}

__attribute__((minsize)) uint64_t keg_monotonic_nanoseconds(void) {
  static clock_function clock;
  static bool looked;
  if (!looked) {
    clock = find_in_vdso("__vdso_clock_gettime");
    looked = true;
  }
  struct timespec now = {0};
  if (!clock || clock(CLOCK_MONOTONIC_COARSE, &now) != 0)
    keg_syscall6(KEG_SYS_clock_gettime, CLOCK_MONOTONIC_COARSE, (long)&now, 0,
                 0, 0, 0);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

// ---- debug build ----------------------------------------------------------

#ifndef NDEBUG
static __thread uint64_t lock_ranks;
uint64_t *keg_lock_ranks(void) { return &lock_ranks; }
#endif
