// leak_memory.c: reading memory that may not be there, and finding out what is mapped
// when there is no /proc.
//
// A mapping may have pages that fault: a file that became shorter, guard pages inside
// a mapping, memory that a thread which could not be stopped unmaps. So the check
// copies what it scans, page by page, by an instruction that the handler below knows
// and gets it out of.
#define _GNU_SOURCE
#include "leak.h"

#include <elf.h>
#include <link.h>
#include <signal.h>
#include <sys/auxv.h>
#include <ucontext.h>

#include "leak_files.h"

// ---- copying -------------------------------------------------------------------

// rdi to, rsi from, rdx words; returns words copied. The only accesses that may fault
// are the loads between keg_leak_copy and keg_leak_copy_failed.
__asm__(
    ".pushsection .text.keg_leak_copy, \"ax\", @progbits\n"
    ".globl keg_leak_copy\n"
    ".hidden keg_leak_copy\n"
    ".type keg_leak_copy, @function\n"
    "keg_leak_copy:\n"
    "  mov %rdx, %rcx\n"
    "  cmp $64, %rdx\n"
    "  jb 2f\n"
    "  rep movsq\n"
    "  jmp keg_leak_copy_failed\n"
    "1:\n"
    "  mov (%rsi), %rax\n"
    "  mov %rax, (%rdi)\n"
    "  add $8, %rsi\n"
    "  add $8, %rdi\n"
    "  dec %rcx\n"
    "2:\n"
    "  test %rcx, %rcx\n"
    "  jnz 1b\n"
    "keg_leak_copy_failed:\n"
    "  mov %rdx, %rax\n"
    "  sub %rcx, %rax\n"
    "  ret\n"
    ".size keg_leak_copy, . - keg_leak_copy\n"
    ".popsection\n");
extern const char keg_leak_copy_failed[] KEG_HIDDEN;

struct kernel_action {
  void (*handler)(int, siginfo_t *, void *);
  unsigned long flags;
  void (*restorer)(void);
  unsigned long mask;
};
static struct kernel_action old_segv, old_bus;

static long set_action(int number, const struct kernel_action *action, struct kernel_action *old) {
  return keg_syscall6(13 /* rt_sigaction */, number, (long)action, (long)old, 8, 0, 0);
}

static void on_fault(int number, siginfo_t *info, void *context_pointer) {
  greg_t *registers = ((ucontext_t *)context_pointer)->uc_mcontext.gregs;
  uintptr_t at = (uintptr_t)registers[REG_RIP];
  if (at >= (uintptr_t)keg_leak_copy && at < (uintptr_t)keg_leak_copy_failed) {
    registers[REG_RIP] = (greg_t)(uintptr_t)keg_leak_copy_failed;
    return;
  }
  // A thread that could not be stopped: its fault is its own affair.
  const struct kernel_action *old = number == SIGSEGV ? &old_segv : &old_bus;
  if ((uintptr_t)old->handler > 1)
    old->handler(number, info, context_pointer);
  else
    set_action(number, old, 0);  // and the fault comes again
}

__asm__(
    ".pushsection .text.keg_leak_fault_return, \"ax\", @progbits\n"
    ".type keg_leak_fault_return, @function\n"
    "keg_leak_fault_return:\n"
    "  mov $15, %eax\n"
    "  syscall\n"
    ".popsection\n");
extern void keg_leak_fault_return(void) KEG_HIDDEN;

static unsigned long old_mask;

void keg_leak_block_signals(void) {
  unsigned long mask = KEG_ALL_SIGNALS & ~(1ul << (SIGSEGV - 1) | 1ul << (SIGBUS - 1));
  keg_syscall6(KEG_SYS_rt_sigprocmask, SIG_SETMASK, (long)&mask, (long)&old_mask, 8, 0, 0);
}

void keg_leak_unblock_signals(void) {
  keg_syscall6(KEG_SYS_rt_sigprocmask, SIG_SETMASK, (long)&old_mask, 0, 8, 0, 0);
}

void keg_leak_catch_faults(void) {
  struct kernel_action action = {on_fault, SA_SIGINFO | SA_ONSTACK | SA_NODEFER | 0x04000000ul,
                                 keg_leak_fault_return, 0};
  set_action(SIGSEGV, &action, &old_segv);
  set_action(SIGBUS, &action, &old_bus);
}

void keg_leak_release_faults(void) {
  set_action(SIGSEGV, &old_segv, 0);
  set_action(SIGBUS, &old_bus, 0);
}

// ---- what is resident ---------------------------------------------------------------

// Of /proc/self/pagemap: 8 bytes a page; bits 63 and 62: present, swapped; 61: a file's.
enum { ENTRIES = 512 };

