// fork_fault.c: a program whose fork handler runs between those of the allocator, as it was
// registered before them, and faults: `fork_fault freed`, at a freed block, which only guard
// pages notice; `fork_fault own`, at a page of its own, for its own handler of SIGSEGV.
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "fixture.h"

static char *volatile place;
static int handled;

static void prepare(void) {
  if (place) (void)*(volatile char *)place;
}

// Before every constructor, and before the first malloc.
static void register_early(void) { pthread_atfork(prepare, NULL, NULL); }
__attribute__((section(".preinit_array"), used)) static void (*early)(void) = register_early;

static void open_page(int number) {
  (void)number;
  handled++;
  CHECK(mprotect(place, 4096, PROT_READ) == 0);
}

int main(int count, char **words) {
  CHECK(count == 2);
  if (strcmp(words[1], "own") == 0) {
    struct sigaction action = {.sa_handler = open_page};
    CHECK(sigaction(SIGSEGV, &action, NULL) == 0);
    place = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  } else {
    place = hide(malloc(100));
    free(place);
  }
  pid_t child = fork();
  if (child == 0) _exit(0);
  int status;
  CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
  CHECK(handled == (strcmp(words[1], "own") == 0));
  return ok();
}
