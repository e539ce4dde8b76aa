// operators.c: the C++ operators new and delete, all twenty of them.
//
// Plain new and delete are the allocator's own functions under further names (see the
// Makefile's aliases), and program.c has those that only call another; here is what happens
// when a new fails: the C++ library's own operator is called in our place. It calls malloc
// once more, then new_handler, then throws bad_alloc, as its users expect; and we need no
// C++ library to link against. It is looked up only now.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "platform.h"

// What tries before that. The debug library is told by which operator memory came.
#ifdef KEG_DEBUG_LIBRARY
extern void *keg_debug_new(size_t size);
extern void *keg_debug_new_array(size_t size);
extern void *keg_debug_aligned_new(size_t alignment, size_t size);
extern void *keg_debug_aligned_new_array(size_t alignment, size_t size);
extern void *keg_own_new(size_t size) KEG_HIDDEN;
extern void *keg_own_new_array(size_t size) KEG_HIDDEN;
#define OUR_NEW keg_own_new
#define OUR_NEW_ARRAY keg_own_new_array
#define TRY_NEW keg_debug_new
#define TRY_NEW_ARRAY keg_debug_new_array
#define TRY_ALIGNED keg_debug_aligned_new
#define TRY_ALIGNED_ARRAY keg_debug_aligned_new_array
#else
extern void *keg_malloc(size_t size);
extern void *keg_memalign(size_t alignment, size_t size);
extern void *keg_new(size_t size) KEG_HIDDEN;
extern void *keg_new_array(size_t size) KEG_HIDDEN;
#define OUR_NEW keg_new
#define OUR_NEW_ARRAY keg_new_array
#define TRY_NEW keg_malloc
#define TRY_NEW_ARRAY keg_malloc
#define TRY_ALIGNED keg_memalign
#define TRY_ALIGNED_ARRAY keg_memalign
#endif
extern void *keg_aligned_new(size_t size, size_t alignment) KEG_HIDDEN;
extern void *keg_aligned_new_array(size_t size, size_t alignment) KEG_HIDDEN;

// Whose they are in this process (see program.c).
extern void *_Znwm(size_t), *_Znam(size_t);
extern void *_ZnwmSt11align_val_t(size_t, size_t), *_ZnamSt11align_val_t(size_t, size_t);

// Whether the program has none of the operators from which new, or new[], is made.
static bool is_ours(bool is_array) {
  return KEG_FUNCTION(_Znwm) == OUR_NEW && (!is_array || KEG_FUNCTION(_Znam) == OUR_NEW_ARRAY);
}

static bool is_ours_aligned(bool is_array) {
  return KEG_FUNCTION(_ZnwmSt11align_val_t) == keg_aligned_new &&
         (!is_array || KEG_FUNCTION(_ZnamSt11align_val_t) == keg_aligned_new_array);
}

// The next definition of `name` behind ours, or that of a C++ library that was
// loaded without being in the global scope.
static void *find_operator(const char *name) {
  void *found = dlsym(RTLD_NEXT, name);
  static const char *const libraries[] = {"libstdc++.so.6", "libc++.so.1"};
  for (int i = 0; !found && i < 2; i++) {
    void *library = dlopen(libraries[i], RTLD_LAZY | RTLD_NOLOAD);
    if (library) found = dlsym(library, name);
  }
  return found;
}

static _Noreturn void die_without_library(void) {
  static const char line[] =
      "kegmalloc: operator new: out of memory, and no C++ library to throw bad_alloc\n";
  keg_syscall6(KEG_SYS_write, 2, (long)line, sizeof line - 1, 0, 0, 0);
  keg_abort();
}

typedef void *plain_new(size_t);
typedef void *nothrow_new(size_t, const void *);
typedef void *aligned_new(size_t, size_t);
typedef void *aligned_nothrow_new(size_t, size_t, const void *);

static void *fail(const char *name, size_t size) {
  plain_new *next = (plain_new *)find_operator(name);
  if (!next) die_without_library();
  return next(size);
}

