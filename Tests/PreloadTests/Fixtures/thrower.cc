// thrower.cc: a library that throws and catches, and says who unwinds.
#include <dlfcn.h>
#include <unwind.h>

#include <string>

namespace {
struct Guard {
  int *count;
  ~Guard() { ++*count; }
};

__attribute__((noinline)) void fall(int depth, int *count) {
  Guard guard{count};
  if (depth == 0) throw std::string("caught");
  fall(depth - 1, count);
}
}  // namespace

// Returns the path of the library whose _Unwind_RaiseException this one is bound to.
extern "C" const char *throw_and_catch(int depth, int *unwound) {
  try {
    fall(depth, unwound);
  } catch (const std::string &what) {
    if (what != "caught") return "another exception";
    Dl_info info;
    if (!dladdr(reinterpret_cast<void *>(&_Unwind_RaiseException), &info)) return "nobody";
    return info.dli_fname;
  }
  return "no exception";
}
