// cache.c: a cache forgets entries that it does not free.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct entry {
  char *key;
  int value;
};

static struct entry *cache[4];

static void remember(const char *key, int value) {
  struct entry *entry = malloc(sizeof *entry);
  entry->key = strdup(key);
  entry->value = value;
  struct entry **place = &cache[value % 4];
#ifdef FIXED
  if (*place) {
    free((*place)->key);
    free(*place);
  }
#endif
  *place = entry;
}

int main(void) {
  char key[16];
  for (int i = 0; i < 100; i++) {
    snprintf(key, sizeof key, "key %d", i);
    remember(key, i);
  }
  puts("remembered");
  return 0;
}
