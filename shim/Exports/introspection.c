// introspection.c: glibc's questions to its malloc, answered from our data. Here
// only because of their C types: struct mallinfo by value and FILE.
#include <errno.h>
#include <malloc.h>
#include <stdio.h>

#include "platform.h"

// Sources/Stats: writes to a descriptor, or hands text over in pieces.
extern void keg_print_statistics(int descriptor) KEG_HIDDEN;
extern void keg_write_malloc_info(void (*write)(void *, const char *, long),
                                  void *context) KEG_HIDDEN;
extern void keg_read_mallinfo(size_t *figures) KEG_HIDDEN;

struct mallinfo2 mallinfo2(void) {
  size_t f[10] = {0};
  keg_read_mallinfo(f);
  return (struct mallinfo2){f[0], f[1], f[2], f[3], f[4],
                            f[5], f[6], f[7], f[8], f[9]};
}

static int clamp(size_t value) {
  return value > 0x7FFFFFFF ? 0x7FFFFFFF : (int)value;
}

struct mallinfo mallinfo(void) {
  struct mallinfo2 m = mallinfo2();
  return (struct mallinfo){clamp(m.arena),    clamp(m.ordblks),
                           clamp(m.smblks),   clamp(m.hblks),
                           clamp(m.hblkhd),   clamp(m.usmblks),
                           clamp(m.fsmblks),  clamp(m.uordblks),
                           clamp(m.fordblks), clamp(m.keepcost)};
}

void malloc_stats(void) { keg_print_statistics(2); }

static void write_to_file(void *file, const char *text, long count) {
  fwrite(text, 1, (size_t)count, file);
}

int malloc_info(int options, FILE *stream) {
  if (options != 0) return EINVAL;
  keg_write_malloc_info(write_to_file, stream);
  return 0;
}

// No parameter of glibc's malloc has a meaning here: accepted, without effect.
int mallopt(int parameter, int value) {
  (void)parameter;
  (void)value;
  return 1;
}

// ---- the table at exit ----------------------------------------------------------

extern void keg_report_at_exit(void) KEG_HIDDEN;

__attribute__((destructor)) static void at_exit(void) { keg_report_at_exit(); }

const char *keg_version(void) { return KEG_VERSION; }
