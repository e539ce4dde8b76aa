// debug.c: storage of the debug library, and its questions to the C library.
#define _GNU_SOURCE
#include "debug.h"
#include "platform.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>

__thread struct keg_debug_thread keg_debug_self;
char keg_debug_bytes[KEG_DEBUG_BYTES] __attribute__((aligned(64)));
char keg_debug_running;
char keg_debug_forking;
char keg_debug_sampling;
char keg_report_bytes[KEG_REPORT_BYTES] __attribute__((aligned(64)));

static pthread_key_t exit_key;
static bool has_exit_key;
static void (*thread_exits)(void);

// Other destructors may still free: ours is called again, as late as pthread allows. The
// thread sanitizer knows nothing of a thread that it has seen off in the last round.
#if __has_feature(thread_sanitizer)
enum { LAST_ROUND = PTHREAD_DESTRUCTOR_ITERATIONS - 1 };
#else
enum { LAST_ROUND = PTHREAD_DESTRUCTOR_ITERATIONS };
#endif

static void run_thread_exit(void *unused) {
  (void)unused;
  if (++keg_debug_self.exit_rounds < LAST_ROUND)
    keg_debug_watch_thread_exit();
  else
    thread_exits();
}

void keg_debug_install_hooks(const struct keg_debug_hooks *hooks) {
  thread_exits = hooks->thread_exits;
  has_exit_key = pthread_key_create(&exit_key, run_thread_exit) == 0;
  pthread_atfork(hooks->fork_prepare, hooks->fork_parent, hooks->fork_child);
}

void keg_debug_watch_thread_exit(void) {
  if (has_exit_key) pthread_setspecific(exit_key, &keg_debug_self);
}

void keg_debug_write(int descriptor, const void *bytes, uintptr_t size) {
  uint64_t mask = 1ul << (SIGXFSZ - 1) | 1ul << (SIGPIPE - 1), old = mask;
  keg_syscall6(KEG_SYS_rt_sigprocmask, SIG_BLOCK, (long)&mask, (long)&old, sizeof mask, 0, 0);
  long result = keg_syscall6(KEG_SYS_write, descriptor, (long)bytes, (long)size, 0, 0, 0);
  // What the program does not block was not waiting before: it is of this write.
  uint64_t ours = mask & ~old;
  struct timespec now = {0, 0};
  if ((result == -EPIPE || result == -EFBIG) && ours)
    keg_syscall6(128 /* rt_sigtimedwait */, (long)&ours, 0, (long)&now, sizeof ours, 0, 0);
  keg_syscall6(KEG_SYS_rt_sigprocmask, SIG_SETMASK, (long)&old, 0, sizeof old, 0, 0);
}

static bool has_started;
__attribute__((constructor)) static void note_start(void) { has_started = true; }
bool keg_debug_has_started(void) { return has_started; }

void keg_debug_register_barrier(void) {
  keg_syscall6(324 /* membarrier */, 16 /* REGISTER_PRIVATE_EXPEDITED */, 0, 0, 0, 0, 0);
}

void keg_debug_barrier(void) {
  keg_syscall6(324 /* membarrier */, 8 /* PRIVATE_EXPEDITED */, 0, 0, 0, 0, 0);
}

void keg_debug_yield(void) { keg_syscall6(24 /* sched_yield */, 0, 0, 0, 0, 0, 0); }

// The start of a file, as a string. By system calls: this runs in the first malloc.
static bool read_file(const char *path, char *text, size_t size) {
  long file = keg_syscall6(2 /* open */, (long)path, 02000000 /* cloexec */, 0, 0, 0, 0);
  if (file < 0) return false;
  long count = keg_syscall6(0 /* read */, file, (long)text, (long)size - 1, 0, 0, 0);
  keg_syscall6(3 /* close */, file, 0, 0, 0, 0, 0);
  text[count > 0 ? count : 0] = 0;
  return count > 0;
}

// The least number in the files `name` of the directory root/path and those above it.
static uintptr_t least_limit(const char *root, const char *path, const char *name, uintptr_t least) {
  char file[1024];
  size_t base = strlen(root), length = strcspn(path, "\n");
  if (base + length + strlen(name) + 1 > sizeof file) return least;
  memcpy(file, root, base);
  memcpy(file + base, path, length);
  for (;;) {
    char text[32];
    memcpy(file + base + length, name, strlen(name) + 1);
    if (read_file(file, text, sizeof text) && text[0] >= '0' && text[0] <= '9') {
      uintptr_t limit = 0;
      for (char *digit = text; *digit >= '0' && *digit <= '9'; digit++)
        limit = limit * 10 + (uintptr_t)(*digit - '0');
      if (limit < least) least = limit;
    }
    if (length == 0) return least;
    do length--;
    while (length > 0 && file[base + length] != '/');
  }
}

