// no_vdso.c: opens the library where the kernel seems to have no vDSO, as most emulators
// have none, and prints how many GiB of address space it takes.
//   no_vdso LIBRARY hide|keep
#include <dlfcn.h>
#include <elf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

static unsigned long address_space(void) {
  unsigned long pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (!file || fscanf(file, "%lu", &pages) != 1) exit(2);
  fclose(file);
  return pages * sysconf(_SC_PAGESIZE) >> 30;
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  // The auxiliary vector, which getauxval reads, lies behind the environment.
  char **last = environ;
  while (*last) last++;
  for (Elf64_auxv_t *entry = (Elf64_auxv_t *)(last + 1); entry->a_type != AT_NULL; entry++)
    if (entry->a_type == AT_SYSINFO_EHDR && strcmp(argv[2], "hide") == 0) entry->a_type = AT_IGNORE;
  if ((getauxval(AT_SYSINFO_EHDR) == 0) != (strcmp(argv[2], "hide") == 0)) return 2;
  unsigned long before = address_space();
  void *library = dlopen(argv[1], RTLD_NOW);
  void *(*allocate)(size_t) = library ? (void *(*)(size_t))dlsym(library, "malloc") : NULL;
  if (!allocate || !allocate(100)) return 2;
  printf("%lu\n", address_space() - before);
  return 0;
}
