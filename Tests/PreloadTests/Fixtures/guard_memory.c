// guard_memory.c: what guard pages cost and survive: `guard_memory CASE`. `refusing` puts
// a filter into the kernel's way that knows no MADV_GUARD_INSTALL, as before Linux 6.13,
// and runs the program that follows.
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "fixture.h"

static int count_mappings(void) {
  FILE *file = fopen("/proc/self/maps", "re");
  CHECK(file, "no maps");
  int lines = 0;
  for (int c; (c = getc(file)) != EOF;) lines += c == '\n';
  fclose(file);
  return lines;
}

enum { BLOCKS = 20000 };
static char *blocks[BLOCKS];

static size_t size_of(int i) { return (size_t)i * 37 % 3000; }
static void take(int i) {
  blocks[i] = malloc(size_of(i));
  CHECK(blocks[i] && malloc_usable_size(blocks[i]) == size_of(i), "%d", i);
  mark(blocks[i], size_of(i), (unsigned)i);
}
static void give(int i) {
  CHECK(is_marked(blocks[i], size_of(i), (unsigned)i), "%d", i);
  free(blocks[i]);
}

// Far more than is used again afterwards, in few calls: the pages are not touched.
static void go_through_addresses(void) {
  for (int i = 0; i < 200; i++) {
    char *block = calloc(1, 40 * MIB);
    CHECK(block, "no memory");
    CHECK(block[0] == 0 && block[20 * MIB] == 0 && block[40 * MIB - 1] == 0, "round %d", i);
    block[0] = block[20 * MIB] = block[40 * MIB - 1] = 1;
    free(block);
  }
}

static void use_again(void) {
  for (int round = 0; round < 3; round++) {
    for (int i = 0; i < BLOCKS / 4; i++) take(i);
    for (int i = 0; i < BLOCKS / 4; i++) give(i);
    char *block = calloc(1, 3000);
    CHECK(is_zero(block, 3000), "calloc");
    memset(block, 1, 3000);
    free(block);
  }
}

// Five blocks whose sizes put them at odd places; each begins with the address of the next.
static char *first_link;

static void make_links(void) {
  char *holder = (char *)&first_link;
  for (size_t i = 0; i < 5; i++) {
    char *link = calloc(1, 21 + i);
    memcpy(holder, &link, sizeof link);
    holder = link;
  }
}

// A program's own barrier over whole blocks, red zones and all; nobody ever opens it.
static void protect_blocks(void) {
  static char *volatile kept[5];
  const size_t pages[] = {1, 3, 10, 512};
  for (int i = 0; i < 4; i++) {
    kept[i] = aligned_alloc(4096, pages[i] * 4096);
    CHECK(kept[i], "no memory");
    kept[i][0] = 1;
    CHECK(mprotect(kept[i], pages[i] * 4096, PROT_NONE) == 0, "mprotect");
  }
  kept[4] = malloc(24);
  CHECK(mprotect((void *)((uintptr_t)kept[4] & ~4095ul), 4096, PROT_NONE) == 0, "mprotect");
}

static void refuse_guards(char **command) {
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 4),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 102, 1, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 103, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
  CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "prctl");
  CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0, "seccomp");
  execvp(command[0], command);
  CHECK(0, "execvp %s", command[0]);
}

int main(int count, char **arguments) {
  CHECK(count >= 2, "a case");
  const char *name = arguments[1];
  if (strcmp(name, "refusing") == 0) refuse_guards(arguments + 2);
  if (strcmp(name, "mappings") == 0) {
    // The first lines: buffers of stdio and the like.
    count_mappings();
    free(malloc(100));
    int before = count_mappings();
    for (int i = 0; i < BLOCKS; i++) take(i);
    int between = count_mappings();
    for (int i = 0; i < BLOCKS; i += 2) give(i);
    int after = count_mappings();
    CHECK(between <= before + 8 && after <= before + 8, "%d, %d, %d", before, between, after);
    for (int i = 1; i < BLOCKS; i += 2) give(i);
  } else if (strcmp(name, "many") == 0) {
    for (int i = 0; i < BLOCKS; i++) take(i);
    for (int i = 0; i < BLOCKS; i++) give(i);
    // There is room for other mappings.
    void *pages[100];
    for (int i = 0; i < 100; i++) {
      pages[i] = mmap(NULL, 4096, i % 2 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      CHECK(pages[i] != MAP_FAILED, "mapping %d", i);
    }
  } else if (strcmp(name, "reuse") == 0) {
    use_again();
    go_through_addresses();
    use_again();
  } else if (strcmp(name, "let-through") == 0) {
    for (int i = 0; i < 50; i++) {
      volatile char *block = hide(malloc(24));
      block[24] = 1;
      block[-1] = 1;
      free((void *)block);
      block[3] = 1;
    }
    go_through_addresses();
    for (int i = 0; i < 2000; i++) {
      char *block = calloc(1, 24);
      CHECK(is_zero(block, 24), "calloc");
      free(block);
    }
  } else if (strcmp(name, "locked") == 0) {
    CHECK(mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0, "mlockall");
    use_again();
    go_through_addresses();
    use_again();
  } else if (strcmp(name, "protected") == 0) {
    // Now: the stream's buffer may lie beside the block of 24 bytes.
    puts("ok");
    fflush(stdout);
    protect_blocks();
    exit(0);
  } else if (strcmp(name, "hold") == 0) {
    make_links();
  } else if (strcmp(name, "lose") == 0) {
    make_links();
    first_link = NULL;
  } else if (strcmp(name, "overflow-of-many") == 0) {
    for (int i = 0; i < BLOCKS; i++) take(i);
    // The last ones are beyond the limit.
    blocks[BLOCKS - 1][size_of(BLOCKS - 1)] = 1;
    for (int i = 0; i < BLOCKS; i++) give(i);
  } else {
    CHECK(0, "no case %s", name);
  }
  return ok();
}
