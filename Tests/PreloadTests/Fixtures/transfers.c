// transfers.c: calls that give the kernel memory outside a block.
//   transfers CALL over|under|freed|fits SIZE
// `fits` also checks what the calls return, and that nothing of errno is lost.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <stdbool.h>
#include <sys/stat.h>

#include "fixture.h"

static int pair[2];
static FILE *zeros;

__attribute__((noinline)) static char *allocating(size_t size) { return hide(malloc(size)); }
__attribute__((noinline)) static void freeing(void *block) {
  free(block);
  hide(block);
}

// What programs call that were built with _FORTIFY_SOURCE.
extern ssize_t __read_chk(int, void *, size_t, size_t);
extern ssize_t __pread_chk(int, void *, size_t, off_t, size_t);
extern ssize_t __pread64_chk(int, void *, size_t, off_t, size_t);
extern ssize_t __recv_chk(int, void *, size_t, size_t, int);
extern ssize_t __recvfrom_chk(int, void *, size_t, size_t, int, struct sockaddr *, socklen_t *);
extern ssize_t __readlink_chk(const char *, char *, size_t, size_t);
extern ssize_t __readlinkat_chk(int, const char *, char *, size_t, size_t);
extern char *__getcwd_chk(char *, size_t, size_t);
extern size_t __fread_chk(void *, size_t, size_t, size_t, FILE *);
extern size_t __fread_unlocked_chk(void *, size_t, size_t, size_t, FILE *);
#define ROOM ((size_t)-1)

// A folder whose path is `size - 1` bytes long, and in it a link that points further.
static char folder[256], away[4000];
static void go_far(size_t size) {
  CHECK(size < sizeof folder);
  snprintf(folder, sizeof folder, "/tmp/%0*d", (int)size - 1 - 5, getpid());
  CHECK(strlen(folder) == size - 1 && mkdir(folder, 0700) == 0 && chdir(folder) == 0);
  memset(away, 'x', sizeof away - 1);
  CHECK(symlink(away, "link") == 0);
}
static void come_back(void) {
  if (!*folder) return;
  CHECK(unlink("link") == 0 && chdir("/") == 0 && rmdir(folder) == 0);
  *folder = 0;
}

__attribute__((noinline)) static ssize_t transferring(const char *call, char *start, size_t size) {
  struct iovec pieces[2] = {{start, size / 2}, {start + size / 2, size - size / 2}};
  struct mmsghdr message = {.msg_hdr = {.msg_iov = pieces, .msg_iovlen = 2}};
  struct sockaddr *nobody = NULL;
  int file = fileno(zeros);
  ssize_t result = -2;
#define IS(name) (strcmp(call, #name) == 0)
  if (IS(write)) result = write(pair[0], start, size);
  if (IS(pwrite)) result = pwrite(file, start, size, 0);
  if (IS(send)) result = send(pair[0], start, size, 0);
  if (IS(sendto)) result = sendto(pair[0], start, size, 0, nobody, 0);
  if (IS(sendmsg)) result = sendmsg(pair[0], &message.msg_hdr, 0);
  if (IS(sendmmsg)) result = sendmmsg(pair[0], &message, 1, 0) == 1 ? (ssize_t)message.msg_len : -1;
  if (IS(writev)) result = writev(pair[0], pieces, 2);
  if (IS(pwritev)) result = pwritev(file, pieces, 2, 0);
  if (IS(pwritev2)) result = pwritev2(file, pieces, 2, 0, 0);
  if (IS(fwrite)) result = (ssize_t)fwrite(start, 1, size, zeros);
  if (IS(fwrite_unlocked)) result = (ssize_t)fwrite_unlocked(start, 1, size, zeros);
  if (IS(read)) result = read(pair[1], start, size);
  if (IS(__read_chk)) result = __read_chk(pair[1], start, size, ROOM);
  if (IS(pread)) result = pread(file, start, size, 0);
  if (IS(__pread_chk)) result = __pread_chk(file, start, size, 0, ROOM);
  if (IS(__pread64_chk)) result = __pread64_chk(file, start, size, 0, ROOM);
  if (IS(recv)) result = recv(pair[1], start, size, 0);
  if (IS(__recv_chk)) result = __recv_chk(pair[1], start, size, ROOM, 0);
  if (IS(recvfrom)) result = recvfrom(pair[1], start, size, 0, NULL, NULL);
  if (IS(__recvfrom_chk)) result = __recvfrom_chk(pair[1], start, size, ROOM, 0, NULL, NULL);
  if (IS(recvmsg)) result = recvmsg(pair[1], &message.msg_hdr, 0);
  if (IS(recvmmsg))
    result = recvmmsg(pair[1], &message, 1, 0, NULL) == 1 ? (ssize_t)message.msg_len : -1;
  if (IS(readv)) result = readv(pair[1], pieces, 2);
  if (IS(preadv)) result = preadv(file, pieces, 2, 0);
  if (IS(preadv2)) result = preadv2(file, pieces, 2, 0, 0);
  if (IS(getrandom)) result = getrandom(start, size, 0);
  if (IS(readlink)) result = readlink("link", start, size);
  if (IS(__readlink_chk)) result = __readlink_chk("link", start, size, ROOM);
  if (IS(readlinkat)) result = readlinkat(AT_FDCWD, "link", start, size);
  if (IS(__readlinkat_chk)) result = __readlinkat_chk(AT_FDCWD, "link", start, size, ROOM);
  if (IS(getcwd)) result = getcwd(start, size) ? (ssize_t)strlen(start) + 1 : -1;
  if (IS(__getcwd_chk)) result = __getcwd_chk(start, size, ROOM) ? (ssize_t)strlen(start) + 1 : -1;
  if (IS(fread)) result = (ssize_t)fread(start, 1, size, zeros);
  if (IS(fread_unlocked)) result = (ssize_t)fread_unlocked(start, 1, size, zeros);
  if (IS(__fread_chk)) result = (ssize_t)__fread_chk(start, ROOM, 1, size, zeros);
  if (IS(__fread_unlocked_chk)) result = (ssize_t)__fread_unlocked_chk(start, ROOM, 1, size, zeros);
  CHECK(result != -2);
  return result;
}

