// path.c: a path is put together, in one byte too few.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *join(const char *directory, const char *name) {
#ifndef FIXED
  char *path = malloc(strlen(directory) + 1 + strlen(name));
#else
  char *path = malloc(strlen(directory) + 1 + strlen(name) + 1);
#endif
  sprintf(path, "%s/%s", directory, name);
  return path;
}

int main(void) {
  char *path = join("/usr/share", "dict");
  puts(path);
  free(path);
  return 0;
}
