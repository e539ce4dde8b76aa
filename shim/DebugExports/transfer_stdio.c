// transfer_stdio.c: fread and fwrite. stdio copies what is small, and faults as others do;
// for what is large it has the kernel read and write the program's memory itself.
#define _GNU_SOURCE
#include "closed.h"
#include "transfer.h"

// The C library's own, under the names that it keeps for itself.
extern size_t _IO_fread(void *, size_t, size_t, FILE *);
extern size_t _IO_fwrite(const void *, size_t, size_t, FILE *);

// Whether the C library met a page that faults is in errno, which it sets for errors only.
static int start_reading(void) {
  int saved = errno;
  errno = 0;
  return saved;
}

static size_t end_reading(void *buffer, size_t size, size_t count, size_t result, int saved) {
  if (errno == EFAULT && result < count) keg_transfer_after(buffer, size * count, -1);
  if (!errno) errno = saved;
  return result;
}

size_t fread(void *restrict buffer, size_t size, size_t count, FILE *restrict file) {
  if (keg_closed(file)) return 0;
  int saved = start_reading();
  return end_reading(buffer, size, count, _IO_fread(buffer, size, count, file), saved);
}

size_t fread_unlocked(void *restrict buffer, size_t size, size_t count, FILE *restrict file) {
  if (keg_closed(file)) return 0;
  const struct keg_transfers *real = keg_real_transfers();
  int saved = start_reading();
  return end_reading(buffer, size, count, real->fread_unlocked(buffer, size, count, file), saved);
}

size_t __fread_chk(void *restrict buffer, size_t room, size_t size, size_t count,
                   FILE *restrict file) {
  if (keg_closed(file)) return 0;
  const struct keg_transfers *real = keg_real_transfers();
  int saved = start_reading();
  return end_reading(buffer, size, count, real->__fread_chk(buffer, room, size, count, file), saved);
}

size_t __fread_unlocked_chk(void *restrict buffer, size_t room, size_t size, size_t count,
                            FILE *restrict file) {
  if (keg_closed(file)) return 0;
  const struct keg_transfers *real = keg_real_transfers();
  int saved = start_reading();
  size_t result = real->__fread_unlocked_chk(buffer, room, size, count, file);
  return end_reading(buffer, size, count, result, saved);
}

static size_t look_and_write(size_t (*put)(const void *, size_t, size_t, FILE *),
                             const void *buffer, size_t size, size_t count, FILE *file) {
  if (keg_closed(file)) return 0;
  size_t bytes = size * count;
  int saved = errno;
  keg_debug_before_reading((uintptr_t)buffer, bytes, true);
  errno = 0;
  size_t result = put(buffer, size, count, file);
  if (!errno) errno = saved;
  else saved = errno;
  keg_debug_after_reading((uintptr_t)buffer, bytes, saved == EFAULT && result < count);
  errno = saved;
  return result;
}

size_t fwrite(const void *restrict buffer, size_t size, size_t count, FILE *restrict file) {
  return look_and_write(_IO_fwrite, buffer, size, count, file);
}

size_t fwrite_unlocked(const void *restrict buffer, size_t size, size_t count, FILE *restrict file) {
  return look_and_write(keg_real_transfers()->fwrite_unlocked, buffer, size, count, file);
}
