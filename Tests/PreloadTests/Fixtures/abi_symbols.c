// Every symbol of the malloc surface, looked up as a program's own references are,
// must come from the library whose path is the first argument: an entry point that
// is missing would hand out or take back memory of another heap.
#include "fixture.h"
#include <dlfcn.h>

static const char *const names[] = {
    "malloc", "free", "calloc", "realloc", "reallocarray", "posix_memalign", "aligned_alloc", "memalign",
    "valloc", "pvalloc", "malloc_usable_size", "cfree", "free_sized", "free_aligned_sized",
    "mallopt", "mallinfo", "mallinfo2", "malloc_stats", "malloc_info", "malloc_trim",
    // operator new and new[]: plain, nothrow, aligned, aligned nothrow
    "_Znwm", "_Znam", "_ZnwmRKSt9nothrow_t", "_ZnamRKSt9nothrow_t", "_ZnwmSt11align_val_t",
    "_ZnamSt11align_val_t", "_ZnwmSt11align_val_tRKSt9nothrow_t", "_ZnamSt11align_val_tRKSt9nothrow_t",
    // operator delete and delete[]: plain, sized, nothrow, aligned, aligned nothrow, sized aligned
    "_ZdlPv", "_ZdaPv", "_ZdlPvm", "_ZdaPvm", "_ZdlPvRKSt9nothrow_t", "_ZdaPvRKSt9nothrow_t",
    "_ZdlPvSt11align_val_t", "_ZdaPvSt11align_val_t", "_ZdlPvSt11align_val_tRKSt9nothrow_t",
    "_ZdaPvSt11align_val_tRKSt9nothrow_t", "_ZdlPvmSt11align_val_t", "_ZdaPvmSt11align_val_t",
    // calls that must know about our address space, or about our heap
    "dlopen", "setrlimit", "setrlimit64", "prlimit", "prlimit64", "mlockall",
};

int main(int argc, char **argv) {
  CHECK(argc == 2);
  char wanted[4096], found[4096];
  CHECK(realpath(argv[1], wanted) != NULL);
  int missing = 0;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    void *symbol = dlsym(RTLD_DEFAULT, names[i]);
    Dl_info info;
    const char *file = "nowhere";
    if (symbol && dladdr(symbol, &info) && realpath(info.dli_fname, found)) file = found;
    if (strcmp(file, wanted) != 0) {
      dprintf(2, "%s comes from %s\n", names[i], file);
      missing++;
    }
  }
  CHECK(missing == 0, "%d symbols are not the library's", missing);
  return ok();
}
