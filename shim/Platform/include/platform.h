// platform.h: everything Swift cannot say about this machine: system calls,
// thread-local storage, the compiler barrier, and the two tables the fast path
// reads. All functions are small enough to inline, except those of platform.c.
//
// System calls are made with the instruction itself, never through libc: the
// wrappers may be interposed by another preloaded library, set errno, or not
// be relocated yet when the first malloc of a process arrives. A result in
// [-4095, -1] is a negated error number, as the kernel returns it.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KEG_HIDDEN __attribute__((visibility("hidden")))

// ---- system calls (x86-64: man 2 syscall) ---------------------------------

static inline long keg_syscall6(long number, long a, long b, long c, long d,
                                long e, long f) {
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8),
                     "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

#define KEG_SYS_write 1
#define KEG_SYS_mmap 9
#define KEG_SYS_mprotect 10
#define KEG_SYS_munmap 11
#define KEG_SYS_rt_sigprocmask 14
#define KEG_SYS_madvise 28
#define KEG_SYS_getpid 39
#define KEG_SYS_mlockall 151
#define KEG_SYS_gettid 186
#define KEG_SYS_futex 202
#define KEG_SYS_clock_gettime 228
#define KEG_SYS_prlimit64 302

/// A mask of all signals that can wait: SIGSYS (31) cannot. A sandbox may answer system
/// calls in a handler of it, and a call that it catches while the signal is blocked ends
/// the process.
#define KEG_ALL_SIGNALS (~(1ul << (31 - 1)))

// ---- threads --------------------------------------------------------------

/// The calling thread's array of bins (see Malloc/ThreadCache.swift). It points
/// at an array of empty bins before the thread attaches and after it has gone,
/// so that the fast path tests neither.
extern __thread uintptr_t keg_thread_bins
    __attribute__((tls_model("initial-exec"))) KEG_HIDDEN;

static inline uintptr_t keg_get_thread_bins(void) { return keg_thread_bins; }
static inline void keg_set_thread_bins(uintptr_t bins) {
  keg_thread_bins = bins;
}

/// Where the calling thread's section lies (Malloc/Section.swift), 0 when it is in none,
/// below the thread's number. Two words are what TLS of a library opened late surely has.
enum { KEG_SECTION_BITS = 48 };
extern __thread uintptr_t keg_thread_section
    __attribute__((tls_model("initial-exec"))) KEG_HIDDEN;
static inline uintptr_t keg_get_section(void) {
  return keg_thread_section & (((uintptr_t)1 << KEG_SECTION_BITS) - 1);
}
/// The calling thread's number among those attached, from 1; 0 for one that is not.
static inline uintptr_t keg_thread_number(void) {
  return keg_thread_section >> KEG_SECTION_BITS;
}
static inline void keg_set_section(uintptr_t section) {
  keg_thread_section = keg_thread_number() << KEG_SECTION_BITS | section;
}
static inline void keg_set_thread_number(uint32_t number) {
  keg_thread_section = (uintptr_t)number << KEG_SECTION_BITS | keg_get_section();
}

/// Arrays of bins shared by every thread in the state of their name; all empty,
/// never written. A bins pointer addresses bin 0; the thread's header lies below
/// it. TLS starts with the first.
enum { KEG_BINS_HEADER_BYTES = 256, KEG_BINS_BYTES = 4096 + KEG_BINS_HEADER_BYTES };
extern char keg_empty_bins[3][KEG_BINS_BYTES] KEG_HIDDEN;

static inline uintptr_t keg_bins_unattached(void) {
  return (uintptr_t)keg_empty_bins[0] + KEG_BINS_HEADER_BYTES;
}
static inline uintptr_t keg_bins_busy(void) {
  return (uintptr_t)keg_empty_bins[1] + KEG_BINS_HEADER_BYTES;
}
static inline uintptr_t keg_bins_dead(void) {
  return (uintptr_t)keg_empty_bins[2] + KEG_BINS_HEADER_BYTES;
}
/// Whether `bins` is one of the three: the thread may not use bins of its own now.
static inline bool keg_bins_are_shared(uintptr_t bins) {
  return bins - (uintptr_t)keg_empty_bins < sizeof keg_empty_bins;
}

/// The thread pointer: the address of the thread control block, which glibc
/// places above the stack of every thread but the first.
static inline uintptr_t keg_thread_pointer(void) {
  return (uintptr_t)__builtin_thread_pointer();
}

static inline uintptr_t keg_stack_pointer(void) {
  uintptr_t sp;
  __asm__ volatile("mov %%rsp, %0" : "=r"(sp));
  return sp;
}

/// Where the kernel put the program's arguments: above the first thread's frames; 0: unknown.
extern uintptr_t keg_first_stack_end(void) KEG_HIDDEN;

/// How layers below Malloc call a function of the program: outside the allocator
/// (Malloc/Section.swift). `inside` gets what `outside` returned. Before `set`, and in
/// tests of those layers, they do nothing.
extern void keg_set_steps(uintptr_t (*_Nonnull outside)(void),
                          void (*_Nonnull inside)(uintptr_t)) KEG_HIDDEN;
