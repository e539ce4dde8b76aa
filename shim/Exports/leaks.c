// leaks.c: the calls of kegmalloc.h that only the debug library answers.
#include <errno.h>

#include "platform.h"

int keg_leak_mark(void) {
  errno = ENOSYS;
  return -1;
}

long keg_leak_check(void) {
  errno = ENOSYS;
  return -1;
}

int keg_backtrace(void **frames, int limit) {
  (void)frames, (void)limit;
  errno = ENOSYS;
  return -1;
}

int keg_leak_request(const char *file) {
  (void)file;
  errno = ENOSYS;
  return -1;
}