// Names that every CPython and Swift's library have (swift_retain we have, too). Bound by
// the loader, so that nobody has to ask it.
#pragma GCC visibility push(default)
extern char PyCode_Type[] __attribute__((weak));
extern char swift_conformsToProtocol[] __attribute__((weak));
#pragma GCC visibility pop

bool keg_debug_has_cpython(void) {
  return PyCode_Type != 0;
}

bool keg_debug_has_swift(void) {
  return swift_conformsToProtocol != 0;
}

uintptr_t keg_debug_memory_bytes(void) {
  struct sysinfo info;
  uintptr_t bytes =
      sysinfo(&info) == 0 ? (uintptr_t)info.totalram * info.mem_unit : (uintptr_t)1 << 32;
  char groups[2048];
  if (!read_file("/proc/self/cgroup", groups, sizeof groups)) return bytes;
  // Version 2 has the line `0::/path`, version 1 `7:memory:/path`.
  char *path = strstr(groups, "0::/");
  if (path) bytes = least_limit("/sys/fs/cgroup", path + 3, "/memory.max", bytes);
  path = strstr(groups, ":memory:/");
  if (path)
    bytes = least_limit("/sys/fs/cgroup/memory", path + 8, "/memory.limit_in_bytes", bytes);
  return bytes;
}

uintptr_t keg_debug_resident(uintptr_t start, uintptr_t end, uintptr_t *run_end) {
  unsigned char resident[256];
  uintptr_t run = 0;
  for (uintptr_t at = start & ~4095ul; at < end;) {
    uintptr_t pages = (end - at + 4095) / 4096;
    if (pages > sizeof resident) pages = sizeof resident;
    if (keg_syscall6(27 /* mincore */, (long)at, (long)(pages * 4096), (long)resident, 0, 0, 0) != 0)
      break;
    for (uintptr_t i = 0; i < pages; i++, at += 4096) {
      if ((resident[i] & 1) != 0) {
        if (!run) run = at < start ? start : at;
      } else if (run) {
        *run_end = at;
        return run;
      }
    }
  }
  *run_end = end;
  return run ? run : end;
}

void keg_debug_flush_program(void) { fflush(NULL); }

// ---- files of reports -----------------------------------------------------------

int keg_debug_keep_stderr(void) {
  long copy = keg_syscall6(72 /* fcntl */, 2, 1030 /* F_DUPFD_CLOEXEC */, 200, 0, 0, 0);
  return copy < 0 ? 2 : (int)copy;
}

static long ask_file(int descriptor, uintptr_t *file) {
  struct stat about;
  long result = keg_syscall6(5 /* fstat */, descriptor, (long)&about, 0, 0, 0, 0);
  *file = result < 0 ? 0 : (about.st_dev * 0x9e3779b97f4a7c15u ^ about.st_ino) | 1;
  return result;
}

uintptr_t keg_debug_file(int descriptor) {
  uintptr_t file;
  ask_file(descriptor, &file);
  return file;
}

bool keg_debug_is_file(int descriptor, uintptr_t file) {
  uintptr_t now;
  long result = ask_file(descriptor, &now);
  // A sandbox may forbid the question.
  return result == 0 ? file == 0 || now == file : result != -EBADF;
}

bool keg_debug_names_process(const char *path) {
  for (; *path; path++)
    if (path[0] == '%' && path[1] == 'p') return true;
  return false;
}

int keg_debug_open_report(const char *path, int pid) {
  char name[4096];
  size_t used = 0;
  for (; *path && used < sizeof name - 16; path++) {
    if (path[0] == '%' && path[1] == 'p') {
      char digits[16];
      int count = 0;
      do digits[count++] = (char)('0' + pid % 10);
      while ((pid /= 10) != 0);
      while (count > 0) name[used++] = digits[--count];
      path++;
    } else {
      name[used++] = *path;
    }
  }
  name[used] = 0;
  // Out of the way of the program's own descriptors.
  long file = keg_syscall6(2 /* open */, (long)name, 02002101 /* append, create, cloexec */, 0644, 0, 0, 0);
  if (file < 0) return (int)file;
  long copy = keg_syscall6(72 /* fcntl */, file, 1030 /* F_DUPFD_CLOEXEC */, 201, 0, 0, 0);
  if (copy < 0) return (int)file;
  keg_syscall6(3 /* close */, file, 0, 0, 0, 0, 0);
  return (int)copy;
}
