// transfer.c: the calls by which the kernel reads and writes the program's memory: read,
// write and their kin. A page that faults gives them EFAULT or a short count, and no
// signal. Those with several pieces are in transfer_pieces.c, those of stdio, which make
// such calls for large pieces, in transfer_stdio.c.
//
//   program ─▶ write: look at [buffer, buffer + size) ─▶ the C library's write
//   program ─▶ read ─▶ the C library's read ─▶ how far did it come?
//
// What the C library calls itself, for stdio's own buffers, does not come by here. The
// names with `_chk` are what programs call that were built with _FORTIFY_SOURCE.
#define _GNU_SOURCE
#include "transfer.h"

#include <dlfcn.h>
#include <string.h>
#include <unistd.h>

// The C library's own, under the names that it keeps for itself.
extern ssize_t __read(int, void *, size_t);
extern ssize_t __write(int, const void *, size_t);
extern ssize_t __pread64(int, void *, size_t, off_t);
extern ssize_t __pwrite64(int, const void *, size_t, off_t);
extern ssize_t __send(int, const void *, size_t, int);

static struct keg_transfers real;

__attribute__((constructor)) static void look_up(void) {
#define KEG_LOOK_UP(result, name, parameters) *(void **)&real.name = dlsym(RTLD_NEXT, #name);
  // The last of them tells that all are known.
  if (!real.writev) { KEG_TRANSFERS(KEG_LOOK_UP) }
#undef KEG_LOOK_UP
}

const struct keg_transfers *keg_real_transfers(void) {
  look_up();
  return &real;
}

// ---- writing to memory ---------------------------------------------------------------

ssize_t read(int file, void *buffer, size_t size) {
  return keg_transfer_after(buffer, size, __read(file, buffer, size));
}

ssize_t __read_chk(int file, void *buffer, size_t size, size_t room) {
  return keg_transfer_after(buffer, size, keg_real_transfers()->__read_chk(file, buffer, size, room));
}

ssize_t pread64(int file, void *buffer, size_t size, off_t offset) {
  return keg_transfer_after(buffer, size, __pread64(file, buffer, size, offset));
}

ssize_t pread(int, void *, size_t, off_t) __attribute__((alias("pread64")));

ssize_t __pread64_chk(int file, void *buffer, size_t size, off_t offset, size_t room) {
  ssize_t result = keg_real_transfers()->__pread64_chk(file, buffer, size, offset, room);
  return keg_transfer_after(buffer, size, result);
}

ssize_t __pread_chk(int, void *, size_t, off_t, size_t) __attribute__((alias("__pread64_chk")));

ssize_t recv(int socket, void *buffer, size_t size, int flags) {
  return keg_transfer_after(buffer, size, keg_real_transfers()->recv(socket, buffer, size, flags));
}

ssize_t __recv_chk(int socket, void *buffer, size_t size, size_t room, int flags) {
  ssize_t result = keg_real_transfers()->__recv_chk(socket, buffer, size, room, flags);
  return keg_transfer_after(buffer, size, result);
}

ssize_t recvfrom(int socket, void *restrict buffer, size_t size, int flags,
                 struct sockaddr *restrict from, socklen_t *restrict length) {
  ssize_t result = keg_real_transfers()->recvfrom(socket, buffer, size, flags, from, length);
  return keg_transfer_after(buffer, size, result);
}

ssize_t __recvfrom_chk(int socket, void *restrict buffer, size_t size, size_t room, int flags,
                       struct sockaddr *restrict from, socklen_t *restrict length) {
  ssize_t result =
      keg_real_transfers()->__recvfrom_chk(socket, buffer, size, room, flags, from, length);
  return keg_transfer_after(buffer, size, result);
}

ssize_t readlink(const char *restrict path, char *restrict buffer, size_t size) {
  return keg_transfer_after(buffer, size, keg_real_transfers()->readlink(path, buffer, size));
}

ssize_t __readlink_chk(const char *path, char *buffer, size_t size, size_t room) {
  ssize_t result = keg_real_transfers()->__readlink_chk(path, buffer, size, room);
  return keg_transfer_after(buffer, size, result);
}

ssize_t readlinkat(int folder, const char *restrict path, char *restrict buffer, size_t size) {
  ssize_t result = keg_real_transfers()->readlinkat(folder, path, buffer, size);
  return keg_transfer_after(buffer, size, result);
}

ssize_t __readlinkat_chk(int folder, const char *path, char *buffer, size_t size, size_t room) {
  ssize_t result = keg_real_transfers()->__readlinkat_chk(folder, path, buffer, size, room);
  return keg_transfer_after(buffer, size, result);
}

ssize_t getrandom(void *buffer, size_t size, unsigned flags) {
  return keg_transfer_after(buffer, size, keg_real_transfers()->getrandom(buffer, size, flags));
}

// Without a buffer the C library allocates one.
char *getcwd(char *buffer, size_t size) {
  char *result = keg_real_transfers()->getcwd(buffer, size);
  if (!result) keg_transfer_after(buffer, size, -1);
  return result;
}

char *__getcwd_chk(char *buffer, size_t size, size_t room) {
  char *result = keg_real_transfers()->__getcwd_chk(buffer, size, room);
  if (!result) keg_transfer_after(buffer, size, -1);
  return result;
}

// ---- reading from memory -------------------------------------------------------------

ssize_t write(int file, const void *buffer, size_t size) {
  keg_transfer_before(buffer, size);
  return __write(file, buffer, size);
}

ssize_t pwrite64(int file, const void *buffer, size_t size, off_t offset) {
  keg_transfer_before(buffer, size);
  return __pwrite64(file, buffer, size, offset);
}

ssize_t pwrite(int, const void *, size_t, off_t) __attribute__((alias("pwrite64")));

ssize_t send(int socket, const void *buffer, size_t size, int flags) {
  keg_transfer_before(buffer, size);
  return __send(socket, buffer, size, flags);
}

ssize_t sendto(int socket, const void *buffer, size_t size, int flags, const struct sockaddr *to,
               socklen_t length) {
  keg_transfer_before(buffer, size);
  return keg_real_transfers()->sendto(socket, buffer, size, flags, to, length);
}
