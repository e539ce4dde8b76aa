// generations: ten thousand generations of change in a steady live set.
//
// Models a server that runs for months: about 12 MiB stay live, each
// generation frees a random part and fills up again, and the mix of sizes
// drifts slowly, so that yesterday's holes do not fit today's items. Now and
// then a generation is five times as large. Arguments: generations, threads.
//
// Punishes fragmentation. stderr gets the live bytes and the resident bytes at
// twenty points and, at the end, the mean of live over resident as a score
// (`compare --score 'live/resident ([0-9.]+)'`).
#include "bench.h"

enum { SLOTS = 40000, REPLACED = 800, POINTS = 20 };

struct item {
  uint32_t size;
};

struct heap {
  struct item *slots[SLOTS];
  size_t live, slot_count;
  struct random_state random;
  uint64_t sum;
};

/// The commonest size of a generation: it wanders between 32 and 1,056 bytes.
static size_t drifting_size(struct heap *heap, long generation) {
  size_t step = (size_t)(generation / 10) % 2048;
  size_t centre = 32 + (step < 1024 ? step : 2048 - step);
  return centre / 2 + random_below(&heap->random, centre) + sizeof(struct item);
}

static void release(struct heap *heap, size_t slot) {
  struct item *item = heap->slots[slot];
  if (item == NULL) return;
  heap->live -= item->size;
  heap->sum = mixed(heap->sum, item->size);
  free(item);
  heap->slots[slot] = NULL;
}

static void replace(struct heap *heap, size_t slot, size_t size) {
  release(heap, slot);
  heap->slots[slot] = (struct item *)take(size);
  memset(heap->slots[slot], 1, size);
  heap->slots[slot]->size = (uint32_t)size;
  heap->live += size;
}

static void live_one_generation(struct heap *heap, long generation) {
  int replaced = generation % 500 == 499 ? REPLACED * 5 : REPLACED;
  for (int i = 0; i < replaced; i++) {
    size_t slot = random_below(&heap->random, heap->slot_count);
    if (random_below(&heap->random, 4) == 0) release(heap, slot);
    else replace(heap, slot, drifting_size(heap, generation));
  }
}

static void *work(void *argument) {
  struct worker *me = (struct worker *)argument;
  struct heap *heap = (struct heap *)checked(calloc(1, sizeof *heap));
  heap->random = random_seed(me->index);
  heap->slot_count = SLOTS / me->count;
  long generations = me->iterations * me->count, every = generations / POINTS + 1;
  double ratios = 0;
  int points = 0;
  for (long generation = 0; generation < generations; generation++) {
    live_one_generation(heap, generation);
    if (me->index != 0 || generation % every != every - 1) continue;
    size_t resident = resident_bytes();
    fprintf(stderr, "generation %ld live %zu resident %zu\n", generation,
            heap->live * me->count, resident);
    ratios += resident ? (double)(heap->live * me->count) / (double)resident : 0;
    points++;
  }
  if (points > 0) fprintf(stderr, "live/resident %.3f\n", ratios / points);
  for (size_t i = 0; i < heap->slot_count; i++) release(heap, i);
  me->sum = heap->sum;
  free(heap);
  return NULL;
}

int main(int argc, char **argv) {
  long generations = argument(argc, argv, 1, 10000);
  int threads = (int)argument(argc, argv, 2, 1);
  return finish(run_workers(threads, generations, NULL, work));
}
