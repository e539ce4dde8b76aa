// buffers: I/O buffers of 32 KiB to 4 MiB.
//
// Models compression, video and network code: a window of 24 live buffers,
// each held for some steps, written once in every OS page. Arguments: buffers,
// threads.
//
// Punishes a system call per large allocation, and purging so eager that every
// buffer faults its pages in anew; keeping everything costs peak memory.
#include "bench.h"

enum { WINDOW = 24 };

struct buffer {
  unsigned char *bytes;
  size_t size;
};

static void *work(void *argument) {
  struct worker *me = (struct worker *)argument;
  struct buffer window[WINDOW] = {{NULL, 0}};
  struct random_state random = random_seed(me->index);
  for (long i = 0; i < me->iterations; i++) {
    struct buffer *buffer = &window[random_below(&random, WINDOW)];
    if (buffer->bytes != NULL) {
      me->sum = mixed(me->sum, peek(buffer->bytes, buffer->size));
      free(buffer->bytes);
    }
    buffer->size = random_size(&random, 32 << 10, 4 << 20);
    buffer->bytes = (unsigned char *)take(buffer->size);
    touch(buffer->bytes, buffer->size, (unsigned char)i);
  }
  for (int i = 0; i < WINDOW; i++) free(window[i].bytes);
  return NULL;
}

int main(int argc, char **argv) {
  long buffers = argument(argc, argv, 1, 16000);
  int threads = (int)argument(argc, argv, 2, 1);
  return finish(run_workers(threads, buffers, NULL, work));
}
