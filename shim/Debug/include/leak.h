// leak.h: what the leak check (Sources/Debug/Leak*.swift) needs of C: stopping the
// other threads, reading memory that may not be there, the places where the C
// library keeps things, and entry points that save registers.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The hosted build links no shim/DebugExports: there a name of it may stay undefined.
#if defined(__swift__) && !defined(__swift_embedded__)
#define KEG_LEAK_HIDDEN
#else
#define KEG_LEAK_HIDDEN __attribute__((visibility("hidden")))
#endif

// ---- threads (leak_stop.c) -----------------------------------------------------

enum {
  KEG_LEAK_LISTED = 0,     ///< seen, not yet signalled
  KEG_LEAK_SIGNALLED = 1,  ///< asked to stop
  KEG_LEAK_STOPPED = 2,    ///< stopped; the fields below hold
  KEG_LEAK_DEFIANT = 3,    ///< runs on: it blocks every signal, or the kernel keeps it
  KEG_LEAK_ENDED = 4,      ///< ended before it could be stopped
};

/// One other thread of the process.
struct keg_leak_thread {
  int32_t tid;
  uint32_t state;
  uintptr_t stack_pointer;   ///< without the 128 bytes below it that x86-64 code may use
  uintptr_t thread_pointer;
  uintptr_t registers[16];   ///< the general ones
  uintptr_t vectors[32];     ///< xmm0 … xmm15
  uintptr_t pc;
  uintptr_t idle_stack;      ///< its alternate signal stack, on which it is not; 0: none
  uintptr_t idle_bytes;
};

/// Room for `capacity` threads, which stays for good, and its size; NULL: no memory.
extern struct keg_leak_thread *_Nullable keg_leak_room(long capacity, long *_Nonnull bytes)
    KEG_LEAK_HIDDEN;

/// Stops every other thread but `spared` (0: none). Threads blocked in system calls
/// are interrupted and go on with the call later.
/// - table: room for `capacity` threads, of keg_leak_room.
/// Returns how many were found, also when that is more than `capacity`: then all go
/// on, and the caller comes again with more room. -1: this process has no thread
/// list and no signal can be sent.
extern long keg_leak_stop(struct keg_leak_thread *_Nonnull table, long capacity,
                          int32_t spared) KEG_LEAK_HIDDEN;
/// Lets them go on.
extern void keg_leak_resume(void) KEG_LEAK_HIDDEN;

// ---- memory (leak_memory.c) ------------------------------------------------------

/// Blocks all signals of the calling thread but those of faults. Not re-entrant.
extern void keg_leak_block_signals(void) KEG_LEAK_HIDDEN;
extern void keg_leak_unblock_signals(void) KEG_LEAK_HIDDEN;
/// From now on keg_leak_copy stops at pages that cannot be read. Not re-entrant.
extern void keg_leak_catch_faults(void) KEG_LEAK_HIDDEN;
extern void keg_leak_release_faults(void) KEG_LEAK_HIDDEN;
/// Copies up to `words` words from `from`; returns how many were readable.
extern long keg_leak_copy(uintptr_t *_Nonnull to, uintptr_t from, long words) KEG_LEAK_HIDDEN;

/// Calls `body` with the start and end of the resident pages of [start, end), as far as
/// the kernel tells: pages that were never touched are left out, and of a private mapping
/// of a file (`is_file`) those that are still the file's.
extern void keg_leak_each_resident(uintptr_t start, uintptr_t end, bool is_file,
                                   void (*_Nonnull body)(void *_Nullable context, uintptr_t start,
                                                         uintptr_t end),
                                   void *_Nullable context) KEG_LEAK_HIDDEN;

/// Without /proc: the first mapped range at or above `address`, in `*start` and `*end`;
/// neighbouring mappings are one range. False: there is none below `limit`.
extern bool keg_leak_next_range(uintptr_t address, uintptr_t limit, uintptr_t *_Nonnull start,
                                uintptr_t *_Nonnull end) KEG_LEAK_HIDDEN;

/// The loader's list of modules, read without its lock.
/// Calls `body` for each loaded segment.
extern void keg_leak_each_segment(
    void (*_Nonnull body)(void *_Nullable context, uintptr_t start, uintptr_t end, bool writable,
                          const char *_Nonnull name),
    void *_Nullable context) KEG_LEAK_HIDDEN;

// ---- the C library (leak_libc.c) ----------------------------------------------------

