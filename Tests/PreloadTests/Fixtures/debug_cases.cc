// debug_cases.cc: bugs that are hard to see or to name, one a run: `debug_cases CASE`.
// With a second argument the same program without the bug.
#include "fixture.h"

#include <dirent.h>
#include <dlfcn.h>
#include <string>
#include <unistd.h>

static bool is_good;
char *keeper;

__attribute__((noinline)) static char *allocating(size_t size) {
  char *block = (char *)hide(malloc(size));
  if (size > 0) block[0] = 1;
  return block;
}
__attribute__((noinline)) static void freeing(void *block) {
  free(block);
  __asm__ volatile("");
}
__attribute__((noinline)) static void lose(size_t size) {
  char *block = allocating(size);
  if (is_good) freeing(block);
}

// A write of `length` bytes at `offset` of a block.
__attribute__((noinline)) static void stray(size_t size, long offset, size_t length) {
  char *block = allocating(size);
  if (is_good)
    memset(block, 'A', size);
  else
    memset(block + offset, 'A', length);
  freeing(block);
}

struct Node {
  virtual ~Node() {}
  virtual void visit() { is_visited = true; }
  Node *next;
  long numbers[6];
  static volatile bool is_visited;
};
volatile bool Node::is_visited;
static volatile long table[100];

// What was freed is used, as a pointer or as an index, and ends the process.
__attribute__((noinline)) static void wild(const std::string &name) {
  Node *node = (Node *)hide((void *)new (allocating(sizeof(Node))) Node);
  node->next = node;
  node->numbers[5] = 7;
  if (!is_good) freeing((void *)node);
  node = (Node *)hide((void *)node);
  if (name == "wild-pointer") node->next->numbers[2] = 3;
  if (name == "wild-virtual") node->visit();
  // An address that cannot be, in %rbp: another signal.
  if (name == "wild-frame")
    __asm__ volatile("push %%rbp; mov %0, %%rbp; movl $3, 16(%%rbp); pop %%rbp" ::"r"(node->next) : "memory");
  if (name == "wild-index") table[(unsigned)node->numbers[5]] = 1;
  if (is_good) freeing((void *)node);
}

// What the compiler's count of elements has to do with: a class with a destructor, which
// runs for each element before operator delete[] is called.
template <size_t size>
struct Counted {
  static long destroyed;
  long numbers[size / 8] = {};
  ~Counted() { destroyed++; }
};
template <size_t size>
long Counted<size>::destroyed;
struct alignas(64) Aligned {
  char bytes[64];
  ~Aligned() { bytes[0]++; }
};

template <class One>
__attribute__((noinline)) static void one_as_array() {
  // Neighbours of the same kind, which are checked when they are freed.
  One *ones[8];
  for (One *&one : ones) one = new One();
  One *one = (One *)hide((void *)ones[4]);
  if (is_good)
    delete one;
  else
    delete[] one;
  for (One *&each : ones)
    if (&each != &ones[4]) delete each;
}

template <class One>
__attribute__((noinline)) static void array_twice() {
  One *array = (One *)hide((void *)new One[3]), *again = (One *)hide((void *)array);
  delete[] array;
  if (!is_good) delete[] again;
}

// A stream, or a directory, that is used again after it was closed.
__attribute__((noinline)) static void closed_stream(const std::string &use) {
  FILE *file = fopen("/dev/null", "r+"), *again = (FILE *)hide(file);
  char line[10];
  if (!is_good) fclose(file);
  if (use == "read") CHECK(fread(line, 1, 10, again) == 0);
  if (use == "write") CHECK(fwrite(line, 1, 10, again) == (is_good ? 10 : 0));
  if (use == "line") CHECK(fgets(line, 10, again) == NULL);
  if (use == "format") CHECK(fprintf(again, "%d", 123) == (is_good ? 3 : -1));
  if (use == "text") CHECK((fputs((char *)hide((void *)"abc"), again) == EOF) == !is_good);
  if (use == "flush") CHECK(fflush(again) == (is_good ? 0 : EOF));
  if (use == "letter") fputc('a', again);
  if (is_good || use == "close") fclose(again);
}
__attribute__((noinline)) static void closed_pipe() {
  FILE *file = popen("true", "r"), *again = (FILE *)hide(file);
  pclose(file);
  if (!is_good) CHECK(pclose(again) == -1 && errno == EBADF);
}
__attribute__((noinline)) static void closed_directory(const std::string &use) {
  DIR *directory = opendir("/"), *again = (DIR *)hide(directory);
  if (!is_good) closedir(directory);
  if (use == "read") CHECK((readdir(again) == NULL) == !is_good);
  if (use == "rewind") rewinddir(again);
  if (is_good || use == "close") closedir(again);
}

