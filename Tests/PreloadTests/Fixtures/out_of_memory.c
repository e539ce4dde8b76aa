// Out of memory under a limit on address space: NULL and ENOMEM, nothing lost of
// what was there, and the allocator works again once memory was freed. Argument:
// small, large or mixed blocks.
#include "fixture.h"
#include <sys/resource.h>

// A list through the blocks themselves: counting must not need memory.
struct block {
  struct block *next;
  size_t size;
  unsigned owner;
};

static struct block *list;
static unsigned count;

static int take(size_t size) {
  errno = 0;
  struct block *block = malloc(size);
  if (!block) {
    CHECK(errno == ENOMEM, "errno %d", errno);
    return 0;
  }
  block->next = list;
  block->size = size;
  block->owner = ++count;
  mark(block + 1, (size < 5000 ? size : 5000) - sizeof *block, block->owner);
  list = block;
  return 1;
}

static void release_all(void) {
  while (list) {
    struct block *block = list;
    CHECK(is_marked(block + 1, (block->size < 5000 ? block->size : 5000) - sizeof *block, block->owner),
          "block of %zu damaged", block->size);
    list = block->next;
    free(block);
  }
}

int main(int argc, char **argv) {
  const char *kind = argc > 1 ? argv[1] : "mixed";
  uint64_t seed = 5;
  struct rlimit limit = {256 * MIB, 256 * MIB};
  CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
  size_t first_round = 0;
  for (int round = 0; round < 4; round++) {
    size_t total = 0;
    for (;;) {
      size_t size = strcmp(kind, "small") == 0   ? 200
                    : strcmp(kind, "large") == 0 ? MIB
                                                 : random_size(&seed, 4 * MIB) + sizeof(struct block);
      if (!take(size)) break;
      total += size;
    }
    // Refusal of a large block must not take small ones away, nor the other way round.
    CHECK(total > 64 * MIB, "round %d: only %zu bytes", round, total);
    errno = 0;
    CHECK(malloc(512 * MIB) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(calloc(1, 512 * MIB) == NULL && errno == ENOMEM);
    void *untouched = &seed;
    CHECK(posix_memalign(&untouched, 4096, 512 * MIB) == ENOMEM && untouched == &seed);
    struct block *kept = list;
    CHECK(realloc(kept, 512 * MIB) == NULL && errno == ENOMEM && list == kept);
    release_all();
    if (round == 0) first_round = total;
    CHECK(total > first_round / 2, "round %d: %zu bytes after %zu", round, total, first_round);
    void *again = malloc(32 * MIB);
    CHECK(again != NULL, "nothing to be had after everything was freed");
    free(again);
  }
  return ok();
}
