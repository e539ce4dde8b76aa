// What is freed goes back to the kernel while the program lives on with light work.
// Peak of 256 MiB; within three seconds a fifth of it at most may still be resident.
// Argument: small, medium, large, or thread (freed in a thread that has ended).
#include "fixture.h"

static void **blocks;
static size_t count, size;

static void *allocate_and_free(void *argument) {
  for (size_t i = 0; i < count; i++) {
    blocks[i] = malloc(size);
    memset(blocks[i], 1, size);
  }
  if (!argument) CHECK(status_kib("VmRSS:") > 240 * 1024, "%zu KiB at the peak", status_kib("VmRSS:"));
  for (size_t i = 0; i < count; i++) free(blocks[i]);
  return NULL;
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  size = !strcmp(argv[1], "small") ? 160 : !strcmp(argv[1], "large") ? 4 * MIB : 10000;
  count = 256 * MIB / size;
  blocks = malloc(count * sizeof *blocks);
  memset(blocks, 0, count * sizeof *blocks);
  if (!strcmp(argv[1], "thread")) {
    pthread_t thread;
    pthread_create(&thread, NULL, allocate_and_free, NULL);
    pthread_join(thread, NULL);
  } else {
    allocate_and_free(NULL);
  }
  free(blocks);
  size_t left = 0;
  uint64_t seed = 1;
  for (int turn = 0; turn < 60; turn++) {  // 60 × 50 ms
    usleep(50000);
    for (int i = 0; i < 2000; i++) free(malloc(random_size(&seed, 100 * KIB)));
    left = status_kib("VmRSS:");
    if (left <= 256 * 1024 / 5) return ok();
  }
  CHECK(left <= 256 * 1024 / 5, "%zu KiB still resident", left);
}
