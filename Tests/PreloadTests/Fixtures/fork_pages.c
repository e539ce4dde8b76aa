// The pages that a fork costs a process of one thread, whose child ends at once: prints
// the page faults of parent and child together, a fork.
#include "fixture.h"
#include <sys/resource.h>
#include <sys/wait.h>

static long faults(void) {
  struct rusage own, children;
  getrusage(RUSAGE_SELF, &own);
  getrusage(RUSAGE_CHILDREN, &children);
  return own.ru_minflt + children.ru_minflt;
}

int main(void) {
  enum { FORKS = 100 };
  // Blocks of some fifty sizes that stay, so that there is a heap to copy.
  for (size_t size = 8; size < 4 * KIB; size += size / 8 + 8)
    for (int i = 0; i < 10; i++) memset(malloc(size), 1, size);
  long before = 0;
  for (int i = -1; i < FORKS; i++) {
    if (i == 0) before = faults();
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) _exit(0);
    CHECK(waitpid(child, NULL, 0) == child);
  }
  printf("%ld\n", (faults() - before + FORKS / 2) / FORKS);
  return 0;
}
