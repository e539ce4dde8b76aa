// operator new in a program without any C++ library, as a plugin host might meet it:
// the allocation works, nothrow answers NULL to the impossible, and the plain form,
// which has nobody to throw for it, dies with one clear line (argument `die`).
#include "fixture.h"
#include <dlfcn.h>

int main(int argc, char **argv) {
  (void)argv;
  void *(*new_plain)(size_t) = dlsym(RTLD_DEFAULT, "_Znwm");
  void *(*new_nothrow)(size_t, const void *) = dlsym(RTLD_DEFAULT, "_ZnwmRKSt9nothrow_t");
  void (*delete_plain)(void *) = dlsym(RTLD_DEFAULT, "_ZdlPv");
  CHECK(new_plain && new_nothrow && delete_plain);
  CHECK(dlopen("libstdc++.so.6", RTLD_NOW | RTLD_NOLOAD) == NULL, "a C++ library is loaded");
  void *block = new_plain(100);
  CHECK(block != NULL);
  delete_plain(block);
  CHECK(new_nothrow(hide_size(PTRDIFF_MAX), "") == NULL);
  if (argc > 1) new_plain(hide_size(PTRDIFF_MAX));
  return ok();
}
