// wild_frames.c: code that uses the frame pointer for something else while it allocates:
// small numbers, pages that may not be read, pages of a file that became shorter (SIGBUS),
// the end of memory, chains that lead there, and chains that lead back to themselves.
#include "fixture.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

__attribute__((noinline)) static void allocate_with(uintptr_t frame_pointer) {
  void *block;
  __asm__ volatile(
      "pushq %%rbp\n"
      "movq %%rsp, %%r12\n"
      "subq $256, %%rsp\n"
      "andq $-16, %%rsp\n"
      "movq %1, %%rbp\n"
      "movl $40, %%edi\n"
      "call malloc@PLT\n"
      "movq %%rax, %%rdi\n"
      "call free@PLT\n"
      "movq %%r12, %%rsp\n"
      "popq %%rbp\n"
      : "=a"(block)
      : "r"(frame_pointer)
      : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "memory", "cc");
}

int main(void) {
  char path[] = "/tmp/kegmalloc-wild-XXXXXX";
  int file = mkstemp(path);
  CHECK(file >= 0 && unlink(path) == 0 && ftruncate(file, 8192) == 0);
  char *gone = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  char *closed = mmap(NULL, 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(gone != MAP_FAILED && closed != MAP_FAILED && ftruncate(file, 0) == 0);
  uintptr_t to_gone[2] = {(uintptr_t)gone + 32, (uintptr_t)main + 8};
  uintptr_t to_closed[2] = {(uintptr_t)closed, (uintptr_t)main + 8};
  uintptr_t to_itself[2] = {(uintptr_t)to_itself, (uintptr_t)main + 8};
  const uintptr_t wild[] = {
      0, 1, 8, 4096, 0xdeadbeef, (uintptr_t)gone, (uintptr_t)gone + 16, (uintptr_t)gone + 4088,
      (uintptr_t)closed, (uintptr_t)closed + 8, 0x7fffffffffff, 0x8000000000000000, UINTPTR_MAX,
      (uintptr_t)main, (uintptr_t)to_gone + 3, (uintptr_t)to_gone, (uintptr_t)to_closed, (uintptr_t)to_itself};
  // The first time is walked, later ones may come from what was remembered.
  for (int round = 0; round < 3; round++)
    for (size_t i = 0; i < sizeof wild / sizeof *wild; i++) allocate_with(wild[i]);
  return ok();
}
