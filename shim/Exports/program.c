// program.c: programs that bring a malloc of their own, or some operators new and delete.
//
// The program comes before a preloaded library: what it defines is called instead of
// ours. What it leaves out, the C and C++ libraries would make from what it defines: a
// sized delete calls its plain delete, reallocarray its realloc. As do we, the fast library
// as far as blocks would else go to the wrong heap:
//
//   new of the program's ──▶ block outside our heap ──▶ our sized delete ──▶ its delete
//
// References to these names go through the table that the loader fills, so that they tell
// who has the name (--dynamic-list in the Makefile).
#include <stdbool.h>
#include <stddef.h>

#include "platform.h"

extern void _ZdlPv(void *);

#ifdef KEG_DEBUG_LIBRARY
extern void keg_debug_delete(void *) KEG_HIDDEN;
extern void keg_debug_delete_array(void *) KEG_HIDDEN;
extern void _ZdaPv(void *), *_Znwm(size_t), *keg_own_new(size_t) KEG_HIDDEN;
extern void *realloc(void *, size_t);
extern void *keg_debug_reallocarray(void *, size_t, size_t);
#define OUR_DELETE keg_debug_delete
#else
extern void keg_free(void *) KEG_HIDDEN;
#define OUR_DELETE keg_free
#endif

// The program's function may know the block no better and pass it to us.
static void *asked;

bool keg_program_free(void *pointer) {
  void (*own)(void *) = KEG_FUNCTION(_ZdlPv);
  if (own == OUR_DELETE || __atomic_load_n(&asked, __ATOMIC_RELAXED) == pointer) return false;
  __atomic_store_n(&asked, pointer, __ATOMIC_RELAXED);
  own(pointer);
  __atomic_store_n(&asked, NULL, __ATOMIC_RELAXED);
  return true;
}

#ifdef KEG_DEBUG_LIBRARY
// Sized deletes go to the plain one that the program has, delete[] to its delete if new[]
// went to its new (operators.c).
bool keg_program_delete(void *pointer, bool is_array) {
  if (is_array && KEG_FUNCTION(_ZdaPv) != keg_debug_delete_array) return _ZdaPv(pointer), true;
  if (KEG_FUNCTION(_ZdlPv) == keg_debug_delete) return false;
  if (is_array && KEG_FUNCTION(_Znwm) == keg_own_new) return false;
  return _ZdlPv(pointer), true;
}
void *reallocarray(void *pointer, size_t count, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) return keg_debug_reallocarray(pointer, count, size);
  return realloc(pointer, bytes);
}
#endif
