// unwind.h: what the capture of stacks needs of C: registers, the loader's answer to
// "what lies at this address", and libunwind behind function pointers
// (Sources/Debug/Stack*.swift, Names*.swift). Part of the module DebugPlatform.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KEG_UNWIND_HIDDEN __attribute__((visibility("hidden")))

// ---- registers ------------------------------------------------------------------

/// Registers in DWARF's numbering: 3 rbx, 6 rbp, 7 rsp, 12 … 15 r12 … r15, 16 rip.
enum { KEG_RBX = 3, KEG_RBP = 6, KEG_RSP = 7, KEG_RIP = 16, KEG_REGISTER_COUNT = 17 };

/// The frame pointer of the function this is inlined into: the address of its
/// caller's frame pointer, above which lies the return address.
static inline __attribute__((always_inline)) uintptr_t keg_frame_pointer(void) {
  uintptr_t bp;
  __asm__ volatile("mov %%rbp, %0" : "=r"(bp));
  return bp;
}

/// Writes the registers that calls preserve, rsp and rip, as they are at one
/// instruction of the function this is inlined into.
static inline __attribute__((always_inline)) void keg_read_registers(
    uintptr_t *_Nonnull registers) {
  __asm__ volatile(
      "lea 0f(%%rip), %%rax\n"
      "mov %%rax, 128(%0)\n"
      "0:\n"
      "mov %%rbx, 24(%0)\n"
      "mov %%rbp, 48(%0)\n"
      "mov %%rsp, 56(%0)\n"
      "mov %%r12, 96(%0)\n"
      "mov %%r13, 104(%0)\n"
      "mov %%r14, 112(%0)\n"
      "mov %%r15, 120(%0)\n" ::"r"(registers)
      : "rax", "memory");
}

/// Writes the registers that a signal handler's third argument, or a signal frame on
/// a stack, holds.
extern void keg_read_context(const void *_Nonnull context,
                             uintptr_t *_Nonnull registers) KEG_UNWIND_HIDDEN;

// ---- modules --------------------------------------------------------------------

/// The executable or shared library that an address lies in.
struct keg_module {
  uintptr_t start, end;     ///< what it spans in memory
  uintptr_t base;           ///< run-time address minus link-time address
  uintptr_t unwind_table;   ///< .eh_frame_hdr, 0: none
  uintptr_t dynamic;        ///< its dynamic section, 0: none
  const char *_Nullable path;  ///< as the loader knows it; empty for the executable
};
/// Finds the module of `address`. Takes no lock: the loader's own table for C++
/// exceptions answers (`_dl_find_object`, glibc 2.35). False: none is there.
extern bool keg_find_module(uintptr_t address, struct keg_module *_Nonnull module) KEG_UNWIND_HIDDEN;

/// Before dlclose: lists the modules. False: without `keg_keep_unloaded` after it.
extern bool keg_list_modules(void) KEG_UNWIND_HIDDEN;
/// After dlclose: keeps what is not there any more.
extern void keg_keep_unloaded(void) KEG_UNWIND_HIDDEN;
/// The module that lay at `address` before dlclose took it. `start` is a copy of its first
/// bytes; it has no dynamic section and no unwind data.
extern bool keg_find_unloaded(uintptr_t address, struct keg_module *_Nonnull module)
    KEG_UNWIND_HIDDEN;
/// Whether the C library can answer at all.
extern bool keg_can_find_modules(void) KEG_UNWIND_HIDDEN;

/// Absolute path of the executable, as it was at start; empty when nobody knows.
extern const char *_Nonnull keg_executable_path(void) KEG_UNWIND_HIDDEN;

// ---- libunwind ------------------------------------------------------------------

/// Opens libunwind. Takes the loader's lock: for a constructor only.
/// Returns 0, 1: it is not installed, 2: it lacks a function.
extern int keg_libunwind_open(void) KEG_UNWIND_HIDDEN;
/// Walks from `registers`; writes at most `limit` addresses in the manner of
/// StackWalk.swift (inside the call, not after it). Returns how many, or -1.
/// One thread at a time.
extern int keg_libunwind_walk(const uintptr_t *_Nonnull registers,
                              uintptr_t *_Nonnull frames, int limit) KEG_UNWIND_HIDDEN;

// ---- storage --------------------------------------------------------------------

/// Room for `Stacks`: zero, aligned to a cache line.
#define KEG_STACKS_BYTES 1024
extern char keg_stacks_bytes[KEG_STACKS_BYTES] KEG_UNWIND_HIDDEN;
static inline uintptr_t keg_stacks_storage(void) { return (uintptr_t)keg_stacks_bytes; }

/// Whether they are set up.
extern char keg_stacks_up KEG_UNWIND_HIDDEN;
static inline bool keg_stacks_are_up(void) {
  return __atomic_load_n(&keg_stacks_up, __ATOMIC_ACQUIRE);
}
static inline void keg_set_stacks_up(void) {
  __atomic_store_n(&keg_stacks_up, 1, __ATOMIC_RELEASE);
}

/// The calling thread's `StackRecord`, 0: none yet.
extern __thread uintptr_t keg_stack_record
    __attribute__((tls_model("initial-exec"))) KEG_UNWIND_HIDDEN;
static inline uintptr_t keg_get_stack_record(void) { return keg_stack_record; }
static inline void keg_set_stack_record(uintptr_t record) { keg_stack_record = record; }
