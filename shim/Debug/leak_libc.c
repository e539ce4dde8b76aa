// leak_libc.c: where the C library keeps what the leak check must know: the thread
// block and static TLS above each stack, and the frames that lie between exit(3) and
// us. glibc describes its thread block in variables made for debuggers.
#define _GNU_SOURCE
#include "leak.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>

#include "leak_files.h"

static uintptr_t static_tls, tid_offset, result_offset;

// A field as nptl_db describes it: bits, elements, offset.
static uintptr_t offset_of(const char *symbol) {
  const uint32_t *field = dlsym(RTLD_DEFAULT, symbol);
  return field && field[2] < 1 << 16 ? field[2] : 0;
}

static int32_t first_pid;

static int32_t own_pid(void) { return (int32_t)keg_syscall6(KEG_SYS_getpid, 0, 0, 0, 0, 0, 0); }

void keg_leak_prepare(void) {
  first_pid = own_pid();
  void (*ask)(size_t *, size_t *);
  *(void **)&ask = dlsym(RTLD_DEFAULT, "_dl_get_tls_static_info");
  size_t size = 0, alignment = 0;
  if (ask) ask(&size, &alignment);
  tid_offset = offset_of("_thread_db_pthread_tid");
  // `result`, two ints of scheduling, `start_routine`: in this order since 2.0.
  uintptr_t routine = offset_of("_thread_db_pthread_start_routine");
  result_offset = routine > 16 ? routine - 16 : 0;
  static_tls = size > 64 ? size : 4096;
}

bool keg_leak_is_forked(void) { return own_pid() != first_pid; }

extern const char _end[] KEG_HIDDEN;
uintptr_t keg_leak_own_end(void) { return (uintptr_t)_end; }

uintptr_t keg_leak_static_tls(void) { return static_tls; }
uintptr_t keg_leak_tid_offset(void) { return tid_offset; }
uintptr_t keg_leak_result_offset(void) { return result_offset; }

// exit and quick_exit call one function, which never returns and so is at its very end. That call's
// return address marks the frame:
//
//   … our destructor, the loader's, __run_exit_handlers │ return into exit │ 8 bytes │ return to exit's caller │ its frame
//
// The callee's first pushes, right below the mark, are the registers of exit's caller.
uintptr_t keg_leak_exit_caller(uintptr_t sp, uintptr_t end, uintptr_t *registers,
                               bool *main_returned) {
  uintptr_t first = (uintptr_t)&exit, quick = (uintptr_t)&quick_exit;
  *main_returned = false;
  for (uintptr_t at = (sp + 7) & ~7ul; at + 24 <= end; at += 8) {
    uintptr_t word = *(uintptr_t *)at;
    if (word - first - 1 >= 64 && word - quick - 1 >= 64) continue;
    const uint8_t *code = (const uint8_t *)word;
    if (code[-5] != 0xe8) continue;  // not behind a call
    for (int i = 0; i < 6; i++) registers[i] = at - sp >= 8 * (i + 1ul) ? ((uintptr_t *)at)[-1 - i] : 0;
    // The C library's call of main and then exit: call *%rax; mov %eax, %edi; call exit.
    uintptr_t caller = ((uintptr_t *)at)[2];
    if (keg_is_readable(caller - 9) && keg_is_readable(caller)) {
      const uint8_t *after = (const uint8_t *)caller;
      int32_t distance;
      __builtin_memcpy(&distance, after - 4, 4);
      *main_returned = after[-9] == 0xff && after[-8] == 0xd0 && after[-7] == 0x89 &&
                       after[-6] == 0xc7 && after[-5] == 0xe8 &&
                       caller + (uintptr_t)(intptr_t)distance == first;
    }
    return at + 24;
  }
  return 0;
}

// A value whose key is gone goes when somebody asks for it.
void keg_leak_drop_deleted_keys(void) {
  for (pthread_key_t key = 0; key < PTHREAD_KEYS_MAX; key++) pthread_getspecific(key);
}

// ---- the parent ---------------------------------------------------------------------

// Reads /proc/<pid>/<name>, in which `text` is looked for; with `whole` it must be all of
// the first line.
static bool file_has(long pid, const char *name, const char *text, bool whole) {
  static char buffer[8192];
  char path[64] = "/proc/", digits[20];
  int length = 6, count = 0;
  for (long rest = pid; rest > 0; rest /= 10) digits[count++] = (char)('0' + rest % 10);
  while (count > 0) path[length++] = digits[--count];
  path[length++] = '/';
  __builtin_strcpy(path + length, name);
  long file = keg_file_open(AT_FDCWD, path, 0);
  if (file < 0) return false;
  size_t wanted = __builtin_strlen(text);
  long kept = 0;
  bool found = false;
  while (!found) {
    // What is kept is the end of the last piece: the text may lie across two.
    long size = keg_file_read(file, buffer + kept, sizeof buffer - 1 - (size_t)kept);
    if (size <= 0) break;
    size += kept;
    buffer[size] = 0;
    const char *at = __builtin_strstr(buffer, text);
    found = whole ? at == buffer && buffer[wanted] == '\n' : at != 0;
    if (whole) break;
    kept = size < (long)wanted ? size : (long)wanted;
    __builtin_memmove(buffer, buffer + size - kept, (size_t)kept);
  }
  keg_file_close(file);
  return found;
}

bool keg_leak_parent_is_checked(void) {
  long parent = keg_syscall6(110 /* getppid */, 0, 0, 0, 0, 0, 0);
  if (parent <= 0 || !file_has(parent, "maps", "libkegmalloc-debug.so", false)) return false;
  static const char *const transparent[] = {"sh",  "dash", "bash", "zsh",  "ksh",     "fish",
                                            "env", "nice", "time", "nohup", "timeout", "stdbuf",
                                            "busybox", "setsid"};
  for (unsigned i = 0; i < sizeof transparent / sizeof *transparent; i++)
    if (file_has(parent, "comm", transparent[i], true)) return false;
  return true;
}
