// own_operators.cc: a program that brings operators new and delete of its own, but not
// all: the C++ library makes the others from these.
//   (default)  blocks from a region of its own, which no heap knows
//   -DWRAP     blocks of malloc behind a header, as for counting bytes
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#ifndef __clang__
#pragma GCC diagnostic ignored "-Wsized-deallocation"  // as such programs do
#endif

static long live, calls;
static const size_t magic = 0x6f776e6f70657261;

#ifndef WRAP
alignas(16) static char region[8 << 20];
static size_t used;
static void *take(size_t size) {
  size_t place = used;
  used += (size + 31) & ~size_t(15);
  if (used > sizeof region) return nullptr;
  return region + place;
}
static void give(void *block) { memset(block, 0, 16); }
#else
static void *take(size_t size) { return malloc(size); }
static void give(void *block) { free(block); }
#endif

void *operator new(size_t size) {
  char *block = size > (4 << 20) ? nullptr : (char *)take(size + 16);
  if (!block) throw std::bad_alloc();
  *(size_t *)block = magic;
  live++, calls++;
  return block + 16;
}

void operator delete(void *pointer) noexcept {
  if (!pointer) return;
  char *block = (char *)pointer - 16;
  if (*(size_t *)block != magic) {
    puts("delete of what new never gave");
    abort();
  }
  *(size_t *)block = 0;
  live--;
  give(block);
}

struct Node {
  Node *next;
  char name[40];
};

template <class T> static T *hide(T *pointer) {
  asm volatile("" : "+r"(pointer));
  return pointer;
}

int main() {
  Node *list = nullptr;
  for (int i = 0; i < 5000; i++) list = hide(new Node{list, "x"});
  while (list) {
    Node *next = list->next;
    ::operator delete(list, sizeof *list);  // the sized one
    list = next;
  }
  Node *single = hide(new (std::nothrow) Node());
  delete single;
  void *none = hide(::operator new((5 << 20), std::nothrow));
  if (none) puts("a block in spite of bad_alloc");
  int *numbers = hide(new int[100]());
  delete[] numbers;
  numbers = hide(new (std::nothrow) int[100]());
  delete[] numbers;
  {
    std::vector<std::string> words;
    for (int i = 0; i < 2000; i++) words.push_back(std::string(30 + i % 50, 'w'));
  }
  printf("live %ld, calls %s\n", live, calls >= 5001 + 2000 ? "enough" : "missed");
  return 0;
}
