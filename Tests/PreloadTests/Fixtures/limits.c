// Surroundings that forbid something; the argument names the case. Arguments that
// end in an equals sign take a value.
#include "fixture.h"
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static void churn(int steps, size_t limit, int with_realloc) {
  uint64_t seed = 17;
  static char *blocks[100];
  static size_t sizes[100];
  for (int step = 0; step < steps; step++) {
    int i = random_next(&seed) % 100;
    if (blocks[i] && with_realloc && step % 3 == 0) {
      size_t size = random_size(&seed, limit) + 1;
      blocks[i] = realloc(blocks[i], size);
      CHECK(blocks[i] != NULL);
      CHECK(is_marked(blocks[i], size < sizes[i] ? size : sizes[i], i), "step %d", step);
      mark(blocks[i], sizes[i] = size, i);
    } else if (blocks[i]) {
      CHECK(is_marked(blocks[i], sizes[i], i), "step %d", step);
      free(blocks[i]);
      blocks[i] = NULL;
    } else {
      sizes[i] = random_size(&seed, limit);
      blocks[i] = step % 2 ? malloc(sizes[i]) : calloc(1, sizes[i]);
      CHECK(blocks[i] != NULL, "step %d, size %zu", step, sizes[i]);
      if (step % 2 == 0) CHECK(is_zero(blocks[i], sizes[i]), "step %d, size %zu", step, sizes[i]);
      mark(blocks[i], sizes[i], i);
    }
  }
  for (int i = 0; i < 100; i++) free(blocks[i]), blocks[i] = NULL;
}

// Takes blocks until there are no more; how many bytes were had. Frees them.
static size_t exhaust(size_t size) {
  void **list = NULL, **block;
  size_t total = 0;
  while ((block = malloc(size)) != NULL) {
    *block = list;
    list = block;
    total += size;
  }
  CHECK(errno == ENOMEM);
  while (list) {
    block = *list;
    free(list);
    list = block;
  }
  return total;
}

// Started under a limit of `megabytes` MiB: two fifths of it can be had in any size.
static void started_under(int resource, size_t megabytes) {
  struct rlimit limit;
  CHECK(getrlimit(resource, &limit) == 0 && limit.rlim_cur == megabytes * MIB, "limit %zu", (size_t)limit.rlim_cur);
  churn(20000, 100 * KIB, 1);
  size_t sizes[] = {64, 1000, 30000, 200000, MIB};
  for (int i = 0; i < 5; i++) {
    size_t total = exhaust(sizes[i]);
    CHECK(total > megabytes * MIB / 5 * 2, "%zu KiB in blocks of %zu", total / KIB, sizes[i]);
  }
  churn(20000, 100 * KIB, 1);
}

