// transfer.h: what the calls of transfer.c, transfer_pieces.c, transfer_stdio.c and closed.c
// share.
#ifndef KEG_TRANSFER_H
#define KEG_TRANSFER_H

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "debug.h"

// Sources/Debug/Transfer.swift
extern void keg_debug_before_reading(uintptr_t start, uintptr_t size, bool is_copied)
    KEG_DEBUG_HIDDEN;
extern void keg_debug_after_reading(uintptr_t start, uintptr_t size, bool has_failed)
    KEG_DEBUG_HIDDEN;
extern void keg_debug_after_writing(uintptr_t start, uintptr_t size, intptr_t result)
    KEG_DEBUG_HIDDEN;

// The C library's own, those that have no second name there: result, name, parameters.
#define KEG_TRANSFERS(X)                                                                        \
  X(ssize_t, recv, (int, void *, size_t, int))                                                  \
  X(ssize_t, recvfrom, (int, void *, size_t, int, struct sockaddr *, socklen_t *))              \
  X(ssize_t, recvmsg, (int, struct msghdr *, int))                                              \
  X(int, recvmmsg, (int, struct mmsghdr *, unsigned, int, struct timespec *))                   \
  X(ssize_t, sendto, (int, const void *, size_t, int, const struct sockaddr *, socklen_t))      \
  X(ssize_t, sendmsg, (int, const struct msghdr *, int))                                        \
  X(int, sendmmsg, (int, struct mmsghdr *, unsigned, int))                                      \
  X(ssize_t, readv, (int, const struct iovec *, int))                                           \
  X(ssize_t, preadv64, (int, const struct iovec *, int, off_t))                                 \
  X(ssize_t, preadv64v2, (int, const struct iovec *, int, off_t, int))                          \
  X(ssize_t, pwritev64, (int, const struct iovec *, int, off_t))                                \
  X(ssize_t, pwritev64v2, (int, const struct iovec *, int, off_t, int))                         \
  X(ssize_t, readlink, (const char *, char *, size_t))                                          \
  X(ssize_t, readlinkat, (int, const char *, char *, size_t))                                   \
  X(char *, getcwd, (char *, size_t))                                                           \
  X(ssize_t, getrandom, (void *, size_t, unsigned))                                             \
  X(ssize_t, __read_chk, (int, void *, size_t, size_t))                                         \
  X(ssize_t, __pread64_chk, (int, void *, size_t, off_t, size_t))                               \
  X(ssize_t, __recv_chk, (int, void *, size_t, size_t, int))                                    \
  X(ssize_t, __recvfrom_chk,                                                                    \
    (int, void *, size_t, size_t, int, struct sockaddr *, socklen_t *))                         \
  X(ssize_t, __readlink_chk, (const char *, char *, size_t, size_t))                            \
  X(ssize_t, __readlinkat_chk, (int, const char *, char *, size_t, size_t))                     \
  X(char *, __getcwd_chk, (char *, size_t, size_t))                                             \
  X(size_t, fread_unlocked, (void *, size_t, size_t, FILE *))                                   \
  X(size_t, fwrite_unlocked, (const void *, size_t, size_t, FILE *))                            \
  X(size_t, __fread_chk, (void *, size_t, size_t, size_t, FILE *))                              \
  X(size_t, __fread_unlocked_chk, (void *, size_t, size_t, size_t, FILE *))                     \
  X(char *, __fgets_chk, (char *, size_t, int, FILE *))                                         \
  X(int, __vfprintf_chk, (FILE *, int, const char *, va_list))                                  \
  X(int, pclose, (FILE *))                                                                      \
  X(int, closedir, (DIR *))                                                                     \
  X(struct dirent64 *, readdir64, (DIR *))                                                      \
  X(void, rewinddir, (DIR *))                                                                   \
  X(ssize_t, writev, (int, const struct iovec *, int))

struct keg_transfers {
#define KEG_MEMBER(result, name, parameters) result(*name) parameters;
  KEG_TRANSFERS(KEG_MEMBER)
#undef KEG_MEMBER
};

/// Those of the C library; looked up at start, or when a constructor is quicker.
extern const struct keg_transfers *keg_real_transfers(void) KEG_DEBUG_HIDDEN;

/// Before the kernel reads `size` bytes.
static inline void keg_transfer_before(const void *buffer, size_t size) {
  int saved = errno;
  keg_debug_before_reading((uintptr_t)buffer, size, false);
  errno = saved;
}

/// After a call that was to write up to `size` bytes. A result above `size` counts as `size`:
/// of several pieces this one is full, or, with MSG_TRUNC, it is the length of what there
/// was. Returns `result`.
static inline ssize_t keg_transfer_after(void *buffer, size_t size, ssize_t result) {
  int saved = errno;
  if (result > 0 || (result < 0 && saved == EFAULT))
    keg_debug_after_writing((uintptr_t)buffer, size,
                            result > 0 && (size_t)result > size ? (ssize_t)size : result);
  errno = saved;
  return result;
}

#endif
