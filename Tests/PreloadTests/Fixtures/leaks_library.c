// leaks_library.c: a library that holds memory by a static pointer, and by one in TLS.
#include <stdlib.h>

void *volatile kept;
__thread void *volatile kept_in_thread;

void keep(size_t size) { kept = malloc(size); }

void *keep_in_thread(void *size) {
  kept_in_thread = malloc((size_t)size);
  return kept_in_thread;
}
