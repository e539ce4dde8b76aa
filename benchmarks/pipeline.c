// pipeline: producers allocate, consumers free.
//
// Models message passing: every message is made in one thread and freed in
// another, through bounded queues in batches of 64. Arguments: messages,
// threads (half of them produce, half consume; at least 2).
//
// Punishes allocators in which a free of foreign memory is an atomic operation
// per item or a trip to a central list, and those that never hand the
// consumers' memory back to the producers.
#include "bench.h"

enum { BATCH = 64, QUEUE = 32 };

struct message {
  uint32_t size;
  uint32_t body[];
};

struct queue {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  struct message *batches[QUEUE][BATCH];
  long put, taken;
};

static void put_batch(struct queue *queue, struct message **batch) {
  pthread_mutex_lock(&queue->lock);
  while (queue->put - queue->taken == QUEUE) pthread_cond_wait(&queue->changed, &queue->lock);
  memcpy(queue->batches[queue->put++ % QUEUE], batch, BATCH * sizeof *batch);
  pthread_cond_signal(&queue->changed);
  pthread_mutex_unlock(&queue->lock);
}

static void take_batch(struct queue *queue, struct message **batch) {
  pthread_mutex_lock(&queue->lock);
  while (queue->put == queue->taken) pthread_cond_wait(&queue->changed, &queue->lock);
  memcpy(batch, queue->batches[queue->taken++ % QUEUE], BATCH * sizeof *batch);
  pthread_cond_signal(&queue->changed);
  pthread_mutex_unlock(&queue->lock);
}

static void produce(struct worker *me, struct queue *queue, struct random_state random) {
  struct message *batch[BATCH];
  for (long i = 0; i < me->iterations; i += BATCH) {
    for (int j = 0; j < BATCH; j++) {
      size_t size = random_size(&random, 16, 1024);
      batch[j] = (struct message *)take(size);
      batch[j]->size = (uint32_t)size;
      batch[j]->body[0] = (uint32_t)random_next(&random);
    }
    put_batch(queue, batch);
  }
}

static void consume(struct worker *me, struct queue *queue) {
  struct message *batch[BATCH];
  for (long i = 0; i < me->iterations; i += BATCH) {
    take_batch(queue, batch);
    for (int j = 0; j < BATCH; j++) {
      me->sum = mixed(me->sum, batch[j]->size ^ batch[j]->body[0]);
      free(batch[j]);
    }
  }
}

static void *work(void *argument) {
  struct worker *me = (struct worker *)argument;
  struct queue *queue = (struct queue *)me->shared + me->index / 2;
  if (me->index % 2 == 0) produce(me, queue, random_seed(me->index));
  else consume(me, queue);
  return NULL;
}

int main(int argc, char **argv) {
  long messages = argument(argc, argv, 1, 6000000);
  int threads = ((int)argument(argc, argv, 2, 2) + 1) / 2 * 2;
  struct queue *queues = (struct queue *)checked(calloc(threads / 2, sizeof *queues));
  for (int i = 0; i < threads / 2; i++) {
    pthread_mutex_init(&queues[i].lock, NULL);
    pthread_cond_init(&queues[i].changed, NULL);
  }
  uint64_t sum = run_workers(threads, messages * 2, queues, work);
  free(queues);
  return finish(sum);
}
