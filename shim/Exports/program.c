// program.c: programs that bring a malloc of their own, or some operators new and delete.
//
// The program comes before a preloaded library: what it defines is called instead of
// ours. What it leaves out the C and C++ libraries make from what it defines, and so do we.
// The operators below are those that are nothing but a call of another:
//
//   delete(p, size), delete(p, nothrow) ──▶ delete(p) ◀── delete[](p) ◀── the same with []
//   new(size) ◀── new[](size)       and all of it once more with an alignment
//
// Each is one jump through the table that the loader fills, which holds whoever has the
// name (--dynamic-list in the Makefile): operator delete of a program that puts a header
// before its blocks gets them back, whichever delete is called, and free is as it was.
// operators.c has the nothrow news. The debug library looks itself for most: it is told
// which operator was called.
#include <stdbool.h>
#include <stddef.h>

#include "platform.h"

// `first` is done before the jump.
#define FORWARD(name, first, target)                          \
  __asm__(".pushsection .text." #name ",\"ax\",@progbits\n"    \
          ".globl " #name "\n.type " #name ",@function\n"      \
          #name ":\n.cfi_startproc\n" first                   \
          "jmp *" #target "@GOTPCREL(%rip)\n"                 \
          ".cfi_endproc\n.size " #name ", . - " #name "\n"     \
          ".popsection")

// (pointer, size, alignment) becomes (pointer, alignment).
#define DROP_SIZE "movq %rdx, %rsi\n"

FORWARD(_ZdlPvRKSt9nothrow_t, "", _ZdlPv);
FORWARD(_ZdaPvRKSt9nothrow_t, "", _ZdaPv);
FORWARD(_ZdlPvSt11align_val_tRKSt9nothrow_t, "", _ZdlPvSt11align_val_t);
FORWARD(_ZdaPvSt11align_val_tRKSt9nothrow_t, "", _ZdaPvSt11align_val_t);

#ifndef KEG_DEBUG_LIBRARY

FORWARD(keg_new_array, "", _Znwm);
FORWARD(keg_aligned_new_array, "", _ZnwmSt11align_val_t);
FORWARD(_ZdaPv, "", _ZdlPv);
FORWARD(_ZdlPvm, "", _ZdlPv);
FORWARD(_ZdaPvm, "", _ZdaPv);
FORWARD(_ZdaPvSt11align_val_t, "", _ZdlPvSt11align_val_t);
FORWARD(_ZdlPvmSt11align_val_t, DROP_SIZE, _ZdlPvSt11align_val_t);
FORWARD(_ZdaPvmSt11align_val_t, DROP_SIZE, _ZdaPvSt11align_val_t);

#else

extern void keg_debug_delete(void *) KEG_HIDDEN;
extern void keg_debug_delete_array(void *) KEG_HIDDEN;
extern void keg_debug_delete_aligned(void *, size_t) KEG_HIDDEN;
extern void keg_debug_delete_array_aligned(void *, size_t) KEG_HIDDEN;
extern void _ZdlPv(void *), _ZdaPv(void *);
extern void _ZdlPvSt11align_val_t(void *, size_t), _ZdaPvSt11align_val_t(void *, size_t);
extern void *_Znwm(size_t), *keg_own_new(size_t) KEG_HIDDEN;
extern void *_ZnwmSt11align_val_t(size_t, size_t), *keg_aligned_new(size_t, size_t) KEG_HIDDEN;
extern void *realloc(void *, size_t);
extern void *keg_debug_reallocarray(void *, size_t, size_t);

// Sized deletes go to the plain one that the program has, delete[] to its delete if new[]
// went to its new (operators.c).
bool keg_program_delete(void *pointer, bool is_array) {
  if (is_array && KEG_FUNCTION(_ZdaPv) != keg_debug_delete_array) return _ZdaPv(pointer), true;
  if (KEG_FUNCTION(_ZdlPv) == keg_debug_delete) return false;
  if (is_array && KEG_FUNCTION(_Znwm) == keg_own_new) return false;
  return _ZdlPv(pointer), true;
}

bool keg_program_delete_aligned(void *pointer, size_t alignment, bool is_array) {
  if (is_array && KEG_FUNCTION(_ZdaPvSt11align_val_t) != keg_debug_delete_array_aligned)
    return _ZdaPvSt11align_val_t(pointer, alignment), true;
  if (KEG_FUNCTION(_ZdlPvSt11align_val_t) == keg_debug_delete_aligned) return false;
  if (is_array && KEG_FUNCTION(_ZnwmSt11align_val_t) == keg_aligned_new) return false;
  return _ZdlPvSt11align_val_t(pointer, alignment), true;
}

void *reallocarray(void *pointer, size_t count, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) return keg_debug_reallocarray(pointer, count, size);
  return realloc(pointer, bytes);
}
#endif
