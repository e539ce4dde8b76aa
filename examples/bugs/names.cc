// names.cc: an array of C++ that C's free gets.
#include <cstdio>
#include <cstdlib>
#include <cstring>

static char *copy(const char *text) {
  char *result = new char[strlen(text) + 1];
  return strcpy(result, text);
}

int main() {
  char *name = copy("kegmalloc");
  puts(name);
#ifndef FIXED
  free(name);
#else
  delete[] name;
#endif
  return 0;
}
