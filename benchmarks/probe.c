// probe: single operations, for counting instructions.
//
// Does one kind of operation N times, or the same loop without it: under an
// instruction counter (probe KIND 2N) - (probe KIND N), less the same of
// `probe KIND N empty`, is the cost of N operations, calls included and the
// loop's own instructions not. `kegmalloc compare --instructions` does that.
// Arguments: kind, count, and `empty` for the loop alone.
//
// pair-N     malloc(N), free                  batch-N    1,000 times malloc(N), then free
// churn      random slot of 16,000 replaced   calloc-N   calloc(1, N), free
// align-N    posix_memalign(64, N), free      large-N    as pair-N, first byte written
// remote     malloc here, free in another thread
// thread     a thread that calls malloc once and exits
#include "bench.h"

enum { SLOTS = 16000, BATCH = 1000, PASSED = 4096 };

static char stand_in[64];

/// Hides from the compiler where a pointer came from.
static inline void *hidden(void *pointer) {
  __asm__ volatile("" : "+r"(pointer) : : "memory");
  return pointer;
}

static inline __attribute__((always_inline)) void *get(int real, size_t size) {
  __asm__ volatile("" : "+r"(size));
  return real ? malloc(size) : hidden(stand_in);
}

static inline __attribute__((always_inline)) void put(int real, void *memory) {
  memory = hidden(memory);
  if (real) free(memory);
}

static inline __attribute__((always_inline)) void pair(int real, long count, size_t size) {
  for (long i = 0; i < count; i++) put(real, get(real, size));
}

static inline __attribute__((always_inline)) void large(int real, long count, size_t size) {
  for (long i = 0; i < count; i++) {
    volatile char *memory = (volatile char *)get(real, size);
    *memory = 1;
    put(real, (void *)memory);
  }
}

static inline __attribute__((always_inline)) void batch(int real, long count, size_t size) {
  static void *items[BATCH];
  for (long i = 0; i < count; i += BATCH) {
    for (int j = 0; j < BATCH; j++) items[j] = get(real, size);
    for (int j = 0; j < BATCH; j++) put(real, items[j]);
  }
}

static inline __attribute__((always_inline)) void churn(int real, long count) {
  static void *slots[SLOTS];
  struct random_state random = random_seed(1);
  for (long i = 0; i < count; i++) {
    uint64_t word = random_next(&random);
    void **slot = &slots[(word >> 40) % SLOTS];
    if (*slot != NULL) put(real, *slot);
    *slot = get(real, 8 + (word & 511));
  }
}

static inline __attribute__((always_inline)) void zeroed(int real, long count, size_t size) {
  for (long i = 0; i < count; i++) {
    __asm__ volatile("" : "+r"(size));
    put(real, real ? calloc(1, size) : hidden(stand_in));
  }
}

static inline __attribute__((always_inline)) void align(int real, long count, size_t size) {
  for (long i = 0; i < count; i++) {
    void *memory = stand_in;
    __asm__ volatile("" : "+r"(size), "+m"(memory));
    if (real && posix_memalign(&memory, 64, size) != 0) exit(3);
    put(real, memory);
  }
}

// ---- with a second thread --------------------------------------------------

struct exchange {
  pthread_barrier_t full, empty;
  void *items[PASSED];
  long rounds;
  int real;
};

static void *freeing_thread(void *argument) {
  struct exchange *exchange = (struct exchange *)argument;
  for (long i = 0; i < exchange->rounds; i++) {
    pthread_barrier_wait(&exchange->full);
    for (int j = 0; j < PASSED; j++) put(exchange->real, exchange->items[j]);
    pthread_barrier_wait(&exchange->empty);
  }
  return NULL;
}

static void remote(int real, long count) {
  static struct exchange exchange;
  exchange.rounds = (count + PASSED - 1) / PASSED;
  exchange.real = real;
  pthread_barrier_init(&exchange.full, NULL, 2);
  pthread_barrier_init(&exchange.empty, NULL, 2);
  pthread_t thread;
  if (pthread_create(&thread, NULL, freeing_thread, &exchange) != 0) exit(3);
  for (long i = 0; i < exchange.rounds; i++) {
    for (int j = 0; j < PASSED; j++) exchange.items[j] = get(real, 64);
    pthread_barrier_wait(&exchange.full);
    pthread_barrier_wait(&exchange.empty);
  }
  pthread_join(thread, NULL);
}

static void *brief_thread(void *argument) {
  return get(*(int *)argument, 64);
}

static void churn_threads(int real, long count) {
  for (long i = 0; i < count; i++) {
    pthread_t thread;
    void *memory;
    if (pthread_create(&thread, NULL, brief_thread, &real) != 0) exit(3);
    pthread_join(thread, &memory);
    put(real, memory);
  }
}

// ---- command line ------------------------------------------------------------

static inline __attribute__((always_inline)) int run(int real, const char *kind, long count) {
  const char *dash = strchr(kind, '-');
  size_t size = dash ? strtoul(dash + 1, NULL, 10) : 64;
  if (strncmp(kind, "pair", 4) == 0) pair(real, count, size);
  else if (strncmp(kind, "large", 5) == 0) large(real, count, size);
  else if (strncmp(kind, "batch", 5) == 0) batch(real, count, size);
  else if (strncmp(kind, "calloc", 6) == 0) zeroed(real, count, size);
  else if (strncmp(kind, "align", 5) == 0) align(real, count, size);
  else if (strcmp(kind, "churn") == 0) churn(real, count);
  else if (strcmp(kind, "remote") == 0) remote(real, count);
  else if (strcmp(kind, "thread") == 0) churn_threads(real, count);
  else return 2;
  return 0;
}

int main(int argc, char **argv) {
  const char *kind = argc > 1 ? argv[1] : "pair-64";
  long count = argument(argc, argv, 2, 20000000);
  int empty = argc > 3 && strcmp(argv[3], "empty") == 0;
  int status = empty ? run(0, kind, count) : run(1, kind, count);
  if (status != 0) fprintf(stderr, "probe: unknown kind %s\n", kind);
  else printf("%s %ld\n", kind, count);
  return status;
}
