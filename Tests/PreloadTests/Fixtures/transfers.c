// transfers.c: system calls that are given memory outside a block.
//   transfers CALL over|under|freed|fits SIZE
// `fits` also checks what the calls return, and that nothing of errno is lost.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "fixture.h"

static int pair[2];
static FILE *zeros;

__attribute__((noinline)) static char *allocating(size_t size) { return hide(malloc(size)); }
__attribute__((noinline)) static void freeing(void *block) {
  free(block);
  hide(block);
}

__attribute__((noinline)) static ssize_t transferring(const char *call, char *start, size_t size) {
  struct iovec pieces[2] = {{start, size / 2}, {start + size / 2, size - size / 2}};
  struct sockaddr *nobody = NULL;
  ssize_t result = -2;
  if (!strcmp(call, "write")) result = write(pair[0], start, size);
  if (!strcmp(call, "pwrite")) result = pwrite(fileno(zeros), start, size, 0);
  if (!strcmp(call, "send")) result = send(pair[0], start, size, 0);
  if (!strcmp(call, "sendto")) result = sendto(pair[0], start, size, 0, nobody, 0);
  if (!strcmp(call, "writev")) result = writev(pair[0], pieces, 2);
  if (!strcmp(call, "fwrite")) result = (ssize_t)fwrite(start, 1, size, zeros);
  if (!strcmp(call, "read")) result = read(pair[1], start, size);
  if (!strcmp(call, "pread")) result = pread(fileno(zeros), start, size, 0);
  if (!strcmp(call, "recv")) result = recv(pair[1], start, size, 0);
  if (!strcmp(call, "recvfrom")) result = recvfrom(pair[1], start, size, 0, NULL, NULL);
  if (!strcmp(call, "readv")) result = readv(pair[1], pieces, 2);
  if (!strcmp(call, "fread")) result = (ssize_t)fread(start, 1, size, zeros);
  return result;
}

int main(int count, char **words) {
  CHECK(count == 4);
  size_t size = (size_t)atol(words[3]);
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
  CHECK(fcntl(pair[0], F_SETFL, O_NONBLOCK) == 0 && fcntl(pair[1], F_SETFL, O_NONBLOCK) == 0);
  CHECK((zeros = fopen(strstr(words[1], "write") ? "/dev/null" : "/dev/zero", strstr(words[1], "write") ? "w" : "r")) != NULL);
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
  free(sent);
  fclose(zeros);
  return ok();
}
