// huge.c: how much of a heap of 64 MiB in blocks of 1,000 bytes lies in huge pages: at
// least, or at most, so many MiB as the arguments say.
#include "fixture.h"

int main(int count, char **arguments) {
  CHECK(count == 3);
  char text[4096] = "";
  FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
  if (!file || !fgets(text, sizeof text, file) || strstr(text, "[never]")) return ok();
  fclose(file);
  for (int i = 0; i < 64 << 10; i++) memset(hide(malloc(1000)), i, 1000);
  CHECK((file = fopen("/proc/self/smaps_rollup", "r")) != NULL);
  long kibibytes = -1;
  while (fgets(text, sizeof text, file)) sscanf(text, "AnonHugePages: %ld kB", &kibibytes);
  fclose(file);
  long bound = atol(arguments[2]) << 10;
  CHECK(kibibytes >= 0 && (strcmp(arguments[1], "least") == 0 ? kibibytes >= bound : kibibytes <= bound),
        "%ld KiB", kibibytes);
  return ok();
}