/// Bytes of static TLS below a thread pointer.
extern uintptr_t keg_leak_static_tls(void) KEG_LEAK_HIDDEN;
/// Offset of the thread id in the C library's thread block, which begins at the thread
/// pointer, and that of the result of a thread that has ended. 0: not known.
extern uintptr_t keg_leak_tid_offset(void) KEG_LEAK_HIDDEN;
extern uintptr_t keg_leak_result_offset(void) KEG_LEAK_HIDDEN;
/// Looks the above up. Asks the loader, so it is called when this library starts: later
/// a thread that is stopped may hold it.
extern void keg_leak_prepare(void) KEG_LEAK_HIDDEN;
/// The data of this library.
extern uintptr_t keg_leak_own_end(void) KEG_LEAK_HIDDEN;
/// Whether this process is the child of a fork of the one that loaded us.
extern bool keg_leak_is_forked(void) KEG_LEAK_HIDDEN;
/// On a thread that is in exit(3), with `sp` in one of the calls it makes: the stack
/// from the frame of exit's caller on, or 0 when exit is not above `sp`. `registers`
/// are six words: what the registers held that exit's caller may still need.
/// `*main_returned`: the caller is the C library, after main.
extern uintptr_t keg_leak_exit_caller(uintptr_t sp, uintptr_t end, uintptr_t *_Nonnull registers,
                                      bool *_Nonnull main_returned) KEG_LEAK_HIDDEN;

/// Has the C library forget the calling thread's values of keys that were deleted.
extern void keg_leak_drop_deleted_keys(void) KEG_LEAK_HIDDEN;

/// Whether the parent process has this library too, and is a program that may take our
/// status for a failure: not a shell, nor one that only passes it on.
extern bool keg_leak_parent_is_checked(void) KEG_LEAK_HIDDEN;

// ---- the kernel (leak_kernel.c) -------------------------------------------------------

/// The calling thread's alternate signal stack, on which it is not, and its size; 0: none.
extern uintptr_t keg_leak_idle_stack(uintptr_t *_Nonnull bytes) KEG_LEAK_HIDDEN;
/// Calls `body` with what the program gave to epoll_ctl(2) as data and to timer_create(2) as
/// a value, as far as there is a /proc that tells.
extern void keg_leak_each_kernel_word(void (*_Nonnull body)(void *_Nullable context, uintptr_t word),
                                      void *_Nullable context) KEG_LEAK_HIDDEN;

// ---- entry (leak_entry.c) ---------------------------------------------------------------

/// Calls `body` with the address of this frame: six saved registers, the return
/// address, and then what the caller's caller has on its stack.
extern long keg_leak_with_registers(long (*_Nonnull body)(uintptr_t frame, uintptr_t argument),
                                    uintptr_t argument) KEG_LEAK_HIDDEN;

/// Runs `body` on a thread of our own that the C library does not know. Async-signal-safe.
/// False: the kernel refuses, or one is running.
extern bool keg_leak_start_helper(void (*_Nonnull body)(void)) KEG_LEAK_HIDDEN;
/// In the child of a fork there is none.
extern void keg_leak_forget_helper(void) KEG_LEAK_HIDDEN;
/// The memory of the helper, 0 when there was none.
extern uintptr_t keg_leak_helper_memory(uintptr_t *_Nonnull bytes) KEG_LEAK_HIDDEN;
/// The helper's id while one runs, else 0.
extern int32_t keg_leak_helper(void) KEG_LEAK_HIDDEN;

// ---- requests (leak_entry.c) ------------------------------------------------------------

/// Whether somebody asks for a check; cleared by keg_leak_take_request.
extern char keg_leak_requested KEG_LEAK_HIDDEN;
static inline bool keg_leak_is_requested(void) {
  return __atomic_load_n(&keg_leak_requested, __ATOMIC_RELAXED) != 0;
}
extern bool keg_leak_take_request(void) KEG_LEAK_HIDDEN;
/// The file that the request wants the result in, or NULL.
extern const char *_Nullable keg_leak_request_file(void) KEG_LEAK_HIDDEN;
/// keg_leak_request of kegmalloc.h.
extern int keg_leak_ask(const char *_Nullable file) KEG_LEAK_HIDDEN;
/// Takes the next request.
extern void keg_leak_finish_request(void) KEG_LEAK_HIDDEN;
/// Has `number` ask for a check. False: the kernel refuses.
extern bool keg_leak_install_signal(int number) KEG_LEAK_HIDDEN;
