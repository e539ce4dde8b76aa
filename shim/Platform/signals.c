// signals.c: the watch that tells whether a signal came (Malloc/Signals.swift).
#include <emmintrin.h>
#include <linux/rseq.h>

#include "platform.h"

// glibc 2.35 and later register a struct rseq for every thread and say where.
extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned int __rseq_size __attribute__((weak));

// A sequence that no instruction pointer is ever inside: one byte nobody runs. The
// kernel checks that the word before the abort address is the signature that was
// registered.
__asm__(
    ".pushsection .text.keg_never, \"ax\", @progbits\n"
    ".type keg_never, @object\n"
    "keg_never: .byte 0x0f, 0x0b\n"
    ".long 0x53053053\n"
    "keg_never_abort: .byte 0x0f, 0x0b\n"
    ".popsection\n"
    ".pushsection .data.rel.ro, \"aw\"\n"
    ".balign 32\n"
    ".globl keg_watch\n"
    ".hidden keg_watch\n"
    "keg_watch: .long 0, 0\n"
    ".quad keg_never, 1, keg_never_abort\n"
    ".popsection\n");
ptrdiff_t keg_watch_offset;

bool keg_set_signal_watch(void) {
  if (!&__rseq_offset || !&__rseq_size || __rseq_size == 0) return false;
  // Every thread finds the same value.
  ptrdiff_t offset = __rseq_offset + (ptrdiff_t)offsetof(struct rseq, rseq_cs);
  __atomic_store_n(&keg_watch_offset, offset, __ATOMIC_RELAXED);
  __atomic_store_n((uintptr_t *)(keg_thread_pointer() + (uintptr_t)offset),
                   (uintptr_t)keg_watch, __ATOMIC_RELAXED);
  return true;
}

void keg_clear_signal_watch(void) {
  ptrdiff_t offset = __atomic_load_n(&keg_watch_offset, __ATOMIC_RELAXED);
  if (offset == 0) return;
  __atomic_store_n((uintptr_t *)(keg_thread_pointer() + (uintptr_t)offset), 0, __ATOMIC_RELAXED);
}

// The stack is other functions' memory: no sanitizer may look over our shoulder.
__attribute__((no_sanitize("address", "thread"))) uintptr_t keg_find_word(
    uintptr_t start, uintptr_t end, uint64_t word) {
  const __m128i wanted = _mm_set1_epi64x((long long)word);
  for (uintptr_t line = start; line < end; line += 64) {
    const __m128i *part = (const __m128i *)line;
    __m128i equal = _mm_or_si128(
        _mm_or_si128(_mm_cmpeq_epi32(part[0], wanted), _mm_cmpeq_epi32(part[1], wanted)),
        _mm_or_si128(_mm_cmpeq_epi32(part[2], wanted), _mm_cmpeq_epi32(part[3], wanted)));
    if (__builtin_expect(_mm_movemask_epi8(equal) == 0, 1)) continue;
    for (int i = 0; i < 8; i++)
      if (((const uint64_t *)line)[i] == word) return line + (uintptr_t)i * 8;
  }
  return 0;
}

extern const char __ehdr_start[] KEG_HIDDEN;
extern const char etext[] KEG_HIDDEN;
uintptr_t keg_text_start(void) { return (uintptr_t)__ehdr_start; }
uintptr_t keg_text_end(void) { return (uintptr_t)etext; }

bool keg_is_readable(uintptr_t address) {
  // FUTEX_WAIT reads the word before anything else, and with a timeout of 0 never
  // waits. It is one of the few calls that strict seccomp filters leave us.
  struct {
    long seconds, nanoseconds;
  } none = {0, 0};
  long result = keg_syscall6(KEG_SYS_futex, (long)(address & ~3ul), 128, 0x5A5A5A5A,
                             (long)&none, 0, 0);
  return result != -14 /* EFAULT */;
}
