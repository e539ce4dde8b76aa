// Opens origin_loader by its full path and has it open its neighbour by bare name,
// which only the loader's RUNPATH can find. Arguments: the loader, the bare name.
#include "fixture.h"
#include <dlfcn.h>

int main(int argc, char **argv) {
  CHECK(argc == 3);
  CHECK(dlopen(argv[2], RTLD_NOW) == NULL, "the neighbour is found without the RUNPATH");
  void *handle = dlopen(argv[1], RTLD_NOW);
  CHECK(handle != NULL, "%s", dlerror());
  const char *(*open_neighbour)(const char *) = dlsym(handle, "open_neighbour");
  CHECK(open_neighbour != NULL);
  const char *error = open_neighbour(argv[2]);
  CHECK(error == NULL, "%s", error);
  // dlopen(NULL) is the program itself, and failure leaves its message.
  CHECK(dlopen(NULL, RTLD_NOW) != NULL);
  CHECK(dlopen("/no/such/library.so", RTLD_NOW) == NULL && strstr(dlerror(), "/no/such/library.so"));
  return ok();
}
