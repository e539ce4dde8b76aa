// server: sessions that one thread opens and another closes.
//
// Models a server whose connections move between workers (the pattern of
// Larson & Krishnan 1998): each worker replaces random sessions of the set it
// holds, and after every epoch the sets move on to the next worker, so that
// many frees are of memory that another thread allocated. Every epoch runs in
// new threads: the one that allocated is gone.
// Arguments: replacements, threads.
//
// Punishes frees that take a shared lock or line, memory that piles up where
// it was freed instead of where it is needed, and heaps of dead threads that
// nobody adopts.
#include "bench.h"

enum { EPOCHS = 16, SESSIONS = 2048 };

struct session {
  uint32_t size, epoch;
  uint64_t number;
};

static struct session *open_session(struct random_state *random, uint32_t epoch) {
  size_t size = random_size(random, sizeof(struct session), 1000);
  struct session *session = (struct session *)take(size);
  session->size = (uint32_t)size;
  session->epoch = epoch;
  session->number = random_next(random);
  return session;
}

struct epoch {
  struct session **(*sets);
  uint32_t number;
};

static void *work(void *argument) {
  struct worker *me = (struct worker *)argument;
  struct epoch *epoch = (struct epoch *)me->shared;
  int set = (me->index + (int)epoch->number) % me->count;
  struct session **sessions = epoch->sets[set];
  struct random_state random = random_seed(epoch->number * 1000u + set);
  for (long i = 0; i < me->iterations; i++) {
    struct session **slot = &sessions[random_below(&random, SESSIONS)];
    if (*slot != NULL) {
      me->sum = mixed(me->sum, (*slot)->number + (*slot)->epoch);
      free(*slot);
    }
    *slot = open_session(&random, epoch->number);
  }
  return NULL;
}

int main(int argc, char **argv) {
  long replacements = argument(argc, argv, 1, 40000000);
  int threads = (int)argument(argc, argv, 2, 2);
  struct session ***sets = (struct session ***)take(threads * sizeof *sets);
  for (int i = 0; i < threads; i++)
    sets[i] = (struct session **)checked(calloc(SESSIONS, sizeof **sets));
  uint64_t sum = 0;
  for (uint32_t number = 0; number < EPOCHS; number++) {
    struct epoch epoch = {sets, number};
    sum += run_workers(threads, replacements / EPOCHS, &epoch, work);
  }
  for (int i = 0; i < threads; i++) {
    for (int j = 0; j < SESSIONS; j++) free(sets[i][j]);
    free(sets[i]);
  }
  free(sets);
  return finish(sum);
}
