// debug_descriptors.c: file descriptors of the program and of the debug library.
//   first        says which number the first file that is opened gets
//   reused       closes all but 0 to 2, as a daemon does, opens one file under all
//                numbers up to 400, and frees a block twice; nobody may write to that file
//   reused-late  the same after a first report
#include "fixture.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static void free_twice(size_t size) {
  void *block = hide(malloc(size));
  free(block);
  free(hide(block));
}

static void reuse(void) {
  for (int i = 3; i < 1024; i++) close(i);
  char name[] = "/tmp/descriptors.XXXXXX";
  int file = mkstemp(name);
  CHECK(file >= 0 && unlink(name) == 0, "no file: %d", errno);
  while (file < 400) {
    file = dup(file);
    CHECK(file >= 0, "dup: %d", errno);
  }
}

static void expect_untouched(void) {
  struct stat about;
  CHECK(fstat(400, &about) == 0 && about.st_size == 0, "%ld bytes were written", (long)about.st_size);
}

int main(int count, char **arguments) {
  CHECK(count == 2, "a case");
  const char *name = arguments[1];
  if (strcmp(name, "first") == 0) {
    printf("%d\n", open("/dev/null", O_RDONLY));
    return 0;
  }
  if (strcmp(name, "reused-late") == 0) free_twice(40);
  reuse();
  free_twice(80);
  expect_untouched();
  return ok();
}
