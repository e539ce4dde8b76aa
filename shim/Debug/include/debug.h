// debug.h: what only the debug library needs of C: its part of thread-local storage,
// room for its state, and its questions to the C library. Swift sees it as the
// module DebugPlatform.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The hosted build links no shim/DebugExports: there a name of it may stay undefined.
#if defined(__swift__) && !defined(__swift_embedded__)
#define KEG_DEBUG_HIDDEN
#else
#define KEG_DEBUG_HIDDEN __attribute__((visibility("hidden")))
#endif

// ---- threads (Sources/Debug/Entry.swift) -------------------------------------

/// Where a thread is.
enum {
  KEG_DEBUG_UNATTACHED = 0,  ///< has not called yet; what TLS starts with
  KEG_DEBUG_OUTSIDE = 1,     ///< in the program
  KEG_DEBUG_INSIDE = 2,      ///< in a call of ours; who calls now is a signal handler
  KEG_DEBUG_NESTED = 3,      ///< in a call of ours that may call malloc itself
};

struct keg_debug_thread {
  long state;
  int32_t countdown;      ///< allocations until the next one that is checked
  uintptr_t quarantine;   ///< the thread's part of it, 0: none yet
  uint32_t id;            ///< gettid
  uint32_t calls;         ///< counts up; now and then the clock is read
  uint64_t random;        ///< state of xorshift, 0: not seeded
  uint32_t exit_rounds;   ///< how often pthread has run our key's destructor
  uint32_t failure_countdown;  ///< allocations until one that is made to fail
};
extern __thread struct keg_debug_thread keg_debug_self
    __attribute__((tls_model("initial-exec"))) KEG_DEBUG_HIDDEN;
static inline struct keg_debug_thread *_Nonnull keg_debug_thread(void) {
  return &keg_debug_self;
}

/// `state` of another thread.
static inline long keg_debug_state_of(const struct keg_debug_thread *_Nonnull thread) {
  return __atomic_load_n(&thread->state, __ATOMIC_ACQUIRE);
}

/// Whether a thread forks now; see Sources/Debug/DebugFork.swift.
extern char keg_debug_forking KEG_DEBUG_HIDDEN;
static inline bool keg_debug_is_forking(void) {
  return __atomic_load_n(&keg_debug_forking, __ATOMIC_RELAXED);
}
static inline void keg_debug_set_forking(bool forking) {
  __atomic_store_n(&keg_debug_forking, forking, __ATOMIC_SEQ_CST);
}
/// membarrier(2): a fence in every running thread of the process.
extern void keg_debug_register_barrier(void) KEG_DEBUG_HIDDEN;
extern void keg_debug_barrier(void) KEG_DEBUG_HIDDEN;
extern void keg_debug_yield(void) KEG_DEBUG_HIDDEN;

/// Whether the program's own constructors may run: the libraries below us are ready.
extern bool keg_debug_has_started(void) KEG_DEBUG_HIDDEN;

/// Whether only a part of the allocations is checked: option `sample`.
extern char keg_debug_sampling KEG_DEBUG_HIDDEN;
static inline bool keg_debug_is_sampling(void) { return keg_debug_sampling; }
static inline void keg_debug_set_sampling(void) { keg_debug_sampling = 1; }

// ---- state ---------------------------------------------------------------------

/// Room for `DebugState`: zero, aligned to a cache line.
#define KEG_DEBUG_BYTES 32768
extern char keg_debug_bytes[KEG_DEBUG_BYTES] KEG_DEBUG_HIDDEN;
static inline uintptr_t keg_debug_storage(void) { return (uintptr_t)keg_debug_bytes; }

/// Whether the debug layer has booted. Acquires what boot released.
extern char keg_debug_running KEG_DEBUG_HIDDEN;
static inline bool keg_debug_is_running(void) {
  return __atomic_load_n(&keg_debug_running, __ATOMIC_ACQUIRE);
}
static inline void keg_debug_set_running(void) {
  __atomic_store_n(&keg_debug_running, 1, __ATOMIC_RELEASE);
}

/// Room for one report, which goes out in one write; used under the report lock.
#define KEG_REPORT_BYTES 65536
extern char keg_report_bytes[KEG_REPORT_BYTES] KEG_DEBUG_HIDDEN;
static inline uint8_t *_Nonnull keg_report_buffer(void) { return (uint8_t *)keg_report_bytes; }

