// vectors: arrays that grow to tens of megabytes by realloc.
//
// Models loading a file of unknown length, or a std::vector-like table: grow
// by a quarter from 64 KiB to 64 MiB, touching only what is new; two such
// vectors grow alternately, so that neither can simply extend into the hole
// behind the other. Arguments: rounds, threads.
//
// Punishes copying where the pages could be moved or the room extended, and
// page faults on memory that was just given back.
#include "bench.h"

enum { FIRST_BYTES = 64 << 10, LAST_BYTES = 64 << 20 };

struct vector {
  unsigned char *bytes;
  size_t size;
};

static void grow(struct vector *vector, size_t size, unsigned char value) {
  vector->bytes = (unsigned char *)checked(realloc(vector->bytes, size));
  touch(vector->bytes + vector->size, size - vector->size, value);
  vector->size = size;
}

static void *work(void *argument) {
  struct worker *me = (struct worker *)argument;
  size_t last = LAST_BYTES / me->count;
  for (long i = 0; i < me->iterations; i++) {
    struct vector pair[2] = {{NULL, 0}, {NULL, 0}};
    for (size_t size = FIRST_BYTES; size < last; size += size / 4) {
      grow(&pair[0], size, (unsigned char)i);
      grow(&pair[1], size + size / 8, (unsigned char)size);
    }
    for (int j = 0; j < 2; j++) {
      for (size_t at = 0; at < pair[j].size; at += 1 << 20)
        me->sum += pair[j].bytes[0] + pair[j].bytes[pair[j].size - 1] + at;
      free(pair[j].bytes);
    }
  }
  return NULL;
}

int main(int argc, char **argv) {
  long rounds = argument(argc, argv, 1, 16);
  int threads = (int)argument(argc, argv, 2, 1);
  return finish(run_workers(threads, rounds * threads, NULL, work));
}
