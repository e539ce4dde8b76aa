// phases: bursts, each of another size class.
//
// Models a program that works in stages (load, index, query, write): each
// phase fills 48 MiB with items of its own few sizes, keeps one in 64 of them
// for the next two phases and frees the rest, then idles for a moment.
// Arguments: phases, threads.
//
// Punishes memory that stays with the size class that once needed it. Run it
// with `compare --phases`: the curve ought to fall between the bursts and the
// peak not to grow from phase to phase.
#include "bench.h"

enum { PHASE_BYTES = 48 << 20, KEEP_ONE_IN = 64, KEPT_PHASES = 2 };

static const size_t sizes[] = {48, 1200, 16, 320, 9000, 96, 600, 30000, 24, 4096};

struct list {
  struct list *next;
  uint64_t value;
};

static void free_list(struct list *list, uint64_t *sum) {
  while (list != NULL) {
    struct list *next = list->next;
    *sum = mixed(*sum, list->value);
    free(list);
    list = next;
  }
}

static struct list *burst(struct random_state *random, size_t size, size_t bytes,
                          uint64_t *sum) {
  struct list *dying = NULL, *kept = NULL;
  for (size_t used = 0, i = 0; used < bytes; i++) {
    size_t exact = size + random_below(random, size / 4 + 1);
    struct list *item = (struct list *)take(exact), **to = i % KEEP_ONE_IN ? &dying : &kept;
    touch(item, exact, (unsigned char)i);
    item->next = *to;
    item->value = exact;
    *to = item;
    used += exact;
  }
  free_list(dying, sum);
  return kept;
}

static void *work(void *argument) {
  struct worker *me = (struct worker *)argument;
  struct random_state random = random_seed(me->index);
  struct list *kept[KEPT_PHASES] = {NULL};
  size_t count = sizeof sizes / sizeof *sizes;
  for (long phase = 0; phase < me->iterations * me->count; phase++) {
    struct list **slot = &kept[phase % KEPT_PHASES];
    free_list(*slot, &me->sum);
    *slot = burst(&random, sizes[phase % count], PHASE_BYTES / me->count, &me->sum);
    struct timespec pause = {0, 5000000};
    nanosleep(&pause, NULL);
  }
  for (int i = 0; i < KEPT_PHASES; i++) free_list(kept[i], &me->sum);
  return NULL;
}

int main(int argc, char **argv) {
  long phases = argument(argc, argv, 1, 30);
  int threads = (int)argument(argc, argv, 2, 1);
  return finish(run_workers(threads, phases, NULL, work));
}
