// unloaded.c: modules that dlclose has taken away, so that stacks with their functions
// can still be read: where each lay, and its file.
//
//   dlclose: list what is loaded ─▶ the C library's dlclose ─▶ keep what is gone
#define _GNU_SOURCE
#include "unwind.h"

#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "platform.h"

enum { LISTED = 64, KEPT = 128, PATH_BYTES = 320 };

struct kept {
  uintptr_t base, start, end;
  unsigned char header[64];  // the first bytes of the file, to know it again
  char path[PATH_BYTES];
};

// One dlclose at a time; one inside another, by a destructor, lists nothing.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct kept listed[LISTED];  // the latest of those that are loaded
static int count;
static struct kept kept[KEPT];
static atomic_uint kept_count;  // of all that were ever kept; the latest KEPT are there

static void copy_path(char *to, const char *path) {
  size_t used = 0;
  if (path[0] != '/') {
    // getcwd(2) as a system call counts the final zero.
    long length = keg_syscall6(79 /* getcwd */, (long)to, PATH_BYTES / 2, 0, 0, 0, 0);
    if (length > 1 && to[0] == '/') {
      used = (size_t)length - 1;
      to[used++] = '/';
    }
    if (path[0] == '.' && path[1] == '/') path += 2;
  }
  size_t length = strlen(path);
  if (length > PATH_BYTES - 1 - used) length = PATH_BYTES - 1 - used;
  memcpy(to + used, path, length);
  to[used + length] = 0;
}

static int list(struct dl_phdr_info *info, size_t size, void *unused) {
  (void)size, (void)unused;
  if (!info->dlpi_name[0]) return 0;
  // The latest come last, and they are the ones that go.
  struct kept *module = &listed[count++ % LISTED];
  module->base = info->dlpi_addr;
  module->start = ~0ul;
  module->end = 0;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
    if (segment->p_type != PT_LOAD) continue;
    uintptr_t start = info->dlpi_addr + segment->p_vaddr;
    if (start < module->start) module->start = start;
    if (start + segment->p_memsz > module->end) module->end = start + segment->p_memsz;
  }
  if (keg_is_readable(module->start)) memcpy(module->header, (void *)module->start, 64);
  copy_path(module->path, info->dlpi_name);
  return 0;
}

bool keg_list_modules(void) {
  if (!keg_can_find_modules() || pthread_mutex_trylock(&lock) != 0) return false;
  count = 0;
  dl_iterate_phdr(list, NULL);
  return true;
}

void keg_keep_unloaded(void) {
  for (int i = count > LISTED ? count - LISTED : 0; i < count; i++) {
    const struct kept *gone = &listed[i % LISTED];
    struct keg_module now;
    if (keg_find_module(gone->start, &now) && now.base == gone->base) continue;
    unsigned int number = atomic_load_explicit(&kept_count, memory_order_relaxed);
    bool is_known = false;
    for (unsigned int k = 0; k < number && k < KEPT; k++)
      is_known |= kept[k].base == gone->base && strcmp(kept[k].path, gone->path) == 0;
    if (is_known) continue;
    kept[number % KEPT] = *gone;
    atomic_store_explicit(&kept_count, number + 1, memory_order_release);
  }
  pthread_mutex_unlock(&lock);
}

bool keg_find_unloaded(uintptr_t address, struct keg_module *module) {
  unsigned int number = atomic_load_explicit(&kept_count, memory_order_acquire);
  for (unsigned int i = 0; i < number && i < KEPT; i++) {
    const struct kept *gone = &kept[(number - 1 - i) % KEPT];
    if (address < gone->start || address >= gone->end) continue;
    memset(module, 0, sizeof *module);
    module->start = (uintptr_t)gone->header;
    module->end = module->start + sizeof gone->header;
    module->base = gone->base;
    module->path = gone->path;
    return true;
  }
  return false;
}
