// zones.c: what zones of programs need of the machine: steps outside for their
// functions, the empty table of bins, the number of the CPU.
#include "platform.h"

// ---- steps ----------------------------------------------------------------------

static uintptr_t (*step_outside)(void);
static void (*step_inside)(uintptr_t);

void keg_set_steps(uintptr_t (*outside)(void), void (*inside)(uintptr_t)) {
  step_inside = inside;
  step_outside = outside;
}
uintptr_t keg_step_outside(void) { return step_outside ? step_outside() : 0; }
void keg_step_inside(uintptr_t section) {
  if (section) step_inside(section);
}

// ---- bins ------------------------------------------------------------------------

// Never written: reading it maps the kernel's zero page.
static char empty_table[KEG_ZONE_TABLE_BYTES] __attribute__((aligned(64)));

uintptr_t keg_empty_zone_table(void) { return (uintptr_t)empty_table; }

void keg_publish_empty_zone_table(void) {
  const uintptr_t arrays[] = {keg_bins_unattached(), keg_bins_busy(), keg_bins_dead()};
  for (int i = 0; i < 3; i++) ((uintptr_t *)arrays[i])[-1] = (uintptr_t)empty_table;
}

// ---- items -----------------------------------------------------------------------

uintptr_t keg_find_null(uintptr_t items, uintptr_t count) {
  const uintptr_t *word = (const uintptr_t *)items, *end = word + count;
  // Eight at a time: two instructions each.
  for (; end - word >= 8; word += 8)
    if (!word[0] || !word[1] || !word[2] || !word[3] || !word[4] || !word[5] || !word[6] || !word[7]) break;
  for (; word != end; word++)
    if (!*word) return (uintptr_t)word;
  return 0;
}

// ---- CPU -------------------------------------------------------------------------

extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned __rseq_size __attribute__((weak));

unsigned keg_cpu(void) {
  if (&__rseq_size != 0 && __rseq_size != 0) {
    // struct rseq: cpu_id_start, cpu_id. Negative while not registered.
    int cpu = *(volatile int *)(keg_thread_pointer() + (uintptr_t)__rseq_offset + 4);
    if (cpu >= 0) return (unsigned)cpu;
  }
  unsigned cpu = 0;
  keg_syscall6(309 /* getcpu */, (long)&cpu, 0, 0, 0, 0, 0);
  return cpu;
}

__attribute__((minsize)) unsigned keg_cpu_count(void) {
  unsigned long mask[16] = {0};
  long bytes = keg_syscall6(204 /* sched_getaffinity */, 0, sizeof mask, (long)mask, 0, 0, 0);
  unsigned count = 0;
  for (long i = 0; i < bytes / 8; i++) count += (unsigned)__builtin_popcountl(mask[i]);
  return count ? count : 1;
}