void keg_leak_each_resident(uintptr_t start, uintptr_t end, bool is_file,
                            void (*body)(void *, uintptr_t, uintptr_t), void *context) {
  static uint64_t entries[ENTRIES];
  long file = keg_file_open(AT_FDCWD, "/proc/self/pagemap", 0);
  if (file < 0) return body(context, start, end);
  uintptr_t run = 0;  // start of the resident pages being collected
  for (uintptr_t at = start & ~4095ul; at < end;) {
    long wanted = (long)((end - at + 4095) / 4096);
    if (wanted > ENTRIES) wanted = ENTRIES;
    long got = keg_syscall6(17 /* pread64 */, file, (long)entries, wanted * 8, (long)(at / 4096 * 8),
                            0, 0) / 8;
    if (got <= 0) {
      if (!run) run = at;
      at = end;
      break;
    }
    for (long i = 0; i < got; i++, at += 4096) {
      if (entries[i] >> 62 && !(is_file && entries[i] >> 61 & 1)) {
        if (!run) run = at;
      } else if (run) {
        body(context, run < start ? start : run, at);
        run = 0;
      }
    }
  }
  if (run) body(context, run < start ? start : run, end);
  keg_file_close(file);
}

// ---- what is mapped, without /proc ---------------------------------------------------

// Whether nothing is mapped in [start, start + size): the kernel would map it.
// - Returns: 1, 0, or -1 when it cannot be asked for so much at once.
static int is_free(uintptr_t start, uintptr_t size) {
  long result = keg_syscall6(KEG_SYS_mmap, (long)start, (long)size, 0,
                             0x104022 /* FIXED_NOREPLACE NORESERVE ANONYMOUS PRIVATE */, -1, 0);
  if (result == (long)start) {
    keg_syscall6(KEG_SYS_munmap, (long)start, (long)size, 0, 0, 0, 0);
    return 1;
  }
  if (result == -17 /* EEXIST */) return 0;
  if (result >= 0 || result < -4095) {  // a kernel before 4.17 mapped it elsewhere
    keg_syscall6(KEG_SYS_munmap, result, (long)size, 0, 0, 0, 0);
    return 0;
  }
  return -1;
}

bool keg_leak_next_range(uintptr_t address, uintptr_t limit, uintptr_t *start, uintptr_t *end) {
  // Strides grow while the space is free and shrink when something is in the way.
  uintptr_t stride = 4096, at = address;
  while (true) {
    if (at >= limit) return false;
    if (stride > limit - at) stride = limit - at;
    int free = is_free(at, stride);
    if (free == 1) {
      at += stride;
      if (stride < 1ul << 44) stride *= 2;
    } else if (stride > 4096) {
      stride = stride / 2 & ~4095ul;
      if (stride == 0) stride = 4096;
    } else {
      break;
    }
  }
  *start = at;
  // The end: the pages that are mapped, by the same strides, of msync, which fails for
  // a range with a hole.
  stride = 4096;
  while (at < limit) {
    if (stride > limit - at) stride = limit - at;
    long result = keg_syscall6(26 /* msync */, (long)at, (long)stride, 1 /* MS_ASYNC */, 0, 0, 0);
    if (result == 0) {
      at += stride;
      if (stride < 1ul << 44) stride *= 2;
    } else if (stride > 4096) {
      stride = stride / 2 & ~4095ul;
      if (stride == 0) stride = 4096;
    } else {
      break;
    }
  }
  *end = at;
  return true;
}

// ---- the loader's list --------------------------------------------------------------

extern struct r_debug _r_debug __attribute__((weak));

static void each_segment_of(uintptr_t slide, const ElfW(Phdr) *segment, long count,
                            const char *name,
                            void (*body)(void *, uintptr_t, uintptr_t, bool, const char *),
                            void *context) {
  for (long i = 0; i < count; i++)
    if (segment[i].p_type == PT_LOAD)
      body(context, slide + segment[i].p_vaddr, slide + segment[i].p_vaddr + segment[i].p_memsz,
           segment[i].p_flags & PF_W, name);
}

void keg_leak_each_segment(void (*body)(void *, uintptr_t, uintptr_t, bool, const char *),
                           void *context) {
  if (!&_r_debug) return;
  bool is_program = true;
  int count = 0;
  for (struct link_map *map = _r_debug.r_map; map && count < 100000; map = map->l_next, count++) {
    if (!keg_is_readable((uintptr_t)map)) return;
    const char *name = map->l_name && keg_is_readable((uintptr_t)map->l_name) ? map->l_name : "";
    if (is_program) {
      each_segment_of(map->l_addr, (const void *)getauxval(AT_PHDR), (long)getauxval(AT_PHNUM),
                      name, body, context);
      is_program = false;
      continue;
    }
    const ElfW(Ehdr) *header = (const void *)map->l_addr;
    if (!map->l_addr || !keg_is_readable(map->l_addr) ||
        __builtin_memcmp(header->e_ident, ELFMAG, SELFMAG) != 0)
      continue;
    each_segment_of(map->l_addr, (const void *)(map->l_addr + header->e_phoff), header->e_phnum,
                    name, body, context);
  }
}
