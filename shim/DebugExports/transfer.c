// transfer.c: the calls by which the kernel reads and writes the program's memory: read,
// write and their kin, and fread and fwrite, which make such calls for large pieces. A
// page that faults gives them EFAULT or a short count, and no signal.
//
//   program ─▶ write: look at [buffer, buffer + size) ─▶ the C library's write
//   program ─▶ read ─▶ the C library's read ─▶ how far did it come?
//
// What the C library calls itself, for stdio's own buffers, does not come by here.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "debug.h"
#include "platform.h"

// Sources/Debug/Transfer.swift
extern void keg_debug_before_reading(uintptr_t start, uintptr_t size, bool is_copied)
    KEG_DEBUG_HIDDEN;
extern void keg_debug_after_reading(uintptr_t start, uintptr_t size, bool has_failed)
    KEG_DEBUG_HIDDEN;
extern void keg_debug_after_writing(uintptr_t start, uintptr_t size, intptr_t result)
    KEG_DEBUG_HIDDEN;

// The C library's own, under the names that it keeps for itself.
extern ssize_t __read(int, void *, size_t);
extern ssize_t __write(int, const void *, size_t);
extern ssize_t __pread64(int, void *, size_t, off_t);
extern ssize_t __pwrite64(int, const void *, size_t, off_t);
extern ssize_t __send(int, const void *, size_t, int);
extern size_t _IO_fread(void *, size_t, size_t, FILE *);
extern size_t _IO_fwrite(const void *, size_t, size_t, FILE *);

// Those without such a name; looked up at start, or when a constructor is quicker.
static struct {
  ssize_t (*recv)(int, void *, size_t, int);
  ssize_t (*recvfrom)(int, void *, size_t, int, struct sockaddr *, socklen_t *);
  ssize_t (*sendto)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
  ssize_t (*readv)(int, const struct iovec *, int);
  ssize_t (*writev)(int, const struct iovec *, int);
} real;

__attribute__((constructor)) static void look_up(void) {
  if (real.writev) return;
  *(void **)&real.recv = dlsym(RTLD_NEXT, "recv");
  *(void **)&real.recvfrom = dlsym(RTLD_NEXT, "recvfrom");
  *(void **)&real.sendto = dlsym(RTLD_NEXT, "sendto");
  *(void **)&real.readv = dlsym(RTLD_NEXT, "readv");
  *(void **)&real.writev = dlsym(RTLD_NEXT, "writev");
}

static void before(const void *buffer, size_t size) {
  int saved = errno;
  keg_debug_before_reading((uintptr_t)buffer, size, false);
  errno = saved;
}

static ssize_t after(void *buffer, size_t size, ssize_t result) {
  int saved = errno;
  if (result > 0 || (result < 0 && saved == EFAULT))
    keg_debug_after_writing((uintptr_t)buffer, size, result);
  errno = saved;
  return result;
}

ssize_t read(int file, void *buffer, size_t size) {
  return after(buffer, size, __read(file, buffer, size));
}

ssize_t pread64(int file, void *buffer, size_t size, off_t offset) {
  return after(buffer, size, __pread64(file, buffer, size, offset));
}

ssize_t pread(int file, void *buffer, size_t size, off_t offset) {
  return after(buffer, size, __pread64(file, buffer, size, offset));
}

ssize_t recv(int socket, void *buffer, size_t size, int flags) {
  look_up();
  ssize_t result = real.recv(socket, buffer, size, flags);
  // With MSG_TRUNC the result is the length of what there was.
  after(buffer, size, result > 0 && (size_t)result > size ? (ssize_t)size : result);
  return result;
}

ssize_t recvfrom(int socket, void *restrict buffer, size_t size, int flags,
                 struct sockaddr *restrict from, socklen_t *restrict length) {
  look_up();
  ssize_t result = real.recvfrom(socket, buffer, size, flags, from, length);
  after(buffer, size, result > 0 && (size_t)result > size ? (ssize_t)size : result);
  return result;
}

ssize_t write(int file, const void *buffer, size_t size) {
  before(buffer, size);
  return __write(file, buffer, size);
}

ssize_t pwrite64(int file, const void *buffer, size_t size, off_t offset) {
  before(buffer, size);
  return __pwrite64(file, buffer, size, offset);
}

ssize_t pwrite(int file, const void *buffer, size_t size, off_t offset) {
  before(buffer, size);
  return __pwrite64(file, buffer, size, offset);
}

ssize_t send(int socket, const void *buffer, size_t size, int flags) {
  before(buffer, size);
  return __send(socket, buffer, size, flags);
}

ssize_t sendto(int socket, const void *buffer, size_t size, int flags, const struct sockaddr *to,
               socklen_t length) {
  look_up();
  before(buffer, size);
  return real.sendto(socket, buffer, size, flags, to, length);
}

// The list of pieces itself may be a wild pointer: the kernel says so.
static bool is_sound(const struct iovec *pieces, int count) {
  if (count <= 0 || count > IOV_MAX) return false;
  uintptr_t end = (uintptr_t)(pieces + count) - 1;
  for (uintptr_t at = (uintptr_t)pieces; at < end; at = (at | 4095) + 1)
    if (!keg_is_readable(at)) return false;
  return keg_is_readable(end);
}

ssize_t readv(int file, const struct iovec *pieces, int count) {
  look_up();
  ssize_t result = real.readv(file, pieces, count);
  int saved = errno;
  ssize_t left = result;
  int known = is_sound(pieces, count) ? count : 0;
  for (int i = 0; i < known; i++) {
    size_t size = pieces[i].iov_len;
    ssize_t here = left > 0 && (size_t)left > size ? (ssize_t)size : left;
    after(pieces[i].iov_base, size, here);
    if (left < 0) continue;
    if ((size_t)here < size) break;
    left -= here;
  }
  errno = saved;
  return result;
}

ssize_t writev(int file, const struct iovec *pieces, int count) {
  look_up();
  int known = is_sound(pieces, count) ? count : 0;
  for (int i = 0; i < known; i++)
    before(pieces[i].iov_base, pieces[i].iov_len);
  return real.writev(file, pieces, count);
}

// stdio copies what is small, and faults as others do.

size_t fread(void *restrict buffer, size_t size, size_t count, FILE *restrict file) {
  int saved = errno;
  errno = 0;
  size_t result = _IO_fread(buffer, size, count, file);
  if (errno == EFAULT && result < count) after(buffer, size * count, -1);
  if (!errno) errno = saved;
  return result;
}

size_t fwrite(const void *restrict buffer, size_t size, size_t count, FILE *restrict file) {
  size_t bytes = size * count;
  int saved = errno;
  keg_debug_before_reading((uintptr_t)buffer, bytes, true);
  errno = 0;
  size_t result = _IO_fwrite(buffer, size, count, file);
  if (!errno) errno = saved;
  else saved = errno;
  keg_debug_after_reading((uintptr_t)buffer, bytes, saved == EFAULT && result < count);
  errno = saved;
  return result;
}
