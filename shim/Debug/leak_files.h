// leak_files.h: files and directories of /proc, read without the C library: a thread that
// is stopped may hold its locks.
#ifndef KEG_LEAK_FILES_H
#define KEG_LEAK_FILES_H

#include <dirent.h>
#include <fcntl.h>
#include <stddef.h>

#include "platform.h"

/// Below zero: an error number.
static inline long keg_file_open(long directory, const char *path, int flags) {
  return keg_syscall6(257 /* openat */, directory, (long)path, flags | O_RDONLY | O_CLOEXEC, 0, 0, 0);
}
static inline long keg_file_read(long file, void *bytes, size_t size) {
  return keg_syscall6(0 /* read */, file, (long)bytes, (long)size, 0, 0, 0);
}
static inline void keg_file_close(long file) {
  keg_syscall6(3 /* close */, file, 0, 0, 0, 0, 0);
}

/// Goes through a directory. Zero but for its descriptor at first.
struct keg_names {
  long directory, length, at;
  char entries[4096] __attribute__((aligned(8)));
};

/// The next name; NULL: there are no more.
static inline const char *keg_next_name(struct keg_names *names) {
  if (names->at >= names->length) {
    names->at = 0;
    names->length = keg_syscall6(217 /* getdents64 */, names->directory, (long)names->entries,
                                 sizeof names->entries, 0, 0, 0);
    if (names->length <= 0) return NULL;
  }
  struct dirent *entry = (void *)(names->entries + names->at);
  names->at += entry->d_reclen;
  return entry->d_name;
}

#endif
