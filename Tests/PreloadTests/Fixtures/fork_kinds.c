// The other ways to make a process; the argument names one. With threads in the
// parent only fork itself promises a working malloc, so the raw ways run with other
// threads asleep, outside the allocator; beside busy ones (`orphans`) a child must
// still allocate, free its own blocks and end.
#include "fixture.h"
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>

extern char **environ;
pid_t _Fork(void);

static void churn(unsigned rounds) {
  uint64_t seed = rounds;
  void *blocks[50] = {NULL};
  for (unsigned i = 0; i < rounds; i++) {
    void **place = &blocks[random_next(&seed) % 50];
    free(*place);
    size_t size = random_size(&seed, 300 * KIB);
    *place = malloc(size);
    CHECK(*place != NULL);
    memset(*place, 1, size);
  }
  for (int i = 0; i < 50; i++) free(blocks[i]);
}

static _Atomic int asleep;
static void *sleep_long(void *argument) {
  churn(100);
  asleep++;
  pause();
  return argument;
}

static void *busy(void *stop) {
  while (!*(volatile int *)stop) churn(50);
  return NULL;
}

static void reap(pid_t pid) {
  int status;
  CHECK(pid > 0);
  CHECK(waitpid(pid, &status, 0) == pid && status == 0, "status %x", status);
}

static pid_t raw_clone(void) { return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); }

// The child allocates, frees what the parent allocated, and leaves.
static void bare(pid_t (*make)(void)) {
  for (int i = 0; i < 100; i++) {
    char *block = malloc(500 + i * 1000);
    mark(block, 500, 3);
    pid_t pid = make();
    if (pid == 0) {
      CHECK(is_marked(block, 500, 3));
      free(block);
      churn(300);
      _exit(0);
    }
    churn(100);
    reap(pid);
    free(block);
  }
}

// Locks are held and lists half changed in threads that the child does not have.
static void orphans(void) {
  for (int i = 0; i < 200; i++) {
    pid_t pid = i & 1 ? _Fork() : raw_clone();
    if (pid == 0) {
      alarm(200);
      churn(100);
      _exit(0);
    }
    reap(pid);
  }
}

static void sleepers(void) {
  pthread_t thread;
  for (int i = 0; i < 3; i++) CHECK(pthread_create(&thread, NULL, sleep_long, NULL) == 0);
  while (asleep < 3) usleep(1000);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  const char *kind = argv[1];
  volatile int stop = 0;
  pthread_t threads[2];
  churn(1000);
  if (!strcmp(kind, "_Fork")) {
    bare(_Fork);
    sleepers();
    bare(_Fork);
    return ok();
  }
  if (!strcmp(kind, "clone")) {
    bare(raw_clone);
    sleepers();
    bare(raw_clone);
    return ok();
  }
  for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, busy, (void *)&stop);
  if (!strcmp(kind, "orphans")) orphans();
  for (int i = 0; i < 50; i++) {
    char *const command[] = {"/bin/true", NULL};
    if (!strcmp(kind, "orphans")) break;
    if (!strcmp(kind, "vfork")) {
      pid_t pid = vfork();
      if (pid == 0) {
        execve(command[0], command, environ);
        _exit(127);
      }
      reap(pid);
    } else if (!strcmp(kind, "posix_spawn")) {
      pid_t pid;
      CHECK(posix_spawn(&pid, command[0], NULL, NULL, command, environ) == 0);
      reap(pid);
    } else if (!strcmp(kind, "system")) {
      CHECK(system("exit 3") == 3 << 8);
    } else if (!strcmp(kind, "popen")) {
      char line[100] = "";
      FILE *pipe = popen("echo hello", "r");
      CHECK(pipe != NULL && fgets(line, sizeof line, pipe) && !strcmp(line, "hello\n"), "read %s", line);
      CHECK(pclose(pipe) == 0);
    } else {
      CHECK(0, "unknown kind %s", kind);
    }
    churn(100);
  }
  stop = 1;
  for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
  return ok();
}