static void *fail_nothrow(const char *name, size_t size, const void *tag) {
  nothrow_new *next = (nothrow_new *)find_operator(name);
  return next ? next(size, tag) : NULL;
}

// libstdc++ 12 rounds the size up to the alignment, and gives a small block when that
// overflows. Its operators without alignment fail as they should.
static bool overflows(size_t size, size_t alignment) { return size > SIZE_MAX - alignment; }

static void *fail_aligned(const char *name, size_t size, size_t alignment) {
  if (overflows(size, alignment)) return fail("_Znwm", size);
  aligned_new *next = (aligned_new *)find_operator(name);
  if (!next) die_without_library();
  return next(size, alignment);
}

static void *fail_aligned_nothrow(const char *name, size_t size,
                                  size_t alignment, const void *tag) {
  if (overflows(size, alignment)) return fail_nothrow("_ZnwmRKSt9nothrow_t", size, tag);
  aligned_nothrow_new *next = (aligned_nothrow_new *)find_operator(name);
  return next ? next(size, alignment, tag) : NULL;
}

// keg_new is the fast path in Swift; it ends here.
void *keg_new_failed(size_t size) { return fail("_Znwm", size); }

#ifdef KEG_DEBUG_LIBRARY
void *keg_own_new(size_t size) {
  void *block = TRY_NEW(size);
  return block ? block : keg_new_failed(size);
}

void *keg_own_new_array(size_t size) {
  if (!is_ours(false)) return _Znwm(size);
  void *block = TRY_NEW_ARRAY(size);
  return block ? block : fail("_Znam", size);
}
#endif

// The C++ library's calls the program's operator, which may throw.
void *_ZnwmRKSt9nothrow_t(size_t size, const void *tag) {
  void *block = is_ours(false) ? TRY_NEW(size) : NULL;
  return block ? block : fail_nothrow("_ZnwmRKSt9nothrow_t", size, tag);
}

void *_ZnamRKSt9nothrow_t(size_t size, const void *tag) {
  void *block = is_ours(true) ? TRY_NEW_ARRAY(size) : NULL;
  return block ? block : fail_nothrow("_ZnamRKSt9nothrow_t", size, tag);
}

static bool is_power_of_two(size_t n) { return n != 0 && (n & (n - 1)) == 0; }

static void *try_aligned(size_t size, size_t alignment) {
  return is_power_of_two(alignment) ? TRY_ALIGNED(alignment, size) : NULL;
}

void *keg_aligned_new(size_t size, size_t alignment) {
  void *block = try_aligned(size, alignment);
  return block ? block : fail_aligned("_ZnwmSt11align_val_t", size, alignment);
}

#ifdef KEG_DEBUG_LIBRARY
static void *try_aligned_array(size_t size, size_t alignment) {
  return is_power_of_two(alignment) ? TRY_ALIGNED_ARRAY(alignment, size) : NULL;
}

void *keg_aligned_new_array(size_t size, size_t alignment) {
  if (!is_ours_aligned(false)) return _ZnwmSt11align_val_t(size, alignment);
  void *block = try_aligned_array(size, alignment);
  return block ? block : fail_aligned("_ZnamSt11align_val_t", size, alignment);
}
#else
#define try_aligned_array try_aligned
#endif

void *_ZnwmSt11align_val_tRKSt9nothrow_t(size_t size, size_t alignment,
                                         const void *tag) {
  void *block = is_ours_aligned(false) ? try_aligned(size, alignment) : NULL;
  return block ? block
               : fail_aligned_nothrow("_ZnwmSt11align_val_tRKSt9nothrow_t",
                                      size, alignment, tag);
}

void *_ZnamSt11align_val_tRKSt9nothrow_t(size_t size, size_t alignment,
                                         const void *tag) {
  void *block = is_ours_aligned(true) ? try_aligned_array(size, alignment) : NULL;
  return block ? block
               : fail_aligned_nothrow("_ZnamSt11align_val_tRKSt9nothrow_t",
                                      size, alignment, tag);
}
