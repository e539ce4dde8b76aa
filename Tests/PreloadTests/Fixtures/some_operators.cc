// some_operators.cc: a program that brings some operators new and delete, and which of
// them each of the twenty comes to. It prints that; the C++ library makes the others
// from what is there, so the output is the same with and without a preloaded library.
//   -DNEW            operator new(size), delete(p)
//   -DARRAY          operator new[](size), delete[](p)
//   -DALIGNED        operator new(size, alignment), delete(p, alignment)
//   -DALIGNED_ARRAY  the same with []
// Each puts a header before a block of malloc, which only its own delete takes off.
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#ifndef __clang__
#pragma GCC diagnostic ignored "-Wsized-deallocation"  // as such programs do
#endif

using std::align_val_t;
using std::nothrow;

static char called[200];
static void note(const char *name) {
  strcat(strcat(called, " "), name);
}

static const size_t header = 64;
static void *wrap(size_t size, size_t magic) {
  char *block = (char *)aligned_alloc(64, (size + header + 63) & ~size_t(63));
  if (!block) throw std::bad_alloc();
  *(size_t *)block = magic;
  return block + header;
}
static void unwrap(void *pointer, size_t magic) {
  if (!pointer) return;
  char *block = (char *)pointer - header;
  if (*(size_t *)block != magic) {
    printf("delete of what its new never gave\n");
    fflush(stdout);
    abort();
  }
  *(size_t *)block = 0;
  free(block);
}

#ifdef NEW
void *operator new(size_t size) { return note("new"), wrap(size, 1); }
void operator delete(void *pointer) noexcept { note("delete"), unwrap(pointer, 1); }
#endif
#ifdef ARRAY
void *operator new[](size_t size) { return note("new[]"), wrap(size, 2); }
void operator delete[](void *pointer) noexcept { note("delete[]"), unwrap(pointer, 2); }
#endif
#ifdef ALIGNED
void *operator new(size_t size, align_val_t) { return note("aligned new"), wrap(size, 3); }
void operator delete(void *pointer, align_val_t alignment) noexcept {
  note(size_t(alignment) == 64 ? "aligned delete" : "delete, alignment wrong");
  unwrap(pointer, 3);
}
#endif
#ifdef ALIGNED_ARRAY
void *operator new[](size_t size, align_val_t) { return note("aligned new[]"), wrap(size, 4); }
void operator delete[](void *pointer, align_val_t alignment) noexcept {
  note(size_t(alignment) == 64 ? "aligned delete[]" : "delete[], alignment wrong");
  unwrap(pointer, 4);
}
#endif

static void step(const char *what, void *pointer, void (*give)(void *)) {
  asm volatile("" : "+r"(pointer));
  give(pointer);
  printf("%s:%s\n", what, called);
  called[0] = 0;
}

int main() {
  const size_t n = 40;
  const align_val_t a{64};
#define ONE(NEW_CALL, DELETE_CALL) \
  step(#NEW_CALL " " #DELETE_CALL, NEW_CALL, [](void *p) { DELETE_CALL; })
#define PLAIN(NEW_CALL, DELETE)                    \
  ONE(NEW_CALL, ::operator DELETE(p));             \
  ONE(NEW_CALL, ::operator DELETE(p, size_t(40))); \
  ONE(NEW_CALL, ::operator DELETE(p, nothrow))
#define WITH_ALIGNMENT(NEW_CALL, DELETE)                            \
  ONE(NEW_CALL, ::operator DELETE(p, align_val_t{64}));             \
  ONE(NEW_CALL, ::operator DELETE(p, size_t(40), align_val_t{64})); \
  ONE(NEW_CALL, ::operator DELETE(p, align_val_t{64}, nothrow))
  PLAIN(::operator new(n), delete);
  PLAIN(::operator new(n, nothrow), delete);
  PLAIN(::operator new[](n), delete[]);
  PLAIN(::operator new[](n, nothrow), delete[]);
  WITH_ALIGNMENT(::operator new(n, a), delete);
  WITH_ALIGNMENT(::operator new(n, a, nothrow), delete);
  WITH_ALIGNMENT(::operator new[](n, a), delete[]);
  WITH_ALIGNMENT(::operator new[](n, a, nothrow), delete[]);
  return 0;
}
