// debug_bugs_cxx.cc: debug_bugs.c with the operators of C++.
#define TAKE(size) (new char[size])
#define GIVE(block) (delete[] (char *)(block))
#include "debug_bugs.c"
