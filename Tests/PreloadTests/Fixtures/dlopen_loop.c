// Libraries opened and closed while other threads allocate: the loader allocates
// under its own lock, and thread-local storage comes and goes. Argument: a library.
#include "fixture.h"
#include <dlfcn.h>

static volatile int stop;
static void *busy(void *argument) {
  uint64_t seed = (uintptr_t)argument + 1;
  while (!stop) {
    char *block = malloc(random_size(&seed, 50000));
    free(malloc(100));
    free(block);
  }
  return NULL;
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  pthread_t threads[3];
  for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, busy, (void *)(uintptr_t)i);
  for (int i = 0; i < 300; i++) {
    void *handle = dlopen(argv[1], i % 2 ? RTLD_NOW : RTLD_LAZY | RTLD_DEEPBIND);
    CHECK(handle != NULL, "%s", dlerror());
    CHECK(dlsym(handle, "no_such_symbol") == NULL && dlerror() != NULL);
    CHECK(dlclose(handle) == 0);
  }
  stop = 1;
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  return ok();
}