/// A copy of standard error at a high number.
extern int keg_debug_keep_stderr(void) KEG_DEBUG_HIDDEN;
/// Opens a file for reports, `%p` in its name being the process; appends. Negative: error.
extern int keg_debug_open_report(const char *_Nonnull path, int pid) KEG_DEBUG_HIDDEN;
/// Which file is open as `descriptor`: a number that no other file has, most likely. 0: none,
/// or it cannot be asked.
extern uintptr_t keg_debug_file(int descriptor) KEG_DEBUG_HIDDEN;
/// Whether `descriptor` is open and still that file; true also if it cannot be asked.
extern bool keg_debug_is_file(int descriptor, uintptr_t file) KEG_DEBUG_HIDDEN;
/// Whether a file's name depends on the process.
extern bool keg_debug_names_process(const char *_Nonnull path) KEG_DEBUG_HIDDEN;

/// Gives a block of a sized delete or a delete[] to the program's own operator. False: it
/// has none. In shim/Exports.
extern bool keg_program_delete(void *_Nullable pointer, bool is_array) KEG_DEBUG_HIDDEN;
/// The same with an alignment.
extern bool keg_program_delete_aligned(
    void *_Nullable pointer, uintptr_t alignment, bool is_array) KEG_DEBUG_HIDDEN;

// ---- the C library -----------------------------------------------------------------

struct keg_debug_hooks {
  void (*_Nonnull fork_prepare)(void);
  void (*_Nonnull fork_parent)(void);
  void (*_Nonnull fork_child)(void);
  void (*_Nonnull thread_exits)(void);
};
extern void keg_debug_install_hooks(const struct keg_debug_hooks *_Nonnull hooks) KEG_DEBUG_HIDDEN;
/// Has `thread_exits` called when this thread ends.
extern void keg_debug_watch_thread_exit(void) KEG_DEBUG_HIDDEN;

// ---- reports ---------------------------------------------------------------------------

/// write(2) whose failure is nobody's: where it would end the program by SIGXFSZ, beyond its
/// limit of file sizes, or by SIGPIPE, it does not.
extern void keg_debug_write(int descriptor, const void *_Nonnull bytes, uintptr_t size)
    KEG_DEBUG_HIDDEN;

// ---- faults (shim/DebugExports/signal.c) ---------------------------------------------

/// Makes the handler for SIGSEGV ours for good.
extern void keg_debug_take_faults(void) KEG_DEBUG_HIDDEN __attribute__((weak));
/// In the hosted build there is none.
static inline bool keg_debug_can_take_faults(void) { return keg_debug_take_faults != 0; }
/// Takes and drops the locks of signal.c around a fork; the child gets new ones. Taken
/// before all others: who looks at a fault takes those.
enum { KEG_FORK_PREPARE, KEG_FORK_PARENT, KEG_FORK_CHILD };
extern void keg_debug_fork_faults(int where) KEG_DEBUG_HIDDEN;
/// An SSE move of 16 bytes whose address must be a multiple of 16 (shim/Debug/aligned.c).
struct keg_aligned_move {
  uintptr_t address;
  unsigned number, length;
  bool is_store;
};
/// The one that a context stands before. False: it is another instruction.
extern bool keg_debug_decode_aligned(const void *_Nonnull context,
                                     struct keg_aligned_move *_Nonnull move) KEG_DEBUG_HIDDEN;
/// Does it for the context, at any address that can be used.
extern void keg_debug_do_aligned(void *_Nonnull context,
                                 const struct keg_aligned_move *_Nonnull move) KEG_DEBUG_HIDDEN;
/// Whether a word is the pattern of freed memory, or near it: a pointer that was read from
/// there and moved to a member or an element.
static inline bool keg_debug_is_trash_pointer(uintptr_t word) {
  return word - 0xdeadc0dedeadc0de + 0x10000 < 0x20000;
}
/// The register that looks as if it had been read from freed memory, or the address
/// that faulted; 0: there is none.
extern uintptr_t keg_debug_trash_in(uintptr_t address, const void *_Nonnull context) KEG_DEBUG_HIDDEN;
/// Whether a fault ends the process: the program has no handler.
extern bool keg_debug_ends_by_fault(void) KEG_DEBUG_HIDDEN;

/// Bytes of memory this process may use: the machine's, or the least limit of the control
/// groups above it.
extern uintptr_t keg_debug_memory_bytes(void) KEG_DEBUG_HIDDEN;

/// Whether CPython, or Swift, is part of the program from its start.
extern bool keg_debug_has_cpython(void) KEG_DEBUG_HIDDEN;
extern bool keg_debug_has_swift(void) KEG_DEBUG_HIDDEN;

/// The start of the first run of resident pages in [start, end), whose end goes to
/// `run_end`; `end`: there is none, or the kernel does not say.
extern uintptr_t keg_debug_resident(uintptr_t start, uintptr_t end, uintptr_t *_Nonnull run_end)
    KEG_DEBUG_HIDDEN;

/// fflush(NULL): what the program has written goes out before its status changes.
extern void keg_debug_flush_program(void) KEG_DEBUG_HIDDEN;