__attribute__((noinline)) static void run(const std::string &name) {
  long far = 0;
  size_t size = 0;
  // Writes that do not touch the zone beside the block: far-SIZE-OFFSET.
  if (sscanf(name.c_str(), "far-%zu-%ld", &size, &far) == 2) return stray(size, far, 8);
  // One write through several slots: run-SIZE-LENGTH.
  if (sscanf(name.c_str(), "run-%zu-%ld", &size, &far) == 2) return stray(size, 0, (size_t)far);
  if (name.compare(0, 5, "wild-") == 0) return wild(name);
  if (name.compare(0, 7, "stream-") == 0) return closed_stream(name.substr(7));
  if (name.compare(0, 10, "directory-") == 0) return closed_directory(name.substr(10));
  if (name == "pipe-close") return closed_pipe();
  // Blocks too large to be kept with their contents.
  if (name == "large-write-after-free") {
    char *block = allocating(50 << 20);
    freeing(block);
    if (!is_good) block[30 << 20] = 1;
  } else if (name == "large-double-free") {
    char *block = allocating(50 << 20);
    freeing(block);
    for (size_t i = 0; i < 10; i++) freeing(allocating((20 << 20) + i * 4096));
    if (!is_good) freeing(block);
  } else if (name == "live-neighbours") {
    static char *blocks[5000];
    for (char *&block : blocks) memset(block = allocating(48), 1, 48);
    memset(blocks[2500], 2, is_good ? 48 : 100);
    for (char *block : blocks) freeing(block);
  } else if (name == "array-to-free") {
    std::string *strings = (std::string *)hide(new std::string[3]);
    if (is_good)
      delete[] strings;
    else
      freeing((void *)strings);
  } else if (name == "array-to-delete") {
    std::string *strings = (std::string *)hide(new std::string[3]);
    if (is_good)
      delete[] strings;
    else
      operator delete((void *)strings);
  } else if (name == "malloc-as-array") {
    // What delete[] of a class passes on when nobody needs the count.
    char *block = allocating(40);
    if (is_good)
      freeing(block);
    else
      operator delete[]((char *)hide(block) - 8);
  } else if (name == "one-string") {
    one_as_array<std::string>();
  } else if (name == "one-counted") {
    one_as_array<Counted<40>>();
    CHECK(Counted<40>::destroyed == (is_good ? 8 : 7), "%ld destroyed", Counted<40>::destroyed);
  } else if (name == "one-large") {
    one_as_array<Counted<200000>>();
  } else if (name == "one-aligned") {
    one_as_array<Aligned>();
  } else if (name == "array-twice") {
    array_twice<std::string>();
  } else if (name == "array-twice-counted") {
    array_twice<Counted<40>>();
    CHECK(Counted<40>::destroyed == 3, "%ld destroyed", Counted<40>::destroyed);
  } else if (name == "array-twice-large") {
    array_twice<Counted<200000>>();
  } else if (name == "before-one") {
    // The end of the zone before an item of new, which may hold a count.
    long *one = (long *)hide(new long(1));
    if (!is_good) ((char *)one)[-1] = 1;
    delete one;
  } else if (name == "past-one") {
    static long *ones[100];
    for (long *&one : ones) one = new long(1);
    if (!is_good) ((char *)hide(ones[50]))[8] = 0;
    for (long *one : ones) delete one;
  } else if (name == "freed-count") {
    // A freed array that began with a number like a count.
    long *numbers = (long *)hide(new long[10]), *again = (long *)hide(numbers);
    numbers[0] = 8;
    delete[] numbers;
    if (!is_good) again[0] = 7;
    delete[] (long *)hide(new long[10]);
  } else if (name == "freed-pointer") {
    void **block = (void **)hide(allocating(40)), **again = (void **)hide(block);
    void *inner = block[1] = hide(malloc(10));
    freeing(block);
    free(is_good ? inner : again[1]);
    if (!is_good) free(inner);
  } else if (name == "mismatch-once") {
    char *block = (char *)hide(malloc(3));
    if (is_good)
      free(block);
    else
      delete block;
  } else if (name == "negative-new") {
    try {
      if (!is_good) freeing(hide(operator new((size_t)hide((void *)-5l))));
    } catch (std::bad_alloc &) {
    }
  } else if (name == "terabytes") {
    void *block = hide(malloc((size_t)1 << 46));
    CHECK(!block && errno == ENOMEM, "64 TiB were had");
    if (!is_good) stray(10, 10, 1);
  } else if (name == "lost-_exit") {
    lose(50);
    puts("ok");
    fflush(stdout);
    _exit(0);
  } else if (name == "lost-quick_exit") {
    lose(50);
    puts("ok");
    fflush(stdout);
    quick_exit(0);
  } else if (name == "overflow-quick_exit") {
    keeper = allocating(40);
    if (!is_good) keeper[40] = 1;
    puts("ok");
    fflush(stdout);
    quick_exit(0);
  } else if (name == "overflow-abort") {
    keeper = allocating(40);
    if (!is_good) {
      keeper[40] = 1;
      abort();
    }
  } else if (name == "underflow-kept") {
    // The first of its slab, and never freed.
    keeper = allocating(700);
    if (!is_good) keeper[-8] = 1;
  } else if (name == "overflow-fault") {
    keeper = allocating(40);
    if (!is_good) keeper[40] = 1;
    if (!is_good) *(volatile char *)hide((void *)8) = 1;
  } else if (name == "fault") {
    if (!is_good) *(volatile char *)hide((void *)8) = 1;
  } else if (name == "closed-descriptors") {
    for (int i = 3; i < 1024; i++) close(i);
    stray(10, 10, 1);
  } else if (name == "changed-root") {
    // Where nothing of the old tree is left, /proc neither.
    char directory[] = "/tmp/kegmalloc-root-XXXXXX";
    CHECK(mkdtemp(directory) && chdir("/tmp") == 0, "no directory");
    int result = chroot(directory);
    // Still seen from the directory that was entered before.
    rmdir(directory + 5);
    CHECK(result == 0 && chdir("/") == 0, "no root");
    lose(77);
    stray(10, 10, 1);
  } else if (name == "lost-dlclose") {
    void *library = dlopen(LOSER, RTLD_NOW);
    CHECK(library, "%s", dlerror());
    ((void (*)(int))dlsym(library, "losing_in_library"))(is_good);
    dlclose(library);
  } else {
    CHECK(false, "no case %s", name.c_str());
  }
}

int main(int count, char **arguments) {
  CHECK(count >= 2, "which case?");
  is_good = count > 2;
  run(arguments[1]);
  return ok();
}
