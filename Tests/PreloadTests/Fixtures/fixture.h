// fixture.h: what every fixture uses. A fixture prints `ok` and exits with 0, or
// prints one precise complaint and exits with 1. Complaints go through write(2):
// stdio would allocate, and a broken allocator could swallow its own accusation.
#ifndef FIXTURE_H
#define FIXTURE_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)

__attribute__((noreturn, format(printf, 4, 5)))
static inline void complain(const char *file, int line, const char *what, const char *format, ...) {
  char text[512];
  int length = snprintf(text, sizeof text, "%s:%d: %s", file, line, what);
  if (length > (int)sizeof text / 2) length = sizeof text / 2;
  va_list arguments;
  va_start(arguments, format);
  length += vsnprintf(text + length, sizeof text - length - 1, format, arguments);
  va_end(arguments);
  if (length > (int)sizeof text - 2) length = sizeof text - 2;
  text[length++] = '\n';
  ssize_t written = write(2, text, length);
  (void)written;
  _exit(1);
}

// Complains unless the condition holds; the rest is a printf format.
#define CHECK(condition, ...)                                                        \
  do {                                                                               \
    if (!(condition)) complain(__FILE__, __LINE__, #condition, " " __VA_ARGS__);      \
  } while (0)

static inline int ok(void) {
  ssize_t written = write(1, "ok\n", 3);
  (void)written;
  return 0;
}

// Hides where a pointer or a size comes from, so that no compiler warns about
// or reasons with the deliberate mistakes of these programs.
__attribute__((unused)) static void *hide(void *pointer) {
  __asm__ volatile("" : "+r"(pointer));
  return pointer;
}
__attribute__((unused)) static size_t hide_size(size_t size) {
  __asm__ volatile("" : "+r"(size));
  return size;
}

// xorshift: the same numbers in every run of a seed.
__attribute__((unused)) static uint64_t random_next(uint64_t *state) {
  uint64_t x = *state;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return *state = x;
}

// A size below `limit`, small ones far more often than large ones.
__attribute__((unused)) static size_t random_size(uint64_t *state, size_t limit) {
  uint64_t number = random_next(state);
  unsigned bits = 63 - __builtin_clzll(limit | 1);
  return (number >> 8) % ((limit >> ((number & 0xff) % (bits ? bits : 1))) + 1);
}

// Fills a block with a pattern of its owner, and says whether it is still there.
__attribute__((unused)) static void mark(void *block, size_t size, unsigned owner) {
  memset(block, (int)(owner * 167 + 13) & 0xff, size);
}
__attribute__((unused)) static int is_marked(const void *block, size_t size, unsigned owner) {
  const unsigned char *bytes = (const unsigned char *)block;
  unsigned char wanted = (unsigned char)(owner * 167 + 13);
  for (size_t i = 0; i < size; i++)
    if (bytes[i] != wanted) return 0;
  return 1;
}
__attribute__((unused)) static int is_zero(const void *block, size_t size) {
  const unsigned char *bytes = (const unsigned char *)block;
  return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}

// A figure of /proc/self/status in KiB; 0 if absent.
__attribute__((unused)) static size_t status_kib(const char *key) {
  static char text[8192];
  FILE *file = fopen("/proc/self/status", "re");
  if (!file) return 0;
  size_t length = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  text[length] = 0;
  char *line = strstr(text, key);
  return line ? strtoul(line + strlen(key), NULL, 10) : 0;
}

// Waits, in another thread, until the process's first one has ended: the kernel calls it a zombie.
static inline void wait_for_end_of_first_thread(void) {
  char path[64], text[256] = "";
  snprintf(path, sizeof path, "/proc/self/task/%d/stat", getpid());
  while (!strstr(text, ") Z ")) {
    int file = open(path, O_RDONLY);
    CHECK(read(file, text, sizeof text - 1) >= 0);
    close(file);
  }
}

#endif
