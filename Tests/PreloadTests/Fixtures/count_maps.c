// A library to preload: when the program ends, the number of lines in /proc/self/maps
// goes to the file that COUNT_MAPS names. It allocates nothing.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((destructor)) static void count(void) {
  static char buffer[1 << 16];
  const char *path = getenv("COUNT_MAPS");
  int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  if (path == NULL || maps < 0) return;
  int lines = 0;
  for (ssize_t count; (count = read(maps, buffer, sizeof buffer)) > 0;)
    for (ssize_t i = 0; i < count; i++) lines += buffer[i] == '\n';
  int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  dprintf(file, "%d\n", lines);
}
