// transfer_pieces.c: transfers of several pieces of memory in one call: readv, writev, and
// messages. Each piece is looked at as the buffer of read or write is.
//
//   readv: 150 bytes have come │ piece 0: 100 of 100 │ piece 1: 50 of 100 │ piece 2: none │
//
// The lists themselves may be wild pointers: the kernel says so, and nobody looks.
#define _GNU_SOURCE
#include "transfer.h"

#include <limits.h>

#include "platform.h"

static bool is_sound(const void *start, size_t size) {
  if (size == 0) return false;
  uintptr_t end = (uintptr_t)start + size - 1;
  if (end < (uintptr_t)start) return false;
  for (uintptr_t at = (uintptr_t)start; at < end; at = (at | 4095) + 1)
    if (!keg_is_readable(at)) return false;
  return keg_is_readable(end);
}

static void before_pieces(const struct iovec *pieces, size_t count) {
  if (count > IOV_MAX || !is_sound(pieces, count * sizeof *pieces)) return;
  for (size_t i = 0; i < count; i++)
    keg_transfer_before(pieces[i].iov_base, pieces[i].iov_len);
}

static ssize_t after_pieces(const struct iovec *pieces, size_t count, ssize_t result) {
  int saved = errno;
  ssize_t left = result;
  if (count > IOV_MAX || !is_sound(pieces, count * sizeof *pieces)) count = 0;
  for (size_t i = 0; i < count; i++) {
    size_t size = pieces[i].iov_len;
    errno = saved;
    keg_transfer_after(pieces[i].iov_base, size, left);
    if (left < 0) continue;
    if ((size_t)left < size) break;
    left -= (ssize_t)size;
  }
  errno = saved;
  return result;
}

// ---- files ---------------------------------------------------------------------------

ssize_t readv(int file, const struct iovec *pieces, int count) {
  return after_pieces(pieces, (size_t)count, keg_real_transfers()->readv(file, pieces, count));
}

ssize_t preadv64(int file, const struct iovec *pieces, int count, off_t offset) {
  ssize_t result = keg_real_transfers()->preadv64(file, pieces, count, offset);
  return after_pieces(pieces, (size_t)count, result);
}

ssize_t preadv(int, const struct iovec *, int, off_t) __attribute__((alias("preadv64")));

ssize_t preadv64v2(int file, const struct iovec *pieces, int count, off_t offset, int flags) {
  ssize_t result = keg_real_transfers()->preadv64v2(file, pieces, count, offset, flags);
  return after_pieces(pieces, (size_t)count, result);
}

ssize_t preadv2(int, const struct iovec *, int, off_t, int) __attribute__((alias("preadv64v2")));

ssize_t writev(int file, const struct iovec *pieces, int count) {
  before_pieces(pieces, (size_t)count);
  return keg_real_transfers()->writev(file, pieces, count);
}

ssize_t pwritev64(int file, const struct iovec *pieces, int count, off_t offset) {
  before_pieces(pieces, (size_t)count);
  return keg_real_transfers()->pwritev64(file, pieces, count, offset);
}

ssize_t pwritev(int, const struct iovec *, int, off_t) __attribute__((alias("pwritev64")));

ssize_t pwritev64v2(int file, const struct iovec *pieces, int count, off_t offset, int flags) {
  before_pieces(pieces, (size_t)count);
  return keg_real_transfers()->pwritev64v2(file, pieces, count, offset, flags);
}

ssize_t pwritev2(int, const struct iovec *, int, off_t, int) __attribute__((alias("pwritev64v2")));

// ---- messages ------------------------------------------------------------------------

ssize_t recvmsg(int socket, struct msghdr *message, int flags) {
  ssize_t result = keg_real_transfers()->recvmsg(socket, message, flags);
  if (is_sound(message, sizeof *message)) after_pieces(message->msg_iov, message->msg_iovlen, result);
  return result;
}

int recvmmsg(int socket, struct mmsghdr *messages, unsigned count, int flags, struct timespec *limit) {
  int result = keg_real_transfers()->recvmmsg(socket, messages, count, flags, limit);
  // Of a failure the first message was the reason, else the later would have been left.
  unsigned known = result < 0 ? 1 : (unsigned)result;
  if (known > count || !is_sound(messages, known * sizeof *messages)) return result;
  for (unsigned i = 0; i < known; i++) {
    const struct msghdr *message = &messages[i].msg_hdr;
    after_pieces(message->msg_iov, message->msg_iovlen, result < 0 ? -1 : (ssize_t)messages[i].msg_len);
  }
  return result;
}

static void before_message(const struct msghdr *message) {
  if (is_sound(message, sizeof *message)) before_pieces(message->msg_iov, message->msg_iovlen);
}

ssize_t sendmsg(int socket, const struct msghdr *message, int flags) {
  before_message(message);
  return keg_real_transfers()->sendmsg(socket, message, flags);
}

int sendmmsg(int socket, struct mmsghdr *messages, unsigned count, int flags) {
  for (unsigned i = 0; i < count && i < IOV_MAX; i++) before_message(&messages[i].msg_hdr);
  return keg_real_transfers()->sendmmsg(socket, messages, count, flags);
}