extern uintptr_t keg_step_outside(void) KEG_HIDDEN;
extern void keg_step_inside(uintptr_t section) KEG_HIDDEN;

/// A table of bins of zones (ZoneAPI/ThreadTable.swift), all empty, for threads that
/// have none; the word below each of the three arrays above says where.
enum { KEG_ZONE_TABLE_BYTES = 65536 };
extern uintptr_t keg_empty_zone_table(void) KEG_HIDDEN;
/// Makes the three arrays point at it. Once, before the first zone.
extern void keg_publish_empty_zone_table(void) KEG_HIDDEN;

/// The address of the first NULL among `count` words at `items`, or 0.
extern uintptr_t keg_find_null(uintptr_t items, uintptr_t count) KEG_HIDDEN;

/// The CPU that the calling thread runs on, a moment ago.
extern unsigned keg_cpu(void) KEG_HIDDEN;
/// CPUs that the process may use; at least 1.
extern unsigned keg_cpu_count(void) KEG_HIDDEN;

// ---- the fast path's tables -----------------------------------------------

/// One entry per 8 bytes up to 1 KiB, then one per 128 bytes up to 64 KiB.
enum { KEG_SIZE_TABLE_COUNT = 640 + 1 };

/// Read by every malloc and free, written at boot and when the heap grows.
/// All zero before boot: no address is inside, and every size is class 0.
struct keg_fast {
  uintptr_t page_map;     ///< P of Pages/Reservation.swift: the page map; indices count from it
  uintptr_t chunk_count;  ///< chunks of 64 KiB that the page map covers
  uint16_t bin_of_size[KEG_SIZE_TABLE_COUNT];  ///< byte offset of a bin
};
extern struct keg_fast keg_fast KEG_HIDDEN;

static inline uintptr_t keg_fast_page_map(void) { return keg_fast.page_map; }
static inline uintptr_t keg_fast_chunk_count(void) {
  // A plain load, so that it can be an operand of the comparison. It only grows,
  // and whoever frees an item was given it after the count covered it.
  return keg_fast.chunk_count;
}
static inline void keg_fast_set_page_map(uintptr_t address) {
  keg_fast.page_map = address;
}
static inline void keg_fast_set_chunk_count(uintptr_t count) {
  __atomic_store_n(&keg_fast.chunk_count, count, __ATOMIC_RELEASE);
}
static inline uintptr_t keg_fast_bin_of_size(uintptr_t index) {
  return keg_fast.bin_of_size[index];
}
static inline void keg_fast_set_bin_of_size(uintptr_t index, uint16_t offset) {
  keg_fast.bin_of_size[index] = offset;
}

/// Room for Malloc's `Process`: zero, aligned to a cache line.
#define KEG_PROCESS_BYTES 4096
extern char keg_process_bytes[KEG_PROCESS_BYTES] KEG_HIDDEN;
static inline uintptr_t keg_process_storage(void) {
  return (uintptr_t)keg_process_bytes;
}

/// Whether boot is through.
extern char keg_running KEG_HIDDEN;
static inline bool keg_is_running(void) {
  return __atomic_load_n(&keg_running, __ATOMIC_ACQUIRE);
}
static inline void keg_set_running(void) {
  __atomic_store_n(&keg_running, 1, __ATOMIC_RELEASE);
}

// ---- small instructions ---------------------------------------------------

/// Keeps the compiler from moving memory accesses across; emits nothing.
static inline void keg_compiler_barrier(void) {
  __asm__ volatile("" ::: "memory");
}
/// Starts to load the cache line at `address`, which need not be readable.
static inline void keg_prefetch(uintptr_t address) {
  __builtin_prefetch((const void *)address, 1);
}
static inline void keg_cpu_relax(void) { __asm__ volatile("pause"); }

// ---- platform.c -----------------------------------------------------------

/// Ends the process with SIGABRT, also where abort(3) would be caught.
extern _Noreturn void keg_abort(void) KEG_HIDDEN;

/// errno of the calling thread; free must leave it as it was.
extern int keg_get_errno(void) KEG_HIDDEN;
extern void keg_set_errno(int value) KEG_HIDDEN;

/// Auxiliary vector entry (man 3 getauxval), 0 when absent.
extern unsigned long keg_auxiliary(unsigned long type) KEG_HIDDEN;

/// KEGMALLOC_CONF in the environment the kernel gave the process, or NULL.
extern const char *_Nullable keg_environment_options(void) KEG_HIDDEN;

/// The program's own option string: the weak symbol `kegmalloc_conf`, or NULL.
extern const char *_Nullable keg_program_options(void) KEG_HIDDEN;

/// A copy of `count` bytes with a NUL behind them, which stays for good: the value of
/// an option. 0 when the 8 KiB for them are full.
extern uintptr_t keg_keep_text(const char *_Nonnull text, long count) KEG_HIDDEN;

/// Nanoseconds of CLOCK_MONOTONIC_COARSE (a few ms fine), read through the vDSO so that it stays
/// allowed under strict seccomp.
extern uint64_t keg_monotonic_nanoseconds(void) KEG_HIDDEN;

