// own_items: two threads, each of which allocates many small blocks and frees them in
// order, again and again. Neither has anything for the other.
#include <stdlib.h>

#include "fixture.h"

enum { BLOCKS = 100000, ROUNDS = 30 };

static void *rounds(void *unused) {
  (void)unused;
  void **blocks = malloc(BLOCKS * sizeof *blocks);
  for (int round = 0; round < ROUNDS; round++) {
    for (int i = 0; i < BLOCKS; i++) *(int *)(blocks[i] = malloc(24)) = i;
    for (int i = 0; i < BLOCKS; i++) free(blocks[i]);
  }
  free(blocks);
  return NULL;
}

int main(void) {
  pthread_t threads[2];
  for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, rounds, NULL);
  for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
  puts("ok");
  return 0;
}
