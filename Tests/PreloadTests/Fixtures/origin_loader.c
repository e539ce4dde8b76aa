// A library with RUNPATH $ORIGIN that opens its neighbour by bare name: the dynamic
// loader uses the RUNPATH of whoever calls dlopen, so an interposed dlopen must not
// become the caller.
#include <dlfcn.h>

const char *open_neighbour(const char *name) {
  void *handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (!handle) return dlerror();
  dlclose(handle);
  return 0;
}
