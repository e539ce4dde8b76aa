// throw_host.c: a C program that loads a C++ library, in which exceptions fly. libgcc_s
// must unwind them, though the debug library has loaded libunwind, which has functions
// of the same names.
#include <dlfcn.h>

#include "fixture.h"

int main(int argc, char **argv) {
  CHECK(argc == 2);
  char maps[64 * 1024];
  FILE *file = fopen("/proc/self/maps", "r");
  maps[fread(maps, 1, sizeof maps - 1, file)] = 0;
  fclose(file);
  CHECK(strstr(maps, "libunwind"), "libunwind is not loaded");
  void *library = dlopen(argv[1], RTLD_NOW);
  CHECK(library, "%s", dlerror());
  const char *(*throw_and_catch)(int, int *) =
      (const char *(*)(int, int *))dlsym(library, "throw_and_catch");
  for (int i = 0; i < 100; i++) {
    int unwound = 0;
    const char *server = throw_and_catch(i, &unwound);
    CHECK(strstr(server, "libgcc_s"), "served by %s", server);
    CHECK(unwound == i + 1, "%d frames", unwound);
  }
  puts("ok");
  return 0;
}
