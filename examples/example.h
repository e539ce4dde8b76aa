// example.h: what the examples share: complaints, and numbers from the command line.
#ifndef EXAMPLE_H
#define EXAMPLE_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Ends the program with one line unless the condition holds.
#define MUST(condition)                                                                  \
  do {                                                                                   \
    if (!(condition)) {                                                                  \
      fprintf(stderr, "%s:%d: not so: %s (%s)\n", __FILE__, __LINE__, #condition,        \
              strerror(errno));                                                          \
      exit(1);                                                                           \
    }                                                                                    \
  } while (0)

// The number in argv[index], or `otherwise`.
static inline long number(int argc, char **argv, int index, long otherwise) {
  return index < argc ? strtol(argv[index], NULL, 10) : otherwise;
}

#endif
