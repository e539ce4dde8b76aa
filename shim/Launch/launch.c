// launch: starts one command, waits for it, and reports what it used.
//
//   kegmalloc-launch FD [NAME=VALUE]... -- command [argument]...
//
// Why a program of its own: Linux hands a process the peak RSS of whoever
// called vfork for it (exec keeps the larger of the two), so that a command
// started by the tool itself would never seem smaller than the tool, which is
// ten times the size of /bin/true. This one is as small as a C program gets.
// It also keeps the clock next to the system calls.
//
// It writes lines to FD: "pid N" once the command runs, or "failed ERRNO" when
// it could not be started; then
// "end STATUS WALLns USERus SYSTEMus PEAKkib MINOR MAJOR VOLUNTARY INVOLUNTARY".
// NAME=VALUE is set in the command's environment only. The command inherits
// stdin, stdout, stderr and the process group, but not FD.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static long long now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static long long microseconds(struct timeval time) {
  return time.tv_sec * 1000000LL + time.tv_usec;
}

int main(int argc, char **argv) {
  int next = 2;
  while (next < argc && strcmp(argv[next], "--") != 0) {
    if (strchr(argv[next], '=') == NULL || putenv(argv[next]) != 0) return 64;
    next++;
  }
  if (next + 1 >= argc) {
    fputs("usage: kegmalloc-launch FD [NAME=VALUE]... -- command [argument]...\n", stderr);
    return 64;
  }
  int fd = atoi(argv[1]);
  fcntl(fd, F_SETFD, FD_CLOEXEC);

  pid_t child;
  long long start = now();
  int error = posix_spawnp(&child, argv[next + 1], NULL, NULL, argv + next + 1, environ);
  if (error != 0) {
    dprintf(fd, "failed %d\n", error);
    return error == ENOENT ? 127 : 126;
  }
  dprintf(fd, "pid %d\n", (int)child);

  int status;
  struct rusage used;
  while (wait4(child, &status, 0, &used) < 0)
    if (errno != EINTR) return 70;
  long long wall = now() - start;
  dprintf(fd, "end %d %lld %lld %lld %ld %ld %ld %ld %ld\n", status, wall,
          microseconds(used.ru_utime), microseconds(used.ru_stime), used.ru_maxrss,
          used.ru_minflt, used.ru_majflt, used.ru_nvcsw, used.ru_nivcsw);
  return 0;
}
