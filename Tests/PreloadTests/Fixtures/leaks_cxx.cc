// leaks_cxx.cc: the same for C++: what containers, cookies and exceptions do to
// pointers. The verdicts are in LeakTests.swift.
#include <cstdlib>
#include <cstring>
#include <list>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

struct Named {
  std::string name = "a name that is too long for the string itself";
  ~Named() { name.clear(); }
};

struct Ring {
  std::shared_ptr<Ring> next;
};

void *volatile global;

// With a destructor new[] puts the count in front: the program holds an inner pointer.
__attribute__((noinline)) static void cookie() { global = new Named[3]; }

__attribute__((noinline)) static void lost_cookie() {
  Named *volatile names = new Named[3];
  names = nullptr;
  (void)names;
}

__attribute__((noinline)) static void lost_map() {
  auto *volatile map = new std::map<int, int>;
  for (int i = 0; i < 100; i++) (*map)[i] = i;
  map = nullptr;
  (void)map;
}

__attribute__((noinline)) static void lost_vector() {
  auto *volatile vector = new std::vector<int *>;
  vector->reserve(10);
  for (int i = 0; i < 10; i++) vector->push_back(new int(i));
  vector = nullptr;
  (void)vector;
}

__attribute__((noinline)) static void lost_ring() {
  auto first = std::make_shared<Ring>();
  first->next = std::make_shared<Ring>();
  first->next->next = first;
}

__attribute__((noinline)) static void thrown() {
  try {
    throw std::runtime_error("not lost");
  } catch (const std::exception &error) {
    if (std::strlen(error.what()) != 8) std::abort();
  }
}

static std::map<std::string, std::list<int>> kept;

static void clean() {
  thrown();
  auto unique = std::make_unique<Named>();
  kept["something that is longer than fifteen bytes"] = {1, 2, 3};
}

int main(int, char **arguments) {
  const std::string name = arguments[1];
  if (name == "cookie") cookie();
  if (name == "lost-cookie") lost_cookie();
  if (name == "map") lost_map();
  if (name == "vector") lost_vector();
  if (name == "ring") lost_ring();
  if (name == "clean") clean();
  return 0;
}
