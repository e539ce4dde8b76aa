// interpreter: the heap of a scripting language.
//
// Models an interpreter that boxes every value: an operand stack whose objects
// die within a few instructions (16 to 64 bytes), call frames freed in reverse
// order, strings built by concatenation, and one object in a hundred that lives
// on in a global table. Arguments: instructions, threads (one heap each, as
// with one interpreter per thread).
//
// Punishes a long path for the commonest sizes, a cache that does not hand out
// the item freed last, and bookkeeping beside the items.
#include "bench.h"

enum { DEPTH = 64, GLOBALS = 4096, FRAME_BYTES = 456 };

struct value {
  uint32_t references, size;
  uint64_t number;
};

static struct value *box(uint64_t number, size_t size) {
  struct value *value = (struct value *)take(size);
  value->references = 1;
  value->size = (uint32_t)size;
  value->number = number;
  return value;
}

static void drop(struct value *value) {
  if (value != NULL && --value->references == 0) free(value);
}

struct machine {
  struct value *stack[DEPTH], *globals[GLOBALS];
  void *frames[DEPTH];
  int top, calls;
  struct random_state random;
  uint64_t sum;
};

/// Two operands off the stack, their result on it: two frees, one malloc.
static void arithmetic(struct machine *m) {
  struct value *right = m->stack[--m->top], *left = m->stack[--m->top];
  m->stack[m->top++] = box(left->number * 31 + right->number, 16 + (left->number & 16));
  drop(left);
  drop(right);
}

static void call_or_return(struct machine *m, uint64_t choice) {
  if (m->calls < DEPTH && (choice & 64)) {
    m->frames[m->calls] = take(FRAME_BYTES);
    touch(m->frames[m->calls++], FRAME_BYTES, (unsigned char)choice);
  } else if (m->calls > 0) {
    m->sum = mixed(m->sum, peek(m->frames[--m->calls], FRAME_BYTES));
    free(m->frames[m->calls]);
  }
}

static void store_global(struct machine *m, uint64_t choice) {
  struct value **slot = &m->globals[choice % GLOBALS];
  drop(*slot);
  *slot = m->stack[m->top - 1];
  (*slot)->references++;
}

static void *interpret(void *argument) {
  struct worker *me = (struct worker *)argument;
  struct machine *m = (struct machine *)checked(calloc(1, sizeof *m));
  m->random = random_seed(me->index);
  for (long i = 0; i < me->iterations; i++) {
    uint64_t choice = random_next(&m->random) >> 20;
    unsigned kind = choice % 100;
    if (m->top < 2 || (kind < 45 && m->top < DEPTH))
      m->stack[m->top++] = box(choice, kind < 4 ? 24 + choice % 200 : 24);
    else if (kind < 88 || m->top == DEPTH) arithmetic(m);
    else if (kind < 99) call_or_return(m, choice);
    else store_global(m, choice / 100);
  }
  while (m->top > 0) {
    m->sum = mixed(m->sum, m->stack[--m->top]->number);
    drop(m->stack[m->top]);
  }
  while (m->calls > 0) free(m->frames[--m->calls]);
  for (int i = 0; i < GLOBALS; i++) drop(m->globals[i]);
  me->sum = m->sum;
  free(m);
  return NULL;
}

int main(int argc, char **argv) {
  long instructions = argument(argc, argv, 1, 50000000);
  int threads = (int)argument(argc, argv, 2, 1);
  return finish(run_workers(threads, instructions, NULL, interpret));
}