// The program limits itself later on: what it may map then must not depend on us.
static void limited_later(int by_prlimit) {
  churn(5000, 300 * KIB, 1);
  struct rlimit limit = {GIB, GIB};
  CHECK((by_prlimit ? prlimit(0, RLIMIT_AS, &limit, NULL) : setrlimit(RLIMIT_AS, &limit)) == 0);
  struct rlimit now;
  CHECK(getrlimit(RLIMIT_AS, &now) == 0 && now.rlim_cur == GIB);
  for (int i = 0; i < 2; i++) {
    void *mapping = mmap(NULL, GIB / 3, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(mapping != MAP_FAILED, "a third of the limit cannot be mapped");
    churn(5000, 300 * KIB, 1);
    void *block = malloc(100 * MIB);
    CHECK(block != NULL, "100 MiB under a limit of 1 GiB");
    memset(block, 1, 100 * MIB);
    free(block);
    munmap(mapping, GIB / 3);
  }
  CHECK(exhaust(MIB) > GIB / 2);
  churn(5000, 300 * KIB, 1);
}

// A block that grew to 60 MiB takes 60 of 256 MiB and not a multiple of that: two more
// of 80 MiB fit beside it.
static void grown_under_data_limit(int later) {
  struct rlimit limit = {256 * MIB, 256 * MIB};
  if (later) CHECK((free(realloc(calloc(1, MIB), 9 * MIB)), setrlimit(RLIMIT_DATA, &limit)) == 0);
  else CHECK(getrlimit(RLIMIT_DATA, &limit) == 0 && limit.rlim_cur == 256 * MIB);
  char *block = NULL;
  for (size_t size = MIB / 2; size < 60 * MIB; size += 64 * KIB) {
    block = realloc(block, size);
    CHECK(block != NULL, "at %zu KiB", size / KIB);
    block[size - 1] = 1;
  }
  char *one = malloc(80 * MIB), *two = malloc(80 * MIB);
  CHECK(one && two, "%p %p", (void *)one, (void *)two);
  free(one), free(two), free(block);
}

// Requests that are refused, of any size, leave all that could be had before.
static void refused_under_data_limit(void) {
  free(malloc(1));
  for (size_t size = 64 * GIB; size > 300 * MIB; size = size / 4 * 3) CHECK(malloc(hide_size(size)) == NULL, "%zu", size);
  char *block = malloc(200 * MIB);
  CHECK(block != NULL);
  free(block);
}

static void locked_memory(int flags) {
  struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
  setrlimit(RLIMIT_MEMLOCK, &all);
  churn(2000, 100 * KIB, 1);
  if (mlockall(flags) != 0) {
    dprintf(1, "skip: mlockall: %s\n", strerror(errno));
    exit(0);
  }
  // Everything mapped is now resident: an allocator's reservation must not be.
  CHECK(status_kib("VmLck:") < 512 * 1024, "%zu KiB locked", status_kib("VmLck:"));
  churn(30000, 300 * KIB, 1);
  for (int round = 0; round < 3; round++)  // pages that cannot be given back stay dirty
    for (size_t size = 100; size < 8 * MIB; size *= 3) {
      char *block = malloc(size);
      memset(block, 0xee, size);
      free(block);
      block = calloc(1, size);
      CHECK(is_zero(block, size), "size %zu", size);
      memset(block, 0xdd, size);
      free(block);
    }
  CHECK(munlockall() == 0);
  churn(5000, 300 * KIB, 1);
}

// A thread under mlockall(MCL_FUTURE) gets its stack and its arrays locked too.
static void *lock_churn(void *argument) {
  churn(5000, 100 * KIB, 1);
  return argument;
}

static void closed_descriptors(int report) {
  close(0), close(1), close(2);
  churn(20000, MIB, 1);
  // Nobody but the program may have taken the free numbers.
  CHECK(open("/dev/null", O_RDONLY) == 0 && open("/dev/null", O_RDONLY) == 1, "descriptors in use");
  close(0), close(1);
  dup2(report, 1);
}

static void empty_root(void) {
  char directory[] = "/tmp/kegmalloc-root-XXXXXX";
  CHECK(mkdtemp(directory) != NULL);
  if (chroot(directory) != 0) {
    rmdir(directory);
    dprintf(1, "skip: chroot: %s\n", strerror(errno));
    exit(0);
  }
  CHECK(chdir("/") == 0);
  churn(20000, 2 * MIB, 1);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, lock_churn, NULL) == 0);
  pthread_join(thread, NULL);
  pid_t pid = fork();
  if (pid == 0) {
    churn(1000, MIB, 1);
    _exit(0);
  }
  int status;
  CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

// Kills the process at any call but those an allocator may need after boot.
static void strict_filter(const char *also) {
  free(malloc(1));  // after boot
  static const int allowed[] = {
      SYS_read, SYS_write, SYS_exit, SYS_exit_group, SYS_rt_sigreturn,
      SYS_mmap, SYS_munmap, SYS_mprotect, SYS_madvise, SYS_futex,
  };
  struct sock_filter program[40] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
  };
  unsigned count = 1;
  int extra[2] = {-1, -1};
  // Other allocators may need these: to try the fixture itself out with them.
  if (also && strstr(also, "brk")) extra[0] = SYS_brk;
  if (also && strstr(also, "mremap")) extra[1] = SYS_mremap;
  for (unsigned i = 0; i < sizeof allowed / sizeof *allowed + 2; i++) {
    int number = i < 10 ? allowed[i] : extra[i - 10];
    if (number < 0) continue;
    program[count++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1);
    program[count++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  }
  program[count++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
  struct sock_fprog filter = {count, program};
  CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0);
}

int main(int argc, char **argv) {
  CHECK(argc >= 2);
  const char *kind = argv[1];
  int report = fcntl(1, F_DUPFD_CLOEXEC, 100);
  if (!strncmp(kind, "as=", 3)) {
    started_under(RLIMIT_AS, atoi(kind + 3));
  } else if (!strncmp(kind, "data=", 5)) {
    started_under(RLIMIT_DATA, atoi(kind + 5));
  } else if (!strcmp(kind, "data-grown=256")) {
    grown_under_data_limit(0);
  } else if (!strcmp(kind, "data-refused=256")) {
    refused_under_data_limit();
  } else if (!strcmp(kind, "data-grown-later")) {
    grown_under_data_limit(1);
  } else if (!strcmp(kind, "setrlimit")) {
    limited_later(0);
  } else if (!strcmp(kind, "prlimit")) {
    limited_later(1);
  } else if (!strcmp(kind, "mlockall-current")) {
    locked_memory(MCL_CURRENT);
  } else if (!strcmp(kind, "mlockall-future")) {
    locked_memory(MCL_CURRENT | MCL_FUTURE);
  } else if (!strcmp(kind, "closed")) {
    closed_descriptors(report);
  } else if (!strcmp(kind, "chroot")) {
    empty_root();
  } else if (!strcmp(kind, "seccomp")) {
    strict_filter(argv[2]);
    churn(50000, 2 * MIB, 0);
  } else if (!strcmp(kind, "seccomp-realloc")) {
    strict_filter(argv[2]);
    churn(50000, 2 * MIB, 1);
  } else {
    CHECK(0, "unknown case %s", kind);
  }
  return ok();
}
