// guard_faults.c: one access a run that a guard page stops:
// `guard_faults ACCESS SIZE same|other malloc|calloc|realloc|memalign`. ACCESS `none` is
// the same program without it.
#include "fixture.h"

static const char *access_name, *call_name;
static size_t block_size;

// Far more than any block here has.
static char elsewhere[1 << 19];

static int is(const char *name) { return strcmp(access_name, name) == 0; }

__attribute__((noinline)) static char *allocating(size_t size) {
  char *block;
  if (strcmp(call_name, "calloc") == 0) {
    block = calloc(1, size);
    CHECK(is_zero(block, size), "calloc");
  } else if (strcmp(call_name, "realloc") == 0) {
    block = malloc(size / 2 + 1);
    mark(block, size / 2 + 1, 7);
    block = realloc(block, size);
    CHECK(is_marked(block, size < size / 2 + 1 ? size : size / 2 + 1, 7), "realloc");
  } else if (strcmp(call_name, "memalign") == 0) {
    block = aligned_alloc(256, size);
    CHECK((uintptr_t)block % 256 == 0, "%p", (void *)block);
  } else {
    block = malloc(size);
  }
  CHECK(block, "no memory");
  block = hide(block);
  memset(block, 1, size);
  return block;
}
__attribute__((noinline)) static void freeing(char *block) {
  free(block);
  __asm__ volatile("");
}

__attribute__((noinline)) static void *faulting(void *argument) {
  volatile char *block = argument;
  if (is("over-read")) (void)block[block_size];
  if (is("far-read")) (void)block[block_size + 1500];
  if (is("over-write")) block[block_size] = 1;
  if (is("under-read")) (void)block[-1];
  if (is("far-under-read")) (void)block[-1500];
  if (is("under-write")) block[-1] = 1;
  // The C library's copy touches the last bytes early.
  if (is("copy-from")) memcpy(elsewhere, argument, block_size + 40000);
  if (is("copy-to")) memcpy(argument, elsewhere, block_size + 40000);
  // Through the gap behind the block into the page that faults, or the other way.
  volatile char *last = (char *)(((uintptr_t)block + block_size + 4095) / 4096 * 4096 + 100);
  if (is("through"))
    for (volatile char *at = block + block_size; at <= last; at++) *at = 1;
  if (is("through-back"))
    for (volatile char *at = last; at >= block + block_size; at--) *at = 1;
  if (is("freed-read")) (void)block[block_size / 2];
  if (is("freed-write")) block[block_size / 2] = 1;
  return NULL;
}

int main(int count, char **arguments) {
  CHECK(count == 5, "four arguments");
  access_name = arguments[1];
  block_size = strtoul(arguments[2], NULL, 10);
  call_name = arguments[4];
  char *before = allocating(block_size);
  char *block = allocating(block_size);
  char *after = allocating(block_size);
  int is_freed = is("freed-read") || is("freed-write");
  if (is_freed) freeing(block);
  if (strcmp(arguments[3], "other") == 0) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, faulting, block) == 0, "no thread");
    pthread_join(thread, NULL);
  } else {
    faulting(block);
  }
  if (!is_freed) freeing(block);
  freeing(before);
  freeing(after);
  return ok();
}
