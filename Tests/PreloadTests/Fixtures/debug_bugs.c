// debug_bugs.c: one bug a run: `debug_bugs CLASS SIZE same|other`. CLASS `none` is the same
// program without one. In C++ (debug_bugs_cxx.cc) blocks come from new[] and go by delete[].
#include "fixture.h"

#ifndef TAKE
#define TAKE(size) malloc(size)
#define GIVE(block) free(block)
#endif

static const char *class_name;
static size_t block_size;

__attribute__((noinline)) static char *allocating(size_t size) {
  char *block = (char *)hide(TAKE(size));
  memset(block, 1, size);
  return block;
}
__attribute__((noinline)) static void freeing(char *block) {
  GIVE(block);
  __asm__ volatile("");
}
static int is(const char *name) { return strcmp(class_name, name) == 0; }

__attribute__((noinline)) static void *faulting(void *argument) {
  char *block = (char *)argument;
  if (is("double-free")) {
    freeing(block);
  } else if (is("invalid-free")) {
    freeing(block + 8);
  } else if (is("use-after-free")) {
    block[block_size / 2] ^= 0x55;
  } else if (is("overflow")) {
    block[block_size] = 0;
  } else if (is("underflow")) {
    block[-1] = 0;
  }
  return NULL;
}

int main(int count, char **arguments) {
  CHECK(count == 4, "three arguments");
  class_name = arguments[1];
  block_size = strtoul(arguments[2], NULL, 10);
  char *before = allocating(block_size);
  char *block = allocating(block_size);
  char *after = allocating(block_size);
  int is_freed_before = is("double-free") || is("use-after-free");
  if (is_freed_before) freeing(block);
  if (strcmp(arguments[3], "other") == 0) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, faulting, block) == 0, "no thread");
    pthread_join(thread, NULL);
  } else {
    faulting(block);
  }
  if (!is_freed_before) freeing(block);
  freeing(after);
  freeing(before);
  return ok();
}
