// libc.c: what the allocator asks of the C library it runs beside: to be told of
// forks and of threads that end, and to take back blocks of its own malloc.
#include <elf.h>
#include <link.h>
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/single_threaded.h>

#include "platform.h"

// ---- hooks ------------------------------------------------------------------

static pthread_key_t exit_key;
static bool has_exit_key;

void keg_install_hooks(const struct keg_hooks *hooks) {
  has_exit_key = pthread_key_create(&exit_key, hooks->thread_exits) == 0;
  pthread_atfork(hooks->fork_prepare, hooks->fork_parent, hooks->fork_child);
}

void keg_watch_thread_exit(void *argument) {
  if (has_exit_key) pthread_setspecific(exit_key, argument);
}

bool keg_is_single_threaded(void) { return __libc_single_threaded; }

// ---- the C library's own malloc ---------------------------------------------

// glibc's chunks: the word before a block is its size, with flags in the low bits.
enum { MMAPPED = 2, NON_MAIN_ARENA = 4, FLAGS = 7 };
enum { ARENA_HEAP_BYTES = 64 << 20 };

extern char *__curbrk __attribute__((weak));
extern void __libc_free(void *) __attribute__((weak));
extern void *__libc_realloc(void *, size_t) __attribute__((weak));

// The end of the program's own segments, above which the break starts.
static uintptr_t program_end(void) {
  static uintptr_t end;
  if (end) return end;
  const ElfW(Phdr) *segment = (const void *)getauxval(AT_PHDR);
  unsigned long count = getauxval(AT_PHNUM);
  uintptr_t slide = 0;
  for (unsigned long i = 0; i < count; i++)
    if (segment[i].p_type == PT_PHDR)
      slide = (uintptr_t)segment - segment[i].p_vaddr;
  for (unsigned long i = 0; i < count; i++)
    if (segment[i].p_type == PT_LOAD &&
        slide + segment[i].p_vaddr + segment[i].p_memsz > end)
      end = slide + segment[i].p_vaddr + segment[i].p_memsz;
  return end;
}

static size_t chunk_word(void *pointer) { return ((size_t *)pointer)[-1]; }

__attribute__((minsize)) int keg_is_foreign(void *pointer) {
  uintptr_t address = (uintptr_t)pointer;
  if (address % 16 != 0 || address < 4096 || !__libc_free) return 0;
  // The main arena, in the program break.
  if (&__curbrk && address >= program_end() && address < (uintptr_t)__curbrk)
    return keg_is_readable(address - 8) && (chunk_word(pointer) & ~(size_t)FLAGS) >= 32;
  if (!keg_is_readable(address - 16)) return 0;
  size_t word = chunk_word(pointer);
  size_t size = word & ~(size_t)FLAGS;
  // A block with a mapping of its own.
  if ((word & FLAGS) == MMAPPED)
    return address % 4096 == 16 && size % 4096 == 0 && size != 0;
  // The arena of a thread: heaps of 64 MiB, aligned to that, with the arena's
  // address, the previous heap and the size in front.
  if (word & NON_MAIN_ARENA) {
    uintptr_t heap = address & ~(uintptr_t)(ARENA_HEAP_BYTES - 1);
    if (!keg_is_readable(heap) || !keg_is_readable(heap + 16)) return 0;
    uintptr_t *header = (uintptr_t *)heap;
    return header[0] % 16 == 0 && header[0] != 0 && header[2] % 4096 == 0 &&
           header[2] != 0 && header[2] <= ARENA_HEAP_BYTES &&
           address + size <= heap + header[2] + 16 && size >= 32;
  }
  return 0;
}

void keg_foreign_free(void *pointer) {
  if (__libc_free) __libc_free(pointer);
}

void *keg_foreign_realloc(void *pointer, long size) {
  return __libc_realloc ? __libc_realloc(pointer, (size_t)size) : 0;
}

uintptr_t keg_foreign_usable_size(void *pointer) {
  size_t word = chunk_word(pointer);
  return (word & ~(size_t)FLAGS) - (word & MMAPPED ? 16 : 8);
}
