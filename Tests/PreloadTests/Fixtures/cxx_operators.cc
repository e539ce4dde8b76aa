// The 20 forms of operator new and delete work with each other and with alignment;
// on a size that cannot be had, new calls the new_handler until it gives up, then
// throws std::bad_alloc, and the nothrow forms give a null pointer.
#include "fixture.h"
#include <memory>
#include <new>
#include <string>
#include <vector>

static int handled;
static void give_up_after_three() {
  if (++handled == 3) std::set_new_handler(nullptr);
}
static void throw_own() { throw 42; }

template <typename Call> static bool throws_bad_alloc(Call call) {
  try {
    void *block = call();
    CHECK(false, "gave %p", block);
  } catch (const std::bad_alloc &) {
    return true;
  }
  return false;
}

static bool aligned(void *block, size_t alignment) { return ((uintptr_t)block & (alignment - 1)) == 0; }

static void forms(size_t size) {
  const std::nothrow_t &quiet = std::nothrow;
  void *p;
  p = ::operator new(size), mark(p, size, 1), ::operator delete(p);
  p = ::operator new[](size), mark(p, size, 1), ::operator delete[](p);
  p = ::operator new(size, quiet), mark(p, size, 1), ::operator delete(p, quiet);
  p = ::operator new[](size, quiet), mark(p, size, 1), ::operator delete[](p, quiet);
  p = ::operator new(size), mark(p, size, 1), ::operator delete(p, size);
  p = ::operator new[](size), mark(p, size, 1), ::operator delete[](p, size);
  for (size_t alignment = 1; alignment <= 4 * MIB; alignment *= 2) {
    std::align_val_t value{alignment};
    void *blocks[6] = {::operator new(size, value), ::operator new[](size, value),
                       ::operator new(size, value, quiet), ::operator new[](size, value, quiet),
                       ::operator new(size, value), ::operator new[](size, value)};
    for (int i = 0; i < 6; i++) {
      CHECK(blocks[i] && aligned(blocks[i], alignment), "%p for %zu", blocks[i], alignment);
      mark(blocks[i], size, i);
    }
    for (int i = 0; i < 6; i++) CHECK(is_marked(blocks[i], size, i));
    ::operator delete(blocks[0], value);
    ::operator delete[](blocks[1], value);
    ::operator delete(blocks[2], value, quiet);
    ::operator delete[](blocks[3], value, quiet);
    ::operator delete(blocks[4], size, value);
    ::operator delete[](blocks[5], size, value);
  }
  ::operator delete(nullptr);
  ::operator delete[](nullptr);
}

static void failures() {
  size_t size = hide_size(PTRDIFF_MAX), beyond = hide_size(SIZE_MAX);
  std::align_val_t value{256};
  CHECK(throws_bad_alloc([&] { return ::operator new(size); }));
  CHECK(throws_bad_alloc([&] { return ::operator new(beyond); }));
  CHECK(throws_bad_alloc([&] { return ::operator new[](size); }));
  CHECK(throws_bad_alloc([&] { return ::operator new(size, value); }));
  CHECK(throws_bad_alloc([&] { return ::operator new[](size, value); }));
  // Rounded up to the alignment, this size is 0.
  CHECK(throws_bad_alloc([&] { return ::operator new(beyond - 100, value); }));
  CHECK(throws_bad_alloc([&] { return ::operator new[](beyond - 100, value); }));
  CHECK(::operator new(beyond - 100, value, std::nothrow) == nullptr);
  CHECK(::operator new[](beyond - 100, value, std::nothrow) == nullptr);
  CHECK(::operator new(size, std::nothrow) == nullptr);
  CHECK(::operator new[](size, std::nothrow) == nullptr);
  CHECK(::operator new(size, value, std::nothrow) == nullptr);
  CHECK(::operator new[](size, value, std::nothrow) == nullptr);

  std::set_new_handler(give_up_after_three);
  CHECK(throws_bad_alloc([&] { return ::operator new(size); }));
  CHECK(handled == 3, "called %d times", handled);
  handled = 0;
  std::set_new_handler(give_up_after_three);
  CHECK(::operator new(size, std::nothrow) == nullptr && handled == 3, "called %d times", handled);

  // What a handler throws passes through the plain forms.
  std::set_new_handler(throw_own);
  int caught = 0;
  try {
    ::operator delete(::operator new(size));
  } catch (int number) {
    caught = number;
  }
  CHECK(caught == 42);
  std::set_new_handler(nullptr);
}

struct alignas(128) Wide {
  char bytes[200];
};
struct Base {
  virtual ~Base() {}
  char bytes[24];
};
struct Derived : Base {
  std::string name = std::string(100, 'x');
  std::vector<int> numbers = std::vector<int>(1000, 7);
};

int main() {
  for (size_t size : {(size_t)0, (size_t)1, (size_t)24, (size_t)1000, (size_t)50000, 3 * MIB}) forms(size);
  failures();
  std::vector<std::unique_ptr<Base>> objects;
  std::vector<std::unique_ptr<Wide[]>> wides;
  for (int i = 0; i < 1000; i++) {
    objects.emplace_back(new Derived);
    wides.emplace_back(new Wide[3]);
    CHECK(aligned(wides.back().get(), 128));
  }
  objects.clear();
  wides.clear();
  // bad_alloc itself needs memory; a program short of it must still get one.
  for (int i = 0; i < 1000; i++) CHECK(throws_bad_alloc([] { return ::operator new(hide_size(PTRDIFF_MAX)); }));
  return ok();
}
