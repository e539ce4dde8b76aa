// closed.c: streams and directories that were closed, and are used again. What they were
// is a freed block then; of one the C library reads flags and locks that are trash: it ends
// the process, waits for ever, or finds nothing to do.
//
//   program ─▶ fclose: is it a freed block? ─▶ the C library's fclose
//                       ╰─▶ report, EBADF
//
// fread and fwrite are in transfer_stdio.c. Others, such as fputc, end in the C library's
// "invalid stdio handle": keg_debug_at_bad_stream.
#define _GNU_SOURCE
#include "closed.h"

#include <dirent.h>
#include <dlfcn.h>
#include <stdarg.h>
#include <string.h>

#include "transfer.h"

// The C library's own, under the names that it keeps for itself.
extern int _IO_fclose(FILE *);
extern int _IO_fflush(FILE *);
extern int _IO_fputs(const char *, FILE *);
extern int _IO_vfprintf(FILE *, const char *, va_list);
extern char *_IO_fgets(char *, int, FILE *);

// Sources/Debug/Closed.swift
extern bool keg_debug_is_closed(const void *handle, bool is_closing) KEG_DEBUG_HIDDEN;

static bool look(const void *handle, bool is_closing) {
  int saved = errno;
  bool is_closed = keg_debug_is_closed(handle, is_closing);
  errno = is_closed ? EBADF : saved;
  return is_closed;
}

bool keg_closed(const void *handle) { return look(handle, false); }

static bool closed_before(const void *handle) { return look(handle, true); }

int fclose(FILE *file) { return closed_before(file) ? EOF : _IO_fclose(file); }

int pclose(FILE *file) { return closed_before(file) ? -1 : keg_real_transfers()->pclose(file); }

char *fgets(char *restrict buffer, int size, FILE *restrict file) {
  return keg_closed(file) ? NULL : _IO_fgets(buffer, size, file);
}

char *__fgets_chk(char *restrict buffer, size_t room, int size, FILE *restrict file) {
  return keg_closed(file) ? NULL : keg_real_transfers()->__fgets_chk(buffer, room, size, file);
}

int fflush(FILE *file) { return file && keg_closed(file) ? EOF : _IO_fflush(file); }

int fputs(const char *restrict text, FILE *restrict file) {
  return keg_closed(file) ? EOF : _IO_fputs(text, file);
}

int vfprintf(FILE *restrict file, const char *restrict format, va_list arguments) {
  return keg_closed(file) ? -1 : _IO_vfprintf(file, format, arguments);
}

int fprintf(FILE *restrict file, const char *restrict format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int result = vfprintf(file, format, arguments);
  va_end(arguments);
  return result;
}

int __vfprintf_chk(FILE *restrict file, int flag, const char *restrict format, va_list arguments) {
  return keg_closed(file) ? -1 : keg_real_transfers()->__vfprintf_chk(file, flag, format, arguments);
}

int __fprintf_chk(FILE *restrict file, int flag, const char *restrict format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int result = __vfprintf_chk(file, flag, format, arguments);
  va_end(arguments);
  return result;
}

int closedir(DIR *directory) {
  return closed_before(directory) ? -1 : keg_real_transfers()->closedir(directory);
}

struct dirent64 *readdir64(DIR *directory) {
  return keg_closed(directory) ? NULL : keg_real_transfers()->readdir64(directory);
}

struct dirent *readdir(DIR *) __attribute__((alias("readdir64")));

void rewinddir(DIR *directory) {
  if (!keg_closed(directory)) keg_real_transfers()->rewinddir(directory);
}

// What the C library says before it aborts; glibc keeps it for debuggers.
static struct abort_message {
  unsigned size;
  char text[];
} **message;

__attribute__((constructor)) static void look_up(void) { message = dlsym(RTLD_DEFAULT, "__abort_msg"); }

bool keg_is_bad_stream(void) {
  return message && *message && strstr((*message)->text, "invalid stdio handle");
}
