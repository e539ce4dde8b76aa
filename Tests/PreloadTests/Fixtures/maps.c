// A workload of all sizes, threads and forks; then the number of lines in
// /proc/self/maps is printed. Two runs, with and without the library, are compared.
// Argument: small, mixed, large, threads or huge.
#include "fixture.h"

static void churn(uint64_t seed, int steps, int live, size_t limit, int with_realloc) {
  char **blocks = calloc(live, sizeof *blocks);
  for (int step = 0; step < steps; step++) {
    int i = random_next(&seed) % live;
    size_t size = random_size(&seed, limit) + 1;
    if (blocks[i] && with_realloc && step % 3) {
      blocks[i] = realloc(blocks[i], size);
      blocks[i][size - 1] = 1;
    } else if (blocks[i]) {
      free(blocks[i]);
      blocks[i] = NULL;
    } else {
      blocks[i] = malloc(size);
      CHECK(blocks[i] != NULL, "size %zu", size);
      blocks[i][0] = blocks[i][size - 1] = 1;
    }
  }
  for (int i = 0; i < live; i += 2) free(blocks[i]);  // half stays
}

static void *in_thread(void *argument) {
  churn((uintptr_t)argument + 1, 20000, 500, 100 * KIB, 1);
  return NULL;
}

int main(int argc, char **argv) {
  const char *kind = argc > 1 ? argv[1] : "mixed";
  if (!strcmp(kind, "small")) {
    churn(1, 1000000, 200000, 2000, 0);
  } else if (!strcmp(kind, "mixed")) {
    churn(2, 100000, 2000, 2 * MIB, 1);
  } else if (!strcmp(kind, "large")) {
    churn(3, 5000, 200, 8 * MIB, 1);
  } else if (!strcmp(kind, "huge")) {
    char *block = NULL;
    for (size_t size = MIB; size < GIB; size += 37 * MIB) {
      block = realloc(block, size);
      block[size - 1] = 1;
      churn(size, 100, 20, 30 * MIB, 1);
    }
  } else {
    pthread_t threads[16];
    for (int round = 0; round < 3; round++) {
      for (int i = 0; i < 16; i++) pthread_create(&threads[i], NULL, in_thread, (void *)(uintptr_t)i);
      for (int i = 0; i < 16; i++) pthread_join(threads[i], NULL);
    }
  }
  FILE *file = fopen("/proc/self/maps", "r");
  CHECK(file != NULL);
  int lines = 0;
  for (int c; (c = getc(file)) != EOF;) lines += c == '\n';
  printf("%d\n", lines);
  return 0;
}
