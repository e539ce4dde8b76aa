// growth: strings that grow by realloc.
//
// Models text built piece by piece: a thousand strings are appended to in
// random order, each from 16 bytes up to some kilobytes, grown by half when
// full, given back exactly with a last shrinking realloc, copied and freed.
// Arguments: appends, threads.
//
// Punishes a realloc that copies although the item has room left, shrinking
// that keeps the large item, and size classes too far apart.
#include "bench.h"

enum { STRINGS = 1000, LONGEST = 12000 };

struct string {
  char *text;
  size_t length, room;
};

static void append(struct string *string, const char *piece, size_t length) {
  if (string->length + length > string->room) {
    string->room = (string->length + length) * 3 / 2;
    string->text = (char *)checked(realloc(string->text, string->room));
  }
  memcpy(string->text + string->length, piece, length);
  string->length += length;
}

static uint64_t finish_string(struct string *string) {
  string->text = (char *)checked(realloc(string->text, string->length));
  char *copy = (char *)take(string->length);
  memcpy(copy, string->text, string->length);
  uint64_t sum = peek(copy, string->length) + string->length;
  free(copy);
  free(string->text);
  memset(string, 0, sizeof *string);
  return sum;
}

static void *work(void *argument) {
  struct worker *me = (struct worker *)argument;
  struct string *strings = (struct string *)checked(calloc(STRINGS, sizeof *strings));
  struct random_state random = random_seed(me->index);
  char piece[128];
  for (size_t i = 0; i < sizeof piece; i++) piece[i] = (char)('a' + i % 26);
  for (long i = 0; i < me->iterations; i++) {
    struct string *string = &strings[random_below(&random, STRINGS)];
    append(string, piece, 1 + random_below(&random, sizeof piece));
    if (string->length > random_below(&random, LONGEST))
      me->sum = mixed(me->sum, finish_string(string));
  }
  for (int i = 0; i < STRINGS; i++) free(strings[i].text);
  free(strings);
  return NULL;
}

int main(int argc, char **argv) {
  long appends = argument(argc, argv, 1, 20000000);
  int threads = (int)argument(argc, argv, 2, 1);
  return finish(run_workers(threads, appends, NULL, work));
}
