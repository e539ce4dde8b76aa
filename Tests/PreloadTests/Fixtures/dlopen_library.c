// The library opened with dlopen instead of preloaded: its malloc and free serve all
// threads that already run, and the program's own malloc stays what it was. Argument:
// the library's path.
#include "fixture.h"
#include <dlfcn.h>

static void *(*their_malloc)(size_t);
static void (*their_free)(void *);
static void *(*their_realloc)(void *, size_t);
static pthread_barrier_t barrier;
static void *_Atomic shared[64];

static void *serve(void *argument) {
  free(malloc(100));
  pthread_barrier_wait(&barrier);  // running before the library comes
  pthread_barrier_wait(&barrier);  // loaded
  uint64_t seed = (uintptr_t)argument + 1;
  for (int i = 0; i < 50000; i++) {
    size_t size = sizeof(size_t) + random_size(&seed, 100 * KIB);
    size_t *block = their_malloc(size);
    CHECK(block != NULL);
    if (i % 5 == 0) block = their_realloc(block, size += 1000);
    *block = size;
    block[size / sizeof *block - 1] = size;
    size_t *old = __atomic_exchange_n(&shared[random_next(&seed) % 64], block, __ATOMIC_ACQ_REL);
    if (old) {
      CHECK(old[*old / sizeof *old - 1] == *old);
      their_free(old);
    }
    free(malloc(size));  // the program's own
  }
  return NULL;
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  pthread_t threads[3];
  void *own[100];
  for (int i = 0; i < 100; i++) own[i] = malloc(i * 100);
  Dl_info before, after;
  CHECK(dladdr(dlsym(RTLD_DEFAULT, "malloc"), &before));
  pthread_barrier_init(&barrier, NULL, 4);
  for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, serve, (void *)(uintptr_t)i);
  pthread_barrier_wait(&barrier);

  void *handle = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  CHECK(handle != NULL, "%s", dlerror());
  their_malloc = dlsym(handle, "malloc");
  their_free = dlsym(handle, "free");
  their_realloc = dlsym(handle, "realloc");
  CHECK(their_malloc && their_free && their_realloc);
  CHECK(their_malloc != malloc, "the program's malloc changed");
  CHECK(dladdr(dlsym(RTLD_DEFAULT, "malloc"), &after) && before.dli_fbase == after.dli_fbase);
  pthread_barrier_wait(&barrier);
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  for (int i = 0; i < 100; i++) free(own[i]);
  // It asked never to be unloaded; closing it must be harmless.
  CHECK(dlclose(handle) == 0);
  void *block = their_malloc(100);
  CHECK(block != NULL);
  their_free(block);
  pthread_t last;
  pthread_barrier_init(&barrier, NULL, 1);
  pthread_create(&last, NULL, serve, (void *)9);
  pthread_join(last, NULL);
  return ok();
}
