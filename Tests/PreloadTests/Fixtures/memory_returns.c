// What is freed goes back to the kernel while the program lives on with light work.
// Peak of 256 MiB; within three seconds a fifth of it at most may still be resident.
// Argument: small, medium, large, or thread (freed in a thread that has ended); idle or
// idle-child (in a forked child): one more thread, and nobody calls the allocator any more.
#include "fixture.h"
#include <fcntl.h>
#include <sys/wait.h>

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

static void *rest(void *argument) {
  free(malloc(40));
  pause();
  return argument;
}

// Resident KiB, without a call of the allocator.
static size_t resident(void) {
  char text[200];
  int file = open("/proc/self/statm", O_RDONLY);
  ssize_t length = read(file, text, sizeof text - 1);
  close(file);
  CHECK(length > 0);
  text[length] = 0;
  return strtoul(strchr(text, ' '), NULL, 10) * 4;
}

// Only a thread of the allocator's own can give anything back now.
static void idle(void) {
  size_t left = 0;
  for (int turn = 0; turn < 200; turn++) {  // 200 × 50 ms
    usleep(50000);
    left = resident();
    if (left <= 256 * 1024 / 5) return;
  }
  CHECK(0, "%zu KiB still resident", left);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  int is_idle = !strncmp(argv[1], "idle", 4);
  pthread_t resting;
  if (is_idle) pthread_create(&resting, NULL, rest, NULL);
  if (!strcmp(argv[1], "idle-child")) {
    pid_t child = fork();
    if (child != 0) {
      int status;
      CHECK(waitpid(child, &status, 0) == child);
      return status;
    }
    pthread_create(&resting, NULL, rest, NULL);
  }
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
  if (is_idle) {
    idle();
    return ok();
  }
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
