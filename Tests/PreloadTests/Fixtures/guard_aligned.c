// guard_aligned.c: moves that insist on multiples of 16, made to blocks whose alignment
// on the right of a page is less, and alignments that were asked for:
// `guard_aligned moves|freed|beyond|asked`.
#include "fixture.h"

__attribute__((noinline)) static void store(char *to, const char *from) {
  __asm__ volatile("movups (%1), %%xmm9\n movaps %%xmm9, (%0)" : : "r"(to), "r"(from) : "xmm9", "memory");
}
__attribute__((noinline)) static void load(const char *from, char *to) {
  __asm__ volatile("pxor %%xmm3, %%xmm3\n movdqa (%0), %%xmm3\n movups %%xmm3, (%1)"
                   : : "r"(from), "r"(to) : "xmm3", "memory");
}

static void ask(void) {
  for (size_t alignment = 1; alignment <= 8192; alignment *= 2)
    for (size_t size = 1; size < 200; size++) {
      void *block = NULL;
      if (alignment >= sizeof block) CHECK(posix_memalign(&block, alignment, size) == 0, "%zu", alignment);
      else block = aligned_alloc(alignment, size);
      CHECK(block && (uintptr_t)block % alignment == 0, "%p: %zu, %zu", block, alignment, size);
      memset(block, 1, size);
      free(block);
    }
}

int main(int count, char **arguments) {
  CHECK(count == 2, "one argument");
  char text[17] = "0123456789abcdef", copy[17] = "";
  char *block = hide(malloc(24));
  memset(block, 'x', 24);
  if (strcmp(arguments[1], "moves") == 0) {
    store(block, text);
    CHECK(memcmp(block, "0123456789abcdefxxxxxxxx", 24) == 0, "%.24s", block);
    store(block + 8, text);
    CHECK(memcmp(block, "012345670123456789abcdef", 24) == 0, "%.24s", block);
    load(block, copy);
    CHECK(strcmp(copy, "0123456701234567") == 0, "%s", copy);
    // Every form of an address.
    uintptr_t four = 4;
    char *far = block - 1000;
    __asm__ volatile("movups (%1), %%xmm1\n movapd %%xmm1, 1000(%0)" : : "r"(far), "r"(text) : "xmm1", "memory");
    CHECK(memcmp(block, text, 16) == 0, "a displacement");
    __asm__ volatile("movups (%2), %%xmm12\n movntdq %%xmm12, -8(%0,%1,4)"
                     : : "r"(block), "r"(four), "r"(text) : "xmm12", "memory");
    CHECK(memcmp(block + 8, text, 16) == 0, "base, index and displacement");
    register char *r13 __asm__("r13") = block;
    __asm__ volatile("pxor %%xmm7, %%xmm7\n movaps %%xmm7, (%0)" : : "r"(r13) : "xmm7", "memory");
    CHECK(is_zero(block, 16), "r13");
  } else if (strcmp(arguments[1], "asked") == 0) {
    ask();
  } else if (strcmp(arguments[1], "freed") == 0) {
    free(block);
    load(block, copy);
  } else {
    store(block + 16, text);
  }
  free(block);
  return ok();
}