int main(int count, char **words) {
  CHECK(count == 4);
  size_t size = (size_t)atol(words[3]);
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
  CHECK(fcntl(pair[0], F_SETFL, O_NONBLOCK) == 0 && fcntl(pair[1], F_SETFL, O_NONBLOCK) == 0);
  CHECK((zeros = fopen(strstr(words[1], "write") ? "/dev/null" : "/dev/zero", strstr(words[1], "write") ? "w" : "r")) != NULL);
  bool is_far = strstr(words[1], "link") || strstr(words[1], "cwd");
  if (is_far) go_far(!strcmp(words[2], "over") ? size + 8 : size);
  char *block = allocating(size);
  memset(block, 1, size);
  // Something to receive: more than is asked for.
  char *sent = calloc(2, size);
  CHECK(write(pair[0], sent, 2 * size) == (ssize_t)(2 * size));
  if (!strcmp(words[2], "fits")) {
    errno = EDOM;
    CHECK(transferring(words[1], block, size) == (ssize_t)size && errno == EDOM);
    // The kernel's own errors are its own.
    CHECK(read(-1, block, size) == -1 && errno == EBADF);
    CHECK(write(-1, block, size) == -1 && errno == EBADF);
    CHECK(writev(pair[0], hide((void *)8), 2) == -1 && errno == EFAULT);
    CHECK(recvmsg(pair[1], hide((void *)8), 0) == -1 && errno == EFAULT);
    CHECK(sendmmsg(pair[0], hide((void *)8), 1, 0) == -1 && errno == EFAULT);
    CHECK(readlink("link", hide((void *)8), 0) == -1 && errno != EFAULT);
    // Short of what was asked for, and no less than the block holds.
    CHECK(lseek(fileno(zeros), 0, SEEK_SET) == 0);
    int file = open("/proc/self/comm", O_RDONLY);
    ssize_t there = read(file, block, size);
    CHECK(file >= 0 && there > 0 && there < (ssize_t)size && read(file, block, size) == 0);
    close(file);
  } else if (!strcmp(words[2], "over")) {
    transferring(words[1], block, size + 8);
  } else if (!strcmp(words[2], "under")) {
    transferring(words[1], block - 8, size);
  }
  freeing(block);
  if (!strcmp(words[2], "freed")) transferring(words[1], block, size);
  if (is_far) come_back();
  free(sent);
  fclose(zeros);
  return ok();
}