/// The rank stack of the lock checker; only the debug build uses it.
extern uint64_t *_Nonnull keg_lock_ranks(void) KEG_HIDDEN;

// ---- children that nobody announced --------------------------------------------

/// Marks the process; the kernel wipes the mark in the child of every kind of fork
/// (MADV_WIPEONFORK). `orphaned` is called by a lock that would wait in a child
/// that came to be without pthread_atfork's handlers: by _Fork or a raw clone.
extern void keg_mark_process(void (*_Nonnull orphaned)(void)) KEG_HIDDEN;
/// Whether this is such a child; if so, `orphaned` has been called and the process
/// is marked.
extern bool keg_adopt_if_orphaned(void) KEG_HIDDEN;

// ---- signals (Malloc/Signals.swift) ----------------------------------------

/// The sequence that the watch is, and where its word lies, counted from the thread
/// pointer; 0, a word that never holds it, until the watch was first set.
extern const char keg_watch[] KEG_HIDDEN;
extern ptrdiff_t keg_watch_offset KEG_HIDDEN;

/// Whether no signal and no other thread has interrupted this one since
/// keg_set_signal_watch.
static inline bool keg_signal_watch_is_set(void) {
  const uintptr_t *word = (const uintptr_t *)(keg_thread_pointer() + (uintptr_t)keg_watch_offset);
  return __atomic_load_n(word, __ATOMIC_RELAXED) == (uintptr_t)keg_watch;
}
/// Which of mask + 1 places, a power of two, the calling thread works at: one of its own
/// if there are as many; else one that it shares with the threads on its processor, whose
/// number the kernel writes 4 bytes before the watch, or with any.
static inline uintptr_t keg_home(uintptr_t mask) {
  uintptr_t own = keg_thread_number() - 1, thread = keg_thread_pointer();
  if (own <= mask) return own;
  ptrdiff_t offset = __atomic_load_n(&keg_watch_offset, __ATOMIC_RELAXED);
  if (offset == 0) return ((thread >> 12) * 0x9e3779b97f4a7c15u >> 56) & mask;
  return __atomic_load_n((const uint32_t *)(thread + (uintptr_t)offset - 4), __ATOMIC_RELAXED) & mask;
}
/// Sets the watch. False: the kernel or the C library offers none.
extern bool keg_set_signal_watch(void) KEG_HIDDEN;
extern void keg_clear_signal_watch(void) KEG_HIDDEN;

/// The first address in [start, end) that holds `word`, or 0. Both bounds are
/// multiples of 64; 64 bytes cost about 14 instructions.
extern uintptr_t keg_find_word(uintptr_t start, uintptr_t end, uint64_t word) KEG_HIDDEN;

/// The machine code of this library.
extern uintptr_t keg_text_start(void) KEG_HIDDEN;
extern uintptr_t keg_text_end(void) KEG_HIDDEN;

/// Whether the word at `address` can be read without a fault.
extern bool keg_is_readable(uintptr_t address) KEG_HIDDEN;

// ---- the C library ----------------------------------------------------------

/// What the allocator wants to be told of by the C library.
struct keg_hooks {
  void (*_Nonnull fork_prepare)(void);
  void (*_Nonnull fork_parent)(void);
  void (*_Nonnull fork_child)(void);
  void (*_Nonnull thread_exits)(void *_Nullable argument);
};
/// Installs them; once.
extern void keg_install_hooks(const struct keg_hooks *_Nonnull hooks) KEG_HIDDEN;
/// Has `thread_exits` called with `argument` when this thread ends.
extern void keg_watch_thread_exit(void *_Nullable argument) KEG_HIDDEN;
/// Whether the C library knows of one thread only.
extern bool keg_is_single_threaded(void) KEG_HIDDEN;

/// Whether `pointer` is a block of the C library's own malloc; and those of its
/// calls that such a block needs.
extern int keg_is_foreign(void *_Nullable pointer) KEG_HIDDEN;
extern void keg_foreign_free(void *_Nullable pointer) KEG_HIDDEN;
extern void *_Nullable keg_foreign_realloc(void *_Nullable pointer, long size) KEG_HIDDEN;
extern uintptr_t keg_foreign_usable_size(void *_Nullable pointer) KEG_HIDDEN;

// ---- shim/Exports -----------------------------------------------------------

/// The address of a function, of which the compiler does not know that it has it alone.
#define KEG_FUNCTION(name)                                                  \
  (__extension__({                                                          \
    __typeof__(&name) address_ = &name;                                     \
    __asm__("" : "+r"(address_));                                           \
    address_;                                                               \
  }))

/// What operator new does when there is no memory; does not return without some.
extern void *_Nullable keg_new_failed(uintptr_t size) KEG_HIDDEN;

// ---- background thread (Malloc/Background.swift) ------------------------------

/// Starts a thread that runs `body`, which must not return, touch TLS, or call the
/// C library. Once in a process. False: the kernel refused.
extern bool keg_start_background_thread(void (*_Nonnull body)(void)) KEG_HIDDEN;
/// Its id, as far as one was started; 0: none.
extern int32_t keg_background_thread(void) KEG_HIDDEN;
